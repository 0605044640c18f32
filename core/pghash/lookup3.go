package pghash

import (
	"encoding/binary"
	"math/bits"
)

// start is what the three words of the state are set to: the golden ratio that lookup3 begins with, and PostgreSQL's own
// number, to which the length in bytes is added.
const start = 0x9e3779b9 + 3923095

// Bytes is the hash of a text, varchar or bytea.
func Bytes(p []byte) uint64 {
	a := uint32(start) + uint32(len(p))
	b, c := a, a
	for len(p) >= 12 {
		a += binary.LittleEndian.Uint32(p)
		b += binary.LittleEndian.Uint32(p[4:])
		c += binary.LittleEndian.Uint32(p[8:])

		a, b, c = mix(a, b, c)
		p = p[12:]
	}
	// The lowest byte of c is left to the length, in PostgreSQL as in the older hash that lookup3 replaced there.
	switch {
	case len(p) > 8:
		a += binary.LittleEndian.Uint32(p)
		b += binary.LittleEndian.Uint32(p[4:])
		c += tail(p[8:]) << 8
	case len(p) > 4:
		a += binary.LittleEndian.Uint32(p)
		b += tail(p[4:])
	default:
		a += tail(p)
	}
	return last(a, b, c)
}

// tail is up to four bytes as a number.
func tail(p []byte) (n uint32) {
	for i, c := range p {
		n |= uint32(c) << (8 * i)
	}
	return n
}

// word is the hash of four bytes that are a number.
func word(n uint32) uint64 {
	const s = uint32(start + 4&(1<<32-1))
	return last(s+n, s, s)
}

// seeded is the hash of the number 0 with a seed.
func seeded(seed uint64) uint64 {
	const s = uint32(start + 4&(1<<32-1))
	if seed == 0 {
		return last(s, s, s)
	}
	return last(mix(s+uint32(seed>>32), s+uint32(seed), s))
}

// two is the hash of eight bytes.
func two(n uint64) uint64 {
	const s = uint32(start + 8&(1<<32-1))
	return last(s+uint32(n), s+uint32(n>>32), s)
}

// mix mixes the state where more is to come.
func mix(a, b, c uint32) (uint32, uint32, uint32) {
	a = (a - c) ^ bits.RotateLeft32(c, 4)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 6)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 8)
	b += a
	a = (a - c) ^ bits.RotateLeft32(c, 16)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 19)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

// last mixes the state for the last time, and gives two of its words.
func last(a, b, c uint32) uint64 {
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)
	return uint64(b)<<32 | uint64(c)
}
