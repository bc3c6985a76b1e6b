package blockset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrMalformed says that bytes are no encoded set of that disk.
var ErrMalformed = errors.New("blockset: malformed")

// MaxEncoded is the most bytes that a set of a disk of that many blocks takes when it is encoded.
func MaxEncoded(blocks int64) int64 {
	return (blocks + ChunkBlocks - 1) / ChunkBlocks * (7 + 8*chunkWords)
}

// The forms in which a chunk of a set is written; FORMAT.md.
const (
	formFull  = 1
	formWords = 2
	formRuns  = 3
)

// AppendTo appends the encoded set to b; vmdisk/FORMAT.md has the encoding.
func (m *Set) AppendTo(b []byte) []byte {
	var most int64 // that it can take: all of it at once, as this may be many MiB
	for i, c := range m.from(0) {
		n := c.count(m.room(i))
		most += 7 + min(8*chunkWords, 4*min(n, m.room(i)-n+1))
	}
	b, _ = m.AppendPart(slices.Grow(b, int(most)), 0, int(MaxEncoded(m.blocks)))
	return b
}

// AppendPart is AppendTo from chunk 'from' on, until at least limit bytes were appended; next is the chunk to go on with, -1 if
// there is none. A part is an encoded set too.
func (m *Set) AppendPart(b []byte, from, limit int) (part []byte, next int) {
	le := binary.LittleEndian
	start := len(b)
	var scratch words
	for i, c := range m.from(int64(from)) {
		if len(b)-start >= limit {
			return b, int(i)
		}
		b = le.AppendUint32(b, uint32(i))
		if c == fullChunk {
			b = append(b, formFull, 0, 0)
			continue
		}
		head := len(b)
		b = append(b, formRuns, 0, 0)
		runs, room := 0, m.room(i)
		w := c.look(&scratch, room)
		for x := w.next(0, room, true); x < room && runs < chunkWords*2; runs++ {
			y := w.next(x, room, false)
			b = le.AppendUint16(b, uint16(x))
			b = le.AppendUint16(b, uint16(y-x-1))
			x = w.next(y, room, true)
		}
		if runs < chunkWords*2 {
			le.PutUint16(b[head+1:], uint16(runs))
			continue
		}
		b = append(b[:head], formWords, 0, 0)
		for _, v := range w {
			b = le.AppendUint64(b, v)
		}
	}
	return b, -1
}

// Decode reads what AppendTo wrote: all of b. Its errors are ErrMalformed.
func Decode(b []byte, blocks int64) (*Set, error) {
	m := New(blocks)
	if err := m.AddEncoded(b); err != nil {
		return nil, err
	}
	return m, nil
}

// AddEncoded adds what AppendTo or AppendPart wrote: all of b. After an error (ErrMalformed) part of it may have been added.
func (m *Set) AddEncoded(b []byte) error {
	le := binary.LittleEndian
	var w words
	for last := int64(-1); len(b) > 0; {
		if len(b) < 7 {
			return fmt.Errorf("block set ends early: %w", ErrMalformed)
		}
		i, form, runs := int64(le.Uint32(b)), b[4], int(le.Uint16(b[5:]))
		b = b[7:]
		if i <= last || i >= m.chunks() {
			return fmt.Errorf("block set has chunk %d after %d: %w", i, last, ErrMalformed)
		}
		last = i
		base := i * ChunkBlocks
		switch {
		case form == formFull:
			m.Add(base, base+ChunkBlocks)
		case form == formRuns && len(b) >= 4*runs:
			w = words{}
			for ; runs > 0; runs-- {
				x, n := int64(le.Uint16(b)), int64(le.Uint16(b[2:]))+1
				if x+n > m.room(i) {
					return fmt.Errorf("block set has a run of %d at %d: %w", n, x, ErrMalformed)
				}
				w.fill(x, x+n)
				b = b[4:]
			}
			m.or(i, &w)
		case form == formWords && len(b) >= 8*chunkWords:
			for x := range w {
				w[x] = le.Uint64(b[8*x:])
			}
			w.wipe(m.room(i), ChunkBlocks)
			m.or(i, &w)
			b = b[8*chunkWords:]
		default:
			return fmt.Errorf("block set has a chunk of form %d: %w", form, ErrMalformed)
		}
	}
	return nil
}
