package pghash

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// values are one row's columns, each with what the server is handed.
type values struct {
	text  []byte
	bytea []byte
	i2    int16
	i4    int32
	i8    int64
	b     bool
	f4    float32
	f8    float64
	null  bool
}

func (v values) hash() int64 {
	var r Record
	if v.null {
		r.Null()
	} else {
		r.Bytes(v.text)
	}
	r.Bytes(v.bytea)
	r.Int(int64(v.i2))
	r.Int(int64(v.i4))
	r.Int(v.i8)
	r.Bool(v.b)
	r.Float(float64(v.f4))
	r.Float(v.f8)
	return r.Sum()
}

var serverHash = `SELECT hash_record_extended(ROW(a, b, c, d, e, f, g, h), 0), hashtextextended(a, 0), hash_record_extended(ROW(b), 0), hashint8extended(e, 0),
  hashfloat8extended(h, 0), hash_record_extended(ROW(a::varchar(10000)), 0), ` + RowSQL("a, b") + ` FROM (VALUES ($1::text, $2::bytea, $3::int2, $4::int4, $5::int8, $6::bool, $7::float4, $8::float8)) v(a, b, c, d, e, f, g, h)`

func TestEveryServerHashesARowAsThisDoes(t *testing.T) {
	pgtest.EachOf(t, []int{14, 18}, nil, func(t *testing.T, s *pgtest.Server) { compare(t, s.Database(t).Conn(t)) })
}

func compare(t *testing.T, conn *pgx.Conn) {
	ctx := t.Context()
	var probed int64
	if err := conn.QueryRow(ctx, Probe).Scan(&probed); err != nil {
		t.Fatal(err)
	}
	if probed != Probed() {
		t.Fatalf("the server gives %d for the probe, this %d", probed, Probed())
	}
	r := rand.New(rand.NewPCG(3, 5))
	var cases []values
	for n := range 65 {
		cases = append(cases, random(r, n))
	}
	for range 40 {
		cases = append(cases, random(r, 100+r.IntN(6000)))
	}
	for _, f := range []float64{0, math.Copysign(0, -1), math.NaN(), -math.NaN(), math.Inf(1), math.Inf(-1), math.SmallestNonzeroFloat64, math.MaxFloat64, 0.1} {
		v := random(r, 3)
		v.f8, v.f4 = f, float32(f)
		cases = append(cases, v)
	}
	for _, i := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64, math.MaxInt32, math.MinInt32, math.MaxInt32 + 1, math.MinInt32 - 1, math.MaxUint32, -math.MaxUint32} {
		v := random(r, 4)
		v.i8, v.i4, v.i2, v.null = i, int32(i), int16(i), true
		cases = append(cases, v)
	}
	var batch pgx.Batch
	for i, v := range cases {
		var text *string
		if !v.null {
			s := string(v.text)
			text = &s
		}
		batch.Queue(serverHash, text, v.bytea, v.i2, v.i4, v.i8, v.b, v.f4, v.f8).QueryRow(func(row pgx.Row) error {
			var whole, bytesHash, i8, f8, varchar, added int64
			var textHash *int64
			if err := row.Scan(&whole, &textHash, &bytesHash, &i8, &f8, &varchar, &added); err != nil {
				return err
			}
			var r Record
			if v.null {
				r.Null()
			} else {
				r.Bytes(v.text)
			}
			two := r
			two.Bytes(v.bytea)
			for _, c := range []struct {
				what      string
				got, want int64
			}{
				{"row that is added up", two.Row(), added},
				{"row", v.hash(), whole}, {"bytea", int64(Bytes(v.bytea)), bytesHash}, {"bigint", int64(Int64(v.i8)), i8},
				{"double precision", int64(Float64(v.f8)), f8}, {"varchar", r.Sum(), varchar},
			} {
				if c.got != c.want {
					t.Errorf("case %d, %s: %d, the server gives %d for %+v", i, c.what, c.got, c.want, v)
				}
			}
			if textHash != nil && *textHash != int64(Bytes(v.text)) {
				t.Errorf("case %d, text %q: %d, the server gives %d", i, v.text, int64(Bytes(v.text)), *textHash)
			}
			return nil
		})
	}
	if err := conn.SendBatch(ctx, &batch).Close(); err != nil {
		t.Fatal(err)
	}
	sumOf(t, conn, cases)
}

// sumOf compares the sum over many rows, most of which have hashes of the same sign.
func sumOf(t *testing.T, conn *pgx.Conn, cases []values) {
	var want Sum
	var list []int64
	for _, v := range cases {
		h := v.hash() | math.MinInt64
		for range 300 {
			want.Add(h)
			list = append(list, h)
		}
	}
	var got string
	if err := conn.QueryRow(t.Context(), `SELECT sum(h)::text FROM unnest($1::bigint[]) h`, list).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != want.String() {
		t.Errorf("sum is %s, the server gives %s", want, got)
	}
	parsed, err := ParseSum(got)
	if err != nil || !parsed.Equal(want) {
		t.Errorf("%s read back is %s (%v)", got, parsed, err)
	}
}

