package push

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/bits"
)

// set has a bit for each block of a region.
type set [regionBlocks / 64]uint64

func (m *set) has(x int) bool { return m[x/64]&(1<<(x%64)) != 0 }
func (m *set) put(x int)      { m[x/64] |= 1 << (x % 64) }

// fill adds the blocks [a, b).
func (m *set) fill(a, b int) {
	for ; a < b; a++ {
		if a%64 == 0 && b-a >= 64 {
			m[a/64] = ^uint64(0)
			a += 63
			continue
		}
		m.put(a)
	}
}

func (m *set) count() (n int) {
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

func (m *set) empty() bool { return *m == set{} }

// minus is what is in m and not in o.
func (m *set) minus(o *set) (out set) {
	for i, w := range m {
		out[i] = w &^ o[i]
	}
	return out
}

// and is what is in both.
func (m *set) and(o *set) (out set) {
	for i, w := range m {
		out[i] = w & o[i]
	}
	return out
}

// next is the first block from x on that is in the set (or, if !in, isn't), or regionBlocks.
func (m *set) next(x int, in bool) int {
	for x < regionBlocks {
		w := m[x/64]
		if !in {
			w = ^w
		}
		if w >>= x % 64; w != 0 {
			return x + bits.TrailingZeros64(w)
		}
		x = (x/64 + 1) * 64
	}
	return regionBlocks
}

// runs are the set's runs [a, b), in order.
func (m *set) runs() iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for a := m.next(0, true); a < regionBlocks; {
			b := m.next(a, false)
			if !yield(a, b) {
				return
			}
			a = m.next(b, true)
		}
	}
}

// take moves the first n blocks of m, or all there are, out of it.
func (m *set) take(n int) (out set) {
	for x := m.next(0, true); x < regionBlocks && n > 0; x = m.next(x+1, true) {
		out.put(x)
		n--
	}
	*m = m.minus(&out)
	return out
}

// How a set is written.
const (
	formAll    = 0 // all blocks of the region
	formBitmap = 1 // 128 bytes: a bit for each block, the lowest first
	formRuns   = 2 // u8 number of runs, then for each how many blocks lie between it and the one before, and one less than its length, as varints
)

// appendTo appends the set of a region of so many blocks, in the shortest form.
func (m *set) appendTo(b []byte, blocks int) []byte {
	if first, end := m.next(0, true), m.next(0, false); first == 0 && end == blocks && m.count() == blocks {
		return append(b, formAll)
	}
	start, n := len(b), 0
	b = append(b, formRuns, 0)
	last := 0
	for x, y := range m.runs() {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(x-last)), uint64(y-x-1))
		last = y
		if n++; n > 255 || len(b)-start > regionBlocks/8 {
			b = append(b[:start], formBitmap)
			for _, w := range m {
				b = binary.LittleEndian.AppendUint64(b, w)
			}
			return b
		}
	}
	b[start+1] = byte(n)
	return b
}

// byteReader is what frames are read from.
type byteReader interface {
	io.Reader
	io.ByteReader
}

// readSet reads the set of a region of so many blocks.
func readSet(r byteReader, blocks int) (m set, err error) {
	form, err := r.ReadByte()
	if err != nil {
		return m, err
	}
	switch form {
	case formAll:
		m.fill(0, blocks)
		return m, nil
	case formBitmap:
		var b [regionBlocks / 8]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return m, err
		}
		for i := range m {
			m[i] = binary.LittleEndian.Uint64(b[i*8:])
		}
		if m.next(blocks, true) < regionBlocks {
			return m, fmt.Errorf("blocks beyond the region's %d: %w", blocks, ErrProtocol)
		}
		return m, nil
	case formRuns:
		n, err := r.ReadByte()
		if err != nil {
			return m, err
		}
		at := uint64(0)
		for i := range int(n) {
			gap, err := binary.ReadUvarint(r)
			if err != nil {
				return m, err
			}
			more, err := binary.ReadUvarint(r)
			if err != nil {
				return m, err
			}
			if left := uint64(blocks) - at; i > 0 && gap == 0 || gap >= left || more >= left-gap {
				return m, fmt.Errorf("run of %d after %d on a region of %d blocks: %w", more, gap, blocks, ErrProtocol)
			}
			m.fill(int(at+gap), int(at+gap+more+1))
			at += gap + more + 1
		}
		return m, nil
	}
	return m, fmt.Errorf("set of form %d: %w", form, ErrProtocol)
}
