package vmdisk

import (
	"encoding/binary"
	"fmt"
)

// The forms in which a chunk of a bitmap is written; FORMAT.md.
const (
	formFull  = 1
	formWords = 2
	formRuns  = 3
)

// appendTo appends the encoded set to b.
func (m *bitmap) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	for i, c := range m.chunks {
		if c == nil {
			continue
		}
		b = le.AppendUint32(b, uint32(i))
		if c == fullChunk {
			b = append(b, formFull, 0, 0)
			continue
		}
		head := len(b)
		b = append(b, formRuns, 0, 0)
		runs, base, end := 0, int64(i)*chunkBits, int64(i)*chunkBits+m.room(int64(i))
		for x := m.next(base, true); x < end && runs < chunkWords*2; runs++ {
			y := min(end, m.next(x, false))
			b = le.AppendUint16(b, uint16(x-base))
			b = le.AppendUint16(b, uint16(y-x-1))
			x = m.next(y, true)
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
	return b
}

// decodeBitmap reads what appendTo wrote: all of b.
func decodeBitmap(b []byte, blocks int64) (*bitmap, error) {
	le := binary.LittleEndian
	m := newBitmap(blocks)
	for last := int64(-1); len(b) > 0; {
		if len(b) < 7 {
			return nil, fmt.Errorf("block set ends early: %w", ErrMalformed)
		}
		i, form, runs := int64(le.Uint32(b)), b[4], int(le.Uint16(b[5:]))
		b = b[7:]
		if i <= last || i >= int64(len(m.chunks)) {
			return nil, fmt.Errorf("block set has chunk %d after %d: %w", i, last, ErrMalformed)
		}
		last = i
		base := i * chunkBits
		switch {
		case form == formFull:
			m.set(base, base+m.room(i))
		case form == formRuns && len(b) >= 4*runs:
			for ; runs > 0; runs-- {
				x, n := int64(le.Uint16(b)), int64(le.Uint16(b[2:]))+1
				if x+n > m.room(i) {
					return nil, fmt.Errorf("block set has a run of %d at %d: %w", n, x, ErrMalformed)
				}
				m.set(base+x, base+x+n)
				b = b[4:]
			}
		case form == formWords && len(b) >= 8*chunkWords:
			for w := range int64(chunkWords) {
				v := le.Uint64(b[8*w:])
				for x := base + 64*w; v != 0; x, v = x+1, v>>1 {
					if v&1 != 0 && x < blocks {
						m.set(x, x+1)
					}
				}
			}
			b = b[8*chunkWords:]
		default:
			return nil, fmt.Errorf("block set has a chunk of form %d: %w", form, ErrMalformed)
		}
	}
	return m, nil
}
