package compare

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/p2p/replica"
)

type sum [replica.SumSize]byte

// leafMask has a bit for each leaf of a region, the lowest first.
type leafMask uint64

const allLeaves = ^leafMask(0)

func (m leafMask) has(leaf int) bool { return m>>leaf&1 != 0 }
func (m leafMask) count() int        { return bits.OnesCount64(uint64(m)) }

// next is the first run of leaves in the mask from leaf a on, before the leaf end; a is end if there is none.
func (m leafMask) next(a, end int) (from, to int) {
	for a < end && !m.has(a) {
		a++
	}
	for to = a; to < end && m.has(to); {
		to++
	}
	return a, to
}

// bitmap has a bit for each block of a region.
type bitmap [regionBlocks / 8]byte

func (m *bitmap) has(x int) bool { return m[x/8]&(1<<(x%8)) != 0 }
func (m *bitmap) set(x int)      { m[x/8] |= 1 << (x % 8) }

func (m *bitmap) count() (n int) {
	for _, b := range m {
		n += bits.OnesCount8(b)
	}
	return n
}

// summer reads and sums one disk's regions. Not safe for concurrent use.
type summer struct {
	r     Reader
	size  int64
	hash  *blake3.Hasher
	stats *Stats
	buf   []byte

	// Of the region that was read last.
	blocks int
	data   bitmap // which of its blocks aren't all zeros
}

func newSummer(r Reader, size int64, key Key, stats *Stats) (*summer, error) {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return &summer{r: r, size: size, hash: h, stats: stats, buf: make([]byte, min(Region, size))}, nil
}

// zeros is how many of the regions from first on, at most n, are holes.
func (s *summer) zeros(first, n int64) (int64, error) {
	off, end := first*Region, min(s.size, (first+n)*Region)
	for off < end {
		ext, err := s.extents(off, end-off)
		if err != nil {
			return 0, err
		}
		for _, e := range ext {
			if !e.Hole {
				return off/Region - first, nil
			}
			off += e.Len
		}
	}
	return n, nil
}

// extents asks the disk, and makes sure of the answer.
func (s *summer) extents(off, n int64) ([]Extent, error) {
	ext, err := s.r.Extents(off, n)
	if err != nil {
		return nil, err
	}
	left := n
	for _, e := range ext {
		if e.Len <= 0 || e.Len > left {
			return nil, fmt.Errorf("extent of %d bytes, %d left: %w", e.Len, left, errReader)
		}
		left -= e.Len
	}
	if left == n {
		return nil, fmt.Errorf("no extents: %w", errReader)
	}
	return ext, nil
}

// read reads those leaves of a region, without their holes.
func (s *summer) read(region int64, which leafMask) error {
	start := region * Region
	n := min(Region, s.size-start)
	s.blocks, s.data = int(n/Block), bitmap{}
	for a, b := which.next(0, s.leaves()); a < b; a, b = which.next(b, s.leaves()) {
		if err := s.readRange(start, int64(a)*Leaf, min(n, int64(b)*Leaf)); err != nil {
			return err
		}
	}
	return nil
}

// leaves is how many leaves the region has that was read last.
func (s *summer) leaves() int { return (s.blocks + leafBlocks - 1) / leafBlocks }

// readRange reads the bytes [off, n) of the region at start.
func (s *summer) readRange(start, off, n int64) error {
	for off < n {
		ext, err := s.extents(start+off, n-off)
		if err != nil {
			return err
		}
		for _, e := range ext {
			if !e.Hole {
				if err := s.load(start, off, off+e.Len); err != nil {
					return err
				}
			}
			off += e.Len
		}
	}
	return nil
}

// load reads the blocks that have a part of the bytes [from, to) of the region at start.
func (s *summer) load(start, from, to int64) error {
	a, b := int(from/Block), int((to+Block-1)/Block)
	for a < b && s.data.has(a) {
		a++ // a block that begins in another extent
	}
	if a >= b {
		return nil
	}
	p := s.buf[a*Block : b*Block]
	if err := s.r.ReadAt(p, start+int64(a)*Block); err != nil {
		return err
	}
	s.stats.Read.Add(int64(len(p)))
	for x := a; x < b; x++ {
		if !isZero(s.block(x)) {
			s.data.set(x)
		}
	}
	return nil
}

// block is a block of the region; only if it is in data.
func (s *summer) block(x int) []byte { return s.buf[x*Block : (x+1)*Block] }

// zero says that the region is all zeros.
func (s *summer) zero() bool { return s.data == bitmap{} }

// sum is the sum of the region.
func (s *summer) sum() sum { return s.sumOf(0, s.blocks) }

// leaf is the sum of a leaf of the region; only if there is something in it.
func (s *summer) leaf(l int) sum { return s.sumOf(l*leafBlocks, min((l+1)*leafBlocks, s.blocks)) }

// present are the leaves that aren't all zeros, of those that were read.
func (s *summer) present() (m leafMask) {
	for l := range s.leaves() {
		if s.data[2*l]|s.data[2*l+1] != 0 {
			m |= 1 << l
		}
	}
	return m
}

// sumOf is the sum of the blocks [x, end) of the region.
func (s *summer) sumOf(x, end int) sum {
	s.hash.Reset()
	var head [8]byte
	for ; x < end; x++ {
		if !s.data.has(x) {
			continue
		}
		y := x + 1
		for y < end && s.data.has(y) {
			y++
		}
		binary.BigEndian.PutUint32(head[:], uint32(x))
		binary.BigEndian.PutUint32(head[4:], uint32(y-x))
		_, _ = s.hash.Write(head[:])
		_, _ = s.hash.Write(s.buf[x*Block : y*Block])
		x = y
	}
	return s.digest()
}

// tag is the tag of a block of the region.
func (s *summer) tag(x int) sum {
	s.hash.Reset()
	_, _ = s.hash.Write(s.block(x))
	return s.digest()
}

func (s *summer) digest() (out sum) {
	var full [32]byte
	copy(out[:], s.hash.Sum(full[:0]))
	return out
}

var zeroBlock [Block]byte

func isZero(p []byte) bool { return string(p) == string(zeroBlock[:len(p)]) }
