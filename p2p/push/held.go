package push

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
)

// maxHeld is how many runs the receiver tells of what it holds. With more it closes small gaps: to tell too much costs sums, no content.
const maxHeld = 1 << 16

// run is the blocks [a, b) of a disk.
type run struct{ a, b int64 }

// held is what a receiver holds, as runs in order, none empty, no two touching.
type held []run

// gather takes what a Sink holds of a disk of so many blocks.
func gather(runs iter.Seq2[int64, int64], blocks int64) (held, error) {
	var h held
	gap := int64(1)
	for off, n := range runs {
		r := run{off / Block, (off + n) / Block}
		last := int64(0)
		if len(h) > 0 {
			last = h[len(h)-1].b
		}
		if off < 0 || n <= 0 || off%Block != 0 || n%Block != 0 || r.a < last || r.b > blocks {
			return nil, fmt.Errorf("%d held bytes at %d: %w", n, off, ErrSource)
		}
		if len(h) > 0 && r.a-last < gap {
			h[len(h)-1].b = r.b
			continue
		}
		if h = append(h, r); len(h) == 2*maxHeld {
			for len(h) > maxHeld {
				gap *= 2
				h = h.close(gap)
			}
		}
	}
	for len(h) > maxHeld {
		gap *= 2
		h = h.close(gap)
	}
	return h, nil
}

// close joins runs with gaps of less than gap blocks between them.
func (h held) close(gap int64) held {
	out := h[:1]
	for _, r := range h[1:] {
		if last := &out[len(out)-1]; r.a-last.b < gap {
			last.b = r.b
		} else {
			out = append(out, r)
		}
	}
	return out
}

// bytes are the runs as offsets and lengths in bytes.
func (h held) bytes() iter.Seq2[int64, int64] {
	return func(yield func(int64, int64) bool) {
		for _, r := range h {
			if !yield(r.a*Block, (r.b-r.a)*Block) {
				return
			}
		}
	}
}

func (h held) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(h)))
	last := int64(0)
	for _, r := range h {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.a-last)), uint64(r.b-r.a))
		last = r.b
	}
	return b
}

// readHeld reads what a receiver of a disk of so many blocks holds. Memory grows with what arrives only.
func readHeld(r byteReader, blocks int64) (held, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > maxHeld {
		return nil, fmt.Errorf("%d held runs: %w", n, ErrProtocol)
	}
	var h held
	at := uint64(0)
	for i := range n {
		gap, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, err
		}
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, err
		}
		if left := uint64(blocks) - at; i > 0 && gap == 0 || size == 0 || gap >= left || size > left-gap {
			return nil, fmt.Errorf("held run of %d blocks after %d: %w", size, gap, ErrProtocol)
		}
		at += gap
		h = append(h, run{int64(at), int64(at + size)})
		at += size
	}
	return h, nil
}

// next is the first run from the block x on, cut there; it is empty if there is none.
func (h held) next(x int64) run {
	i, _ := slices.BinarySearchFunc(h, x, func(r run, x int64) int {
		if r.b <= x {
			return -1
		}
		return 1
	})
	if i == len(h) {
		return run{}
	}
	return run{max(x, h[i].a), h[i].b}
}

// in is what is held of the region r.
func (h held) in(r int64) (m set) {
	from, end := r*regionBlocks, (r+1)*regionBlocks
	for x := from; ; {
		n := h.next(x)
		if n.a >= end || n.a == n.b {
			return m
		}
		m.fill(int(n.a-from), int(min(n.b, end)-from))
		x = min(n.b, end)
	}
}
