package pghash

import (
	"fmt"
	"math/big"
	"math/bits"
)

// Sum adds up the hashes of rows, in any order, as sum() does over a bigint: a signed number of 128 bits, which no number
// of rows overflows. The zero value is no row.
type Sum struct{ hi, lo uint64 }

// Add adds the hash of a row.
func (s *Sum) Add(hash int64) { s.AddSum(Sum{hi: uint64(hash >> 63), lo: uint64(hash)}) }

// AddSum adds the hashes of other rows.
func (s *Sum) AddSum(o Sum) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, o.lo, 0)
	s.hi, _ = bits.Add64(s.hi, o.hi, carry)
}

// Sub takes away the hashes of rows that were added.
func (s *Sum) Sub(o Sum) {
	var borrow uint64
	s.lo, borrow = bits.Sub64(s.lo, o.lo, 0)
	s.hi, _ = bits.Sub64(s.hi, o.hi, borrow)
}

// Equal reports whether both are the same number.
func (s Sum) Equal(o Sum) bool { return s == o }

// String is the number in decimal, as a numeric of PostgreSQL is written.
func (s Sum) String() string {
	n := new(big.Int).SetUint64(s.hi)
	n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(s.lo))
	if s.hi>>63 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), 128))
	}
	return n.String()
}

// ParseSum is the inverse of [Sum.String].
func ParseSum(text string) (Sum, error) {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || n.BitLen() > 127 {
		return Sum{}, fmt.Errorf("%q is not a sum of hashes: a decimal number of at most 127 bits is", text)
	}
	if n.Sign() < 0 {
		n.Add(n, new(big.Int).Lsh(big.NewInt(1), 128))
	}
	low := new(big.Int).And(n, new(big.Int).SetUint64(1<<64-1)).Uint64()
	return Sum{hi: n.Rsh(n, 64).Uint64(), lo: low}, nil
}
