package vmdisk

import "sync"

// claims serialises work on overlapping ranges of blocks, first come first served. Each goroutine holds at most one,
// so that there is no deadlock. Most claims are of a few blocks: they are kept by the stripe of the disk that they lie in, so
// that a claim is compared with few others however many there are. Released claims are used again.
type claims struct {
	mu     sync.Mutex
	narrow [claimStripes][]*claim // within one stripe
	wide   []*claim
	free   []*claim
}

const (
	stripeBlocks = (1 << 20) / Block
	claimStripes = 64
)

type claim struct {
	c     *claims
	a, b  int64
	at    int           // where it is in its list
	waits int           // earlier claims that overlap
	ready chan struct{} // woken when waits becomes 0 again
	after []*claim      // later claims that wait for this one
}

// list is where m is kept.
func (c *claims) list(m *claim) *[]*claim {
	if s := m.a / stripeBlocks; s == (m.b-1)/stripeBlocks {
		return &c.narrow[s%claimStripes]
	}
	return &c.wide
}

// take waits until nothing earlier overlaps the blocks [a, b), and keeps others away until release.
func (c *claims) take(a, b int64) *claim {
	c.mu.Lock()
	var m *claim
	if last := len(c.free) - 1; last >= 0 {
		m, c.free = c.free[last], c.free[:last]
	} else {
		m = &claim{c: c, ready: make(chan struct{}, 1)}
	}
	m.a, m.b = a, b
	m.follow(c.wide)
	first, last := a/stripeBlocks, (b-1)/stripeBlocks
	for s := first; s <= last && s < first+claimStripes; s++ {
		m.follow(c.narrow[s%claimStripes])
	}
	l := c.list(m)
	m.at = len(*l)
	*l = append(*l, m)
	wait := m.waits > 0
	c.mu.Unlock()
	if wait {
		<-m.ready
	}
	return m
}

// follow has m wait for those of the list that it overlaps. The caller holds mu.
func (m *claim) follow(list []*claim) {
	for _, o := range list {
		if o.a < m.b && m.a < o.b {
			o.after = append(o.after, m)
			m.waits++
		}
	}
}

// release ends the claim; m isn't the caller's any more.
func (m *claim) release() {
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.list(m)
	end := len(*l) - 1
	last := (*l)[end]
	(*l)[m.at], last.at = last, m.at
	(*l)[end] = nil
	*l = (*l)[:end]
	for i, o := range m.after {
		m.after[i] = nil
		if o.waits--; o.waits == 0 {
			o.ready <- struct{}{} // it has room: each claim waits once
		}
	}
	m.after = m.after[:0]
	c.free = append(c.free, m)
}
