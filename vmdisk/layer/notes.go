package layer

import (
	"encoding/binary"
	"fmt"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/reclog"
)

const (
	noteSum   = 16
	noteBatch = 4096 // blocks in one record
)

// settled says that the presence of all blocks [a, b) is durable. The caller holds mu.
func (l *Layer) settled(a, b int64) bool {
	return l.have.Next(a, false) >= b && l.fresh.Next(a, true) >= b && l.pending.Next(a, true) >= b
}

// widen makes p whole blocks, with what is around it.
func (l *Layer) widen(p []byte, off, a, b int64) ([]byte, int64, error) {
	if off%Block == 0 && len(p)%Block == 0 {
		return p, off, nil
	}
	w := make([]byte, (b-a)*Block)
	if err := l.ReadAt(w[:Block], a*Block); err != nil {
		return nil, 0, err
	}
	if err := l.ReadAt(w[len(w)-Block:], (b-1)*Block); err != nil {
		return nil, 0, err
	}
	copy(w[off-a*Block:], p)
	return w, a * Block, nil
}

// notePut notes that the blocks [a, b) are going to be p, unless they are durable.
func (l *Layer) notePut(p []byte, a, b int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.settled(a, b) {
		return nil
	}
	for ; a < b; a += noteBatch {
		body := binary.LittleEndian.AppendUint64(l.note[:0], uint64(a))
		for x := a; x < min(b, a+noteBatch); x++ {
			body = reclog.Tag(l.sum, body, noteSum, p[:Block])
			p = p[Block:]
		}
		l.note = body
		if err := l.append(recPut, body); err != nil {
			return err
		}
	}
	return nil
}

// noteZero notes that the blocks [a, b) are going to be zeros, unless they are durable.
func (l *Layer) noteZero(a, b int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.settled(a, b) {
		return nil
	}
	body := binary.LittleEndian.AppendUint64(l.note[:0], uint64(a))
	l.note = binary.LittleEndian.AppendUint64(body, uint64(b-a))
	return l.append(recZero, l.note)
}

// notes are what a crash may have left of writes that were not synced.
type notes struct {
	puts  map[int64][][noteSum]byte
	zeros *blockset.Set
}

func (n *notes) put(body []byte, blocks int64) error {
	if len(body) < 8+noteSum || (len(body)-8)%noteSum != 0 {
		return fmt.Errorf("note of %d bytes: %w", len(body), ErrCorrupt)
	}
	a, count := binary.LittleEndian.Uint64(body), uint64(len(body)-8)/noteSum
	if a > uint64(blocks) || count > uint64(blocks)-a {
		return fmt.Errorf("note of block %d: %w", a, ErrCorrupt)
	}
	for i := range count {
		x := int64(a + i)
		n.puts[x] = append(n.puts[x], [noteSum]byte(body[8+i*noteSum:]))
	}
	return nil
}

func (n *notes) zero(body []byte, blocks int64) error {
	if len(body) != 16 {
		return fmt.Errorf("note of %d bytes: %w", len(body), ErrCorrupt)
	}
	a, count := binary.LittleEndian.Uint64(body), binary.LittleEndian.Uint64(body[8:])
	if a > uint64(blocks) || count > uint64(blocks)-a {
		return fmt.Errorf("note of block %d: %w", a, ErrCorrupt)
	}
	n.zeros.Add(int64(a), int64(a+count))
	return nil
}

// settle takes the blocks whose content is what a note says. Only blocks that aren't known to be durable are looked at.
func (l *Layer) settle(n *notes) error {
	p := make([]byte, Block)
	var sum [noteSum]byte
	for x, sums := range n.puts {
		if l.have.Has(x) {
			continue
		}
		if err := l.ReadAt(p, x*Block); err != nil {
			return err
		}
		got := [noteSum]byte(reclog.Tag(l.sum, sum[:0], noteSum, p))
		for _, want := range sums {
			if got == want {
				l.take(x, x+1)
				break
			}
		}
	}
	for x := n.zeros.Next(0, true); x < l.c.Blocks; x = n.zeros.Next(x, true) {
		data, err := l.data.NextData(x * Block)
		if err != nil {
			return err
		}
		y := min(n.zeros.Next(x, false), data/Block)
		if y <= x {
			y = x + 1
			if err := l.ReadAt(p, x*Block); err != nil {
				return err
			}
			if string(p) != string(zeroBlock[:]) {
				x = y
				continue
			}
		}
		l.take(x, y)
		x = y
	}
	return nil
}

var zeroBlock [Block]byte