// random is a row whose text has n bytes and more than ASCII in it.
func random(r *rand.Rand, n int) values {
	v := values{text: make([]byte, 0, n), bytea: make([]byte, n), i2: int16(r.Uint32()), i4: int32(r.Uint32()), i8: int64(r.Uint64() >> r.IntN(64)),
		b: r.IntN(2) == 0, f4: float32(r.NormFloat64()), f8: r.NormFloat64() * 1e30}
	if r.IntN(2) == 0 {
		v.i8 = -v.i8
	}
	for len(v.text) < n {
		switch left := n - len(v.text); {
		case left >= 4 && r.IntN(4) == 0:
			v.text = append(v.text, "\U0001F600"...)
		case left >= 2 && r.IntN(4) == 0:
			v.text = append(v.text, "é"...)
		default:
			v.text = append(v.text, byte(1+r.IntN(127)))
		}
	}
	for i := range v.bytea {
		v.bytea[i] = byte(r.Uint32())
	}
	return v
}

// What a server once gave stays so: sums are kept in the target, and compared after an upgrade of the server.
func TestHashesAreTheFrozenOnes(t *testing.T) {
	ten := bytes.Repeat([]byte("0123456789"), 10)
	for _, c := range []struct {
		what string
		got  uint64
		want int64
	}{
		{"no byte", Bytes(nil), -6939563903564495251},
		{"a", Bytes([]byte("a")), 3591986179850072241},
		{"12 bytes", Bytes([]byte("abcdefghijkl")), -7556637188122330412},
		{"13 bytes", Bytes([]byte("abcdefghijklm")), 8871624171452417744},
		{"100 bytes", Bytes(ten), 271243376806927533},
		{"0", Int64(0), 4154612158245552303},
		{"-1", Int64(-1), -1888257769727981238},
		{"1", Int64(1), -3670598878359251130},
		{"2^32", Int64(1 << 32), -3670598878359251130},
		{"-2^63", Int64(math.MinInt64), -9109110466470504941},
		{"true", Bool(true), -3670598878359251130},
		{"false", Bool(false), 4154612158245552303},
		{"0.0", Float64(0), 0},
		{"-0.0", Float64(math.Copysign(0, -1)), 0},
		{"NaN", Float64(math.NaN()), 4719788943832604568},
		{"1.5", Float64(1.5), 6158159405676898674},
	} {
		if int64(c.got) != c.want {
			t.Errorf("%s: %d, want %d", c.what, int64(c.got), c.want)
		}
	}
}

func TestTheHashDoesNotDependOnWhereTheBytesLie(t *testing.T) {
	whole := make([]byte, 200)
	for i := range whole {
		whole[i] = byte(i * 7)
	}
	for n := range 64 {
		want := Bytes(bytes.Clone(whole[:n]))
		for offset := range 16 {
			moved := append(make([]byte, offset, 300), whole[:n]...)
			if got := Bytes(moved[offset:]); got != want {
				t.Fatalf("%d bytes at offset %d: %d, want %d", n, offset, got, want)
			}
		}
	}
}

func TestASumIsANumberOf128Bits(t *testing.T) {
	for _, text := range []string{"0", "1", "-1", "18446744073709551616", "-18446744073709551616", "170141183460469231731687303715884105727", "-170141183460469231731687303715884105727"} {
		s, err := ParseSum(text)
		if err != nil || s.String() != text {
			t.Errorf("%s became %s (%v)", text, s, err)
		}
		other := s
		other.Add(-3)
		other.Add(math.MinInt64)
		other.Sub(Sum{hi: ^uint64(0), lo: uint64(1 << 63)})
		if other.Equal(s) {
			t.Errorf("%s - 3 is %s", s, other)
		}
		other.Add(3)
		if !other.Equal(s) {
			t.Errorf("%s after adding and taking away is %s", s, other)
		}
	}
	for _, text := range []string{"", "x", "1.5", "1e3", "170141183460469231731687303715884105728"} {
		if s, err := ParseSum(text); err == nil {
			t.Errorf("%q was read as %s", text, s)
		}
	}
}

func TestASumChangesWhenTwoRowsExchangeAValue(t *testing.T) {
	of := func(rows ...[2]int64) (linear, s Sum) {
		for _, row := range rows {
			var r Record
			r.Int(row[0])
			r.Int(row[1])
			linear.Add(r.Sum())
			s.Add(r.Row())
		}
		return linear, s
	}
	a, before := of([2]int64{1, 10}, [2]int64{2, 20})
	b, after := of([2]int64{1, 20}, [2]int64{2, 10})
	if a.lo != b.lo {
		t.Error("the hash of a record is not linear after all: one hash would do")
	}
	if before.Equal(after) {
		t.Error("the sum is the same")
	}
}

func TestHashingARowAllocatesNothing(t *testing.T) {
	text, sum := bytes.Repeat([]byte("abc"), 50), Sum{}
	if n := testing.AllocsPerRun(100, func() {
		var r Record
		r.Bytes(text)
		r.Int(7)
		r.Null()
		r.Float(1)
		sum.Add(r.Row())
	}); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func BenchmarkBytes(b *testing.B) {
	for _, n := range []int{8, 40, 600} {
		data := bytes.Repeat([]byte("x"), n+1)[1:]
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				Bytes(data)
			}
		})
	}
}
