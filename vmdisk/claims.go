package vmdisk

import "sync"

// claims serialises work on overlapping ranges of blocks, first come first served. Each goroutine holds at most one,
// so that there is no deadlock.
type claims struct {
	mu   sync.Mutex
	list []*claim
}

type claim struct {
	c    *claims
	a, b int64
	done chan struct{}
}

// take waits until nothing earlier overlaps the blocks [a, b), and keeps others away until release.
func (c *claims) take(a, b int64) *claim {
	mine := &claim{c: c, a: a, b: b, done: make(chan struct{})}
	var before []*claim
	c.mu.Lock()
	for _, o := range c.list {
		if o.a < b && a < o.b {
			before = append(before, o)
		}
	}
	c.list = append(c.list, mine)
	c.mu.Unlock()
	for _, o := range before {
		<-o.done
	}
	return mine
}

func (m *claim) release() {
	m.c.mu.Lock()
	for i, o := range m.c.list {
		if o == m {
			last := len(m.c.list) - 1
			copy(m.c.list[i:], m.c.list[i+1:])
			m.c.list[last] = nil
			m.c.list = m.c.list[:last]
			break
		}
	}
	m.c.mu.Unlock()
	close(m.done)
}
