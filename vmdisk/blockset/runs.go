package blockset

import "iter"

// Runs are the runs of blocks [a, b) in the set, in order; they don't touch. The set must not change meanwhile.
func (m *Set) Runs() iter.Seq2[int64, int64] {
	return func(yield func(int64, int64) bool) {
		var scratch words
		var a, b int64 // the run that may go on
		for i, c := range m.from(0) {
			base, room := i*ChunkBlocks, m.room(i)
			w := c.look(&scratch, room)
			for x := w.next(0, room, true); x < room; {
				y := w.next(x, room, false)
				switch {
				case b == base+x && b > a:
					b = base + y
				case b > a && !yield(a, b):
					return
				default:
					a, b = base+x, base+y
				}
				x = w.next(y, room, true)
			}
		}
		if b > a {
			yield(a, b)
		}
	}
}
