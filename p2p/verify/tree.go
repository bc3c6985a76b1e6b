package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// tree has the sums of one span.
type tree struct {
	root    Sum
	regions []Sum
	leaves  []Sum
}

// summer reads and sums one disk. Not safe for concurrent use.
type summer struct {
	r    Reader
	size int64
	hash *blake3.Hasher
	buf  []byte
	tree tree
	zero map[int64]Sum // of that many zeros
	// bare is the region in which a leaf was found to have no record last, or -1: its holes aren't asked for any.
	bare int64
	// rec and seen, if not nil, say what is recorded, and are told what the records say of each leaf.
	rec  Recorder
	seen func(leaf int64, r Record)
	// each, if not nil, is called after each region.
	each func() error
}

func newSummer(r Reader, size int64, key Key) (*summer, error) {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return &summer{r: r, size: size, hash: h, buf: make([]byte, min(LeafSize, size)), zero: map[int64]Sum{}, bare: -1}, nil
}

// sum is the keyed sum of p.
func (s *summer) sum(p []byte) (out Sum) {
	var full [32]byte
	s.hash.Reset()
	_, _ = s.hash.Write(p) // never fails
	copy(out[:], s.hash.Sum(full[:0]))
	return out
}

// zeros is the sum of n zeros.
func (s *summer) zeros(n int64) Sum {
	z, ok := s.zero[n]
	if !ok {
		z = s.sum(make([]byte, n))
		s.zero[n] = z
	}
	return z
}

// above is the sum of sums.
func (s *summer) above(sums []Sum) Sum {
	var b [fan * 16]byte
	for i, x := range sums {
		copy(b[16*i:], x[:])
	}
	return s.sum(b[:16*len(sums)])
}

// leaf is where a leaf is.
func (s *summer) leaf(l int64) (off, n int64) {
	off = l * LeafSize
	return off, min(LeafSize, s.size-off)
}

// span reads a span. What it returns is valid until the next one.
func (s *summer) span(ctx context.Context, i int64) (*tree, error) {
	t := &s.tree
	t.regions, t.leaves, s.bare = t.regions[:0], t.leaves[:0], -1
	start, end := i*SpanSize, min(s.size, (i+1)*SpanSize)
	hole := start // up to where it is known to be one
	for off := start; off < end; {
		region, stop := len(t.leaves), min(end, off+RegionSize)
		for ; off < stop; off += LeafSize {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n := min(LeafSize, stop-off)
			if hole < off+n {
				var err error
				if hole, err = s.holeEnd(off, off+n); err == nil && hole == off+n {
					hole, err = s.holeEnd(off, stop)
				}
				if err != nil {
					return nil, err
				}
			}
			x, err := s.one(off/LeafSize, hole >= off+n)
			if err != nil {
				return nil, err
			}
			t.leaves = append(t.leaves, x)
		}
		t.regions = append(t.regions, s.above(t.leaves[region:]))
		if s.each != nil {
			if err := s.each(); err != nil {
				return nil, err
			}
		}
	}
	t.root = s.above(t.regions)
	return t, nil
}

// one is the sum of a leaf as a part of its span.
func (s *summer) one(l int64, hole bool) (Sum, error) {
	if hole && (s.rec == nil || s.bare == l/fan) {
		_, n := s.leaf(l)
		return s.zeros(n), nil
	}
	if s.rec == nil {
		return s.read(l)
	}
	x, r, err := s.state(s.rec, l, hole)
	if err == nil {
		s.seen(l, r)
	}
	return x, err
}

// read is the sum of a leaf; buf has what was read.
func (s *summer) read(l int64) (Sum, error) {
	off, n := s.leaf(l)
	switch err := s.r.ReadAt(s.buf[:n], off); {
	case errors.Is(err, ErrUnreadable):
		return Sum{}, nil
	case err != nil:
		return Sum{}, fmt.Errorf("read: %w", err)
	}
	return s.sum(s.buf[:n]), nil
}

// masked is the sum of a leaf without what the mask leaves out, as state says.
func (s *summer) masked(r Reader, rec Recorder, l int64, without Mask) (x Sum, record Record, err error) {
	own := s.r
	s.r = r
	defer func() { s.r = own }()
	x, record, err = s.state(rec, l, false)
	if err == nil && x != (Sum{}) && without != 0 {
		_, n := s.leaf(l)
		p := s.buf[:n]
		without.apply(p)
		x = s.sum(p)
	}
	return x, record, err
}

// maskedRegion are the sums of a region's leaves without what the masks leave out.
func (s *summer) maskedRegion(ctx context.Context, region int64, masks []Mask) ([]Sum, error) {
	start, end := region*fan, count(min(s.size, (region+1)*RegionSize), LeafSize)
	sums := make([]Sum, 0, end-start)
	for l := start; l < end; l++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		off, n := s.leaf(l)
		m := masks[l-start]
		hole, err := s.holeEnd(off, off+n)
		var x Sum
		switch {
		case err != nil:
			return nil, err
		case m.all(n), hole == off+n:
			x = s.zeros(n)
		default:
			if x, err = s.read(l); err == nil && x != (Sum{}) && m != 0 {
				p := s.buf[:n]
				m.apply(p)
				x = s.sum(p)
			}
		}
		if err != nil {
			return nil, err
		}
		sums = append(sums, x)
	}
	return sums, nil
}

// state is the sum of a leaf, and what the record says of it. What is recorded is asked for before and after: a write between makes it none.
func (s *summer) state(rec Recorder, l int64, hole bool) (x Sum, r Record, err error) {
	off, n := s.leaf(l)
	before, had, err := rec.Recorded(off)
	if err != nil {
		return x, r, fmt.Errorf("ask for the record: %w", err)
	}
	if hole {
		x = s.zeros(n)
	} else if x, err = s.read(l); err != nil {
		return x, r, err
	}
	if !had {
		s.bare = l / fan
	} else if after, ok, err := rec.Recorded(off); err != nil {
		return x, r, fmt.Errorf("ask for the record: %w", err)
	} else if !ok || after != before {
		had = false
	}
	switch {
	case x == Sum{}:
		return x, Unreadable, nil
	case !had:
		return x, NoRecord, nil
	case hole:
		clear(s.buf[:n])
	}
	if sum := blake3.Sum256(s.buf[:n]); [16]byte(sum[:16]) != before {
		return x, NotAsRecorded, nil
	}
	return x, AsRecorded, nil
}

// holeEnd is up to where there is a hole from off on.
func (s *summer) holeEnd(off, end int64) (int64, error) {
	ext, err := s.r.Extents(off, end-off)
	if errors.Is(err, ErrUnreadable) {
		return off, nil // reading says what is wrong
	}
	if err != nil {
		return 0, fmt.Errorf("look for holes: %w", err)
	}
	for _, e := range ext {
		if e.Len <= 0 {
			return 0, errReader
		}
		if !e.Hole {
			break
		}
		off += e.Len
	}
	return off, nil
}

// errReader: the own disk's answer makes no sense.
var errReader = errors.New("verify: bad answer from the disk")
