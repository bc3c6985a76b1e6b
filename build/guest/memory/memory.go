// Package memory is the memory witness of the test guest: it dirties the pages
// of a region at random and stamps each with a checksum, so that a page that
// came out of a teleport old, torn or swapped is found.
//
// What it guarantees: a page whose stamp is not the last one written is counted
// by Check, as long as the small table of generations is intact. What it does
// not: bytes of a page outside the stamps are not looked at.
//
// Test it with: go test ./build/guest/memory/
package memory

import (
	"encoding/binary"
	"hash/crc32"
)

// PageSize is the unit that is dirtied and checked, in bytes.
const PageSize = 4096

// A stamp is page number, generation, random number and CRC-32C, and stands at
// four places of a page.
const (
	stampSize  = 24
	stampEvery = PageSize / 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Set is a working set of pages. It is not safe for concurrent use.
type Set struct {
	// Noise fills pages that are dirtied from now on with what can't be compressed. What is between the stamps is zero otherwise, or as it was.
	Noise bool

	mem  []byte
	gens []uint32 // by page: the generation last written
	rnd  uint64
	at   int // the next page to check
}

// New stamps every whole page of mem, which it keeps and writes to; seed
// chooses the order of pages.
func New(mem []byte, seed uint64) *Set {
	s := &Set{mem: mem, gens: make([]uint32, len(mem)/PageSize), rnd: seed | 1}
	for p := range s.gens {
		s.stamp(p)
	}
	return s
}

// Pages is the size of the set.
func (s *Set) Pages() int { return len(s.gens) }

// Dirty rewrites n random pages.
func (s *Set) Dirty(n int) {
	if len(s.gens) == 0 {
		return
	}
	for range n {
		s.stamp(int(s.random() % uint64(len(s.gens))))
	}
}

// Check looks at the next n pages, round and round, and returns the numbers of
// those that aren't as they were written. A page found so is stamped anew, so
// that it is reported once.
func (s *Set) Check(n int) []int {
	var bad []int
	for range min(n, len(s.gens)) {
		p := s.at
		s.at = (s.at + 1) % len(s.gens)
		if !s.intact(p) {
			bad = append(bad, p)
			s.stamp(p)
		}
	}
	return bad
}

func (s *Set) stamp(p int) {
	s.gens[p]++
	if s.Noise {
		page := s.mem[p*PageSize:][:PageSize]
		for off := 0; off < PageSize; off += 8 {
			binary.LittleEndian.PutUint64(page[off:], s.random())
		}
	}
	v := s.random()
	for off := 0; off < PageSize; off += stampEvery {
		b := s.mem[p*PageSize+off:][:stampSize]
		binary.LittleEndian.PutUint32(b[0:], uint32(p))
		binary.LittleEndian.PutUint32(b[4:], s.gens[p])
		binary.LittleEndian.PutUint64(b[8:], v+uint64(off))
		binary.LittleEndian.PutUint32(b[16:], uint32(off))
		binary.LittleEndian.PutUint32(b[20:], crc32.Checksum(b[:20], castagnoli))
	}
}

func (s *Set) intact(p int) bool {
	v := binary.LittleEndian.Uint64(s.mem[p*PageSize+8:])
	for off := 0; off < PageSize; off += stampEvery {
		b := s.mem[p*PageSize+off:][:stampSize]
		if binary.LittleEndian.Uint32(b[0:]) != uint32(p) ||
			binary.LittleEndian.Uint32(b[4:]) != s.gens[p] ||
			binary.LittleEndian.Uint64(b[8:]) != v+uint64(off) ||
			binary.LittleEndian.Uint32(b[16:]) != uint32(off) ||
			binary.LittleEndian.Uint32(b[20:]) != crc32.Checksum(b[:20], castagnoli) {
			return false
		}
	}
	return true
}

func (s *Set) random() uint64 {
	s.rnd ^= s.rnd << 13
	s.rnd ^= s.rnd >> 7
	s.rnd ^= s.rnd << 17
	return s.rnd
}
