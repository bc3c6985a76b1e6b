package vfs

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
)

// Loss says what a crash takes.
type Loss int

// What a crash may take.
const (
	// LoseNothing is the death of the process: what it wrote is in the kernel and survives, until a power cut: what was not
	// synced still isn't.
	LoseNothing Loss = 0
	// LoseUnsynced is a power cut that takes everything that was not synced.
	LoseUnsynced Loss = 1
	// LoseSome is a power cut that keeps an arbitrary subset of what was not synced: sector by sector, so
	// that writes are torn and reordered. Names change in order, and may stop changing at any point.
	LoseSome Loss = 2
)

const sector = 512

// Crash ends this file system (all its files fail with ErrGone from now on) and returns what is found
// after the restart. Which subset survives follows from the seed.
func (m *Mem) Crash(loss Loss, seed uint64) *Mem {
	out := m.After(loss, seed)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = true
	return out
}

// Unsynced says whether a power cut now could take anything.
func (m *Mem) Unsynced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.dirOps) > 0 {
		return true
	}
	for _, n := range m.stable {
		if len(n.ops) > 0 {
			return true
		}
	}
	return false
}

// After is what would be found after a crash now.
func (m *Mem) After(loss Loss, seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	if loss == LoseNothing {
		return m.copy()
	}
	r := rand.New(rand.NewPCG(seed, 0x7461676c))
	names := maps.Clone(m.stable)
	if loss == LoseSome {
		for _, op := range m.dirOps[:r.IntN(len(m.dirOps)+1)] {
			op.apply(names)
		}
	}
	out := NewMem()
	out.free, out.full, out.made = m.free, m.full, m.made
	// In the order in which they were made: names may be random, and a seed must mean the same again.
	for _, name := range slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(names[a].made, names[b].made), cmp.Compare(a, b))
	}) {
		c := names[name].survive(loss, r)
		n := &node{made: names[name].made, stable: c.copy(), now: c}
		out.names[name], out.stable[name] = n, n
	}
	return out
}

func (n *node) survive(loss Loss, r *rand.Rand) sparse {
	c := n.stable.copy()
	if loss == LoseUnsynced {
		return c
	}
	// Often all or nothing of an operation survives; sometimes a piece does.
	for _, op := range n.ops {
		switch mode := r.IntN(4); {
		case mode == 0:
		case mode == 1 || op.kind == opTruncate || op.kind == opReflink:
			op.apply(&c)
		default:
			op.tear(&c, r)
		}
	}
	return c
}

// tear applies an arbitrary subset of an operation's sectors; of much zeroing, of bigger pieces.
func (op fileOp) tear(c *sparse, r *rand.Rand) {
	grain := int64(sector)
	if op.n > 1<<20 {
		grain = 64 << 10
	}
	for off := op.off; off < op.off+op.n; {
		end := min(op.off+op.n, (off/grain+1)*grain)
		if r.IntN(2) == 0 {
			piece := fileOp{kind: op.kind, off: off, n: end - off}
			if op.kind == opWrite {
				piece.data = op.data[off-op.off : end-op.off]
			}
			piece.apply(c)
		}
		off = end
	}
}
