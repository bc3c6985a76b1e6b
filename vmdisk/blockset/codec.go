package blockset

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	b, _ = m.AppendPart(b, 0, int(MaxEncoded(m.blocks)))
	return b
}

// AppendPart is AppendTo from chunk 'from' on, until at least limit bytes were appended; next is the chunk to go on with, -1 if
// there is none. A part is an encoded set too.
func (m *Set) AppendPart(b []byte, from, limit int) (part []byte, next int) {
	le := binary.LittleEndian
	start := len(b)
	for i := from; i < len(m.chunks); i++ {
		c := m.chunks[i]
		if c == nil {
			continue
		}
		if len(b)-start >= limit {
			return b, i
		}
		b = le.AppendUint32(b, uint32(i))
		if c == fullChunk {
			b = append(b, formFull, 0, 0)
			continue
		}
		head := len(b)
		b = append(b, formRuns, 0, 0)
		runs, base, end := 0, int64(i)*ChunkBlocks, int64(i)*ChunkBlocks+m.room(int64(i))
		for x := m.Next(base, true); x < end && runs < chunkWords*2; runs++ {
			y := min(end, m.Next(x, false))
			b = le.AppendUint16(b, uint16(x-base))
			b = le.AppendUint16(b, uint16(y-x-1))
			x = m.Next(y, true)
		}
		if runs < chunkWords*2 {
			le.PutUint16(b[head+1:], uint16(runs))
			continue
		}
		b = append(b[:head], formWords, 0, 0)
		for _, w := range c.words {
			b = le.AppendUint64(b, w)
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
	for last := int64(-1); len(b) > 0; {
		if len(b) < 7 {
			return fmt.Errorf("block set ends early: %w", ErrMalformed)
		}
		i, form, runs := int64(le.Uint32(b)), b[4], int(le.Uint16(b[5:]))
		b = b[7:]
		if i <= last || i >= int64(len(m.chunks)) {
			return fmt.Errorf("block set has chunk %d after %d: %w", i, last, ErrMalformed)
		}
		last = i
		base := i * ChunkBlocks
		switch {
		case form == formFull:
			m.Add(base, base+m.room(i))
		case form == formRuns && len(b) >= 4*runs:
			for ; runs > 0; runs-- {
				x, n := int64(le.Uint16(b)), int64(le.Uint16(b[2:]))+1
				if x+n > m.room(i) {
					return fmt.Errorf("block set has a run of %d at %d: %w", n, x, ErrMalformed)
				}
				m.Add(base+x, base+x+n)
				b = b[4:]
			}
		case form == formWords && len(b) >= 8*chunkWords:
			for w := range int64(chunkWords) {
				v := le.Uint64(b[8*w:])
				for x := base + 64*w; v != 0; x, v = x+1, v>>1 {
					if v&1 != 0 && x < m.blocks {
						m.Add(x, x+1)
					}
				}
			}
			b = b[8*chunkWords:]
		default:
			return fmt.Errorf("block set has a chunk of form %d: %w", form, ErrMalformed)
		}
	}
	return nil
}
