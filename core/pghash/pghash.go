// Package pghash computes PostgreSQL's 64-bit hashes, so that a row which is about to be stored has the hash that the server
// will give for it: hash_record_extended(ROW(…), 0), of PostgreSQL 11 and later. It imports nothing of this repository.
//
//	var r pghash.Record
//	r.Int(7)               // a smallint, integer or bigint
//	r.Bytes([]byte("abc")) // a text, varchar or bytea
//	r.Null()
//	r.Sum()                // hash_record_extended(ROW(7, 'abc'::text, NULL::text), 0)
//	sum.Add(r.Row())       // what [RowSQL] gives for these columns
//
// The hash of a record is a linear combination of the hashes of its columns. Added up over a table, it does not change when
// two rows exchange the values of a column. [Record.Row], for which it is the seed of another hash, does.
//
// The server hashes bytes by lookup3 (Bob Jenkins, May 2006, public domain), and reads them as the processor does. What is
// here is what servers on little-endian machines give; [Probe] tells whether a server is one of them.
package pghash

import "math"

// Probe is a query whose one bigint is [Probed] on a server whose hashes are those of this package.
const Probe = `SELECT hash_record_extended(ROW('The quick brown fox jumps over the lazy dog'::text, NULL::text, -7::bigint, true, 0.5::float8), 0)`

// Probed is what [Probe] gives.
func Probed() int64 {
	var r Record
	r.Bytes([]byte("The quick brown fox jumps over the lazy dog"))
	r.Null()
	r.Int(-7)
	r.Bool(true)
	r.Float(0.5)
	return r.Sum()
}

// Record adds up the hashes of a row's columns, in their order. The zero value is a row without columns.
type Record struct{ h uint64 }

// Reset begins another row.
func (r *Record) Reset() { r.h = 0 }

// Sum is the hash of the row so far, as the server gives it: a signed number.
func (r *Record) Sum() int64 { return int64(r.h) }

// Row is the hash of the row so far by which rows are added up: what the expression [RowSQL] gives.
func (r *Record) Row() int64 { return int64(seeded(r.h)) }

// RowSQL is the expression that gives [Record.Row] of the columns, which are expressions separated by commas.
func RowSQL(columns string) string {
	return "hashint4extended(0, hash_record_extended(ROW(" + columns + "), 0))"
}

func (r *Record) add(h uint64) { r.h = r.h<<5 - r.h + h }

// Null adds a column that is NULL, whatever its type.
func (r *Record) Null() { r.add(0) }

// Bool adds a boolean.
func (r *Record) Bool(v bool) { r.add(Bool(v)) }

// Int adds a smallint, integer or bigint, for which equal numbers have equal hashes.
func (r *Record) Int(v int64) { r.add(Int64(v)) }

// Float adds a double precision, or a real, which the server widens first.
func (r *Record) Float(v float64) { r.add(Float64(v)) }

// Bytes adds a text or varchar of a deterministic collation, in UTF-8, or a bytea.
func (r *Record) Bytes(p []byte) { r.add(Bytes(p)) }

// Bool is the hash of a boolean.
func Bool(v bool) uint64 {
	if v {
		return word(1)
	}
	return word(0)
}

// Int64 is the hash of a smallint, integer or bigint.
func Int64(v int64) uint64 {
	// The upper half is mixed in so that it vanishes where it is only the sign of the lower one.
	low, high := uint32(v), uint32(v>>32)
	if v < 0 {
		high = ^high
	}
	return word(low ^ high)
}

// Float64 is the hash of a double precision. Zero has one hash with either sign, and so have all that are not numbers.
func Float64(v float64) uint64 {
	switch {
	case v == 0:
		return 0
	case v != v:
		return two(0x7ff8000000000000)
	}
	return two(math.Float64bits(v))
}
