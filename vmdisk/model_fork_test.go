package vmdisk

import (
	"bytes"
	"errors"
	"slices"
)

// renew lets the owner go on under a higher term. It may die in between, under either.
func (m *model) renew() {
	d := m.own()
	m.next = m.term + 1 + uint64(m.r.IntN(300))
	m.note("%s goes on as term %d", d.name, m.next)
	err := d.disk.Renew(m.next)
	for _, o := range m.dev {
		m.disconnect(o)
	}
	if !m.ok("renew", err, d) {
		return
	}
	before := d.disk.Position()
	if _, known := m.history[before]; !known && !d.disk.Info().Unflushed {
		m.history[before] = bytes.Clone(m.now)
	}
	m.ends = append(m.ends, before)
	m.term, m.next = m.next, 0
}

// fork lets another device take the disk over as it has it, and the owner, which wrote on, follow it.
func (m *model) fork() {
	m.t.Helper()
	from, to := m.own(), m.other()
	for range m.r.IntN(4) {
		m.write()
	}
	if !to.disk.ReplicaState().Complete || to.broken || from.broken {
		return
	}
	for _, d := range m.dev {
		m.disconnect(d)
	}
	m.note("%s at %s takes over from %s at %s", to.name, to.disk.Position(), from.name, from.disk.Position())
	for {
		if !from.disk.Info().Fenced && from.disk.Info().Active && !m.ok("fence", from.disk.Fence(), from) {
			continue
		}
		if m.ok("give", from.disk.Give(m.term), from) || from.disk.Info().Given >= m.term {
			break
		}
	}
	m.record()
	pos := to.disk.Position()
	m.owner, m.term = m.indexOf(to), m.term+256
	m.ends = slices.DeleteFunc(m.ends, func(e Position) bool { return e.Term >= pos.Term })
	m.ends = append(m.ends, pos)
	copy(m.now, m.history[pos])
	copy(m.durable, m.now)
	clear(m.maybe)
	for !m.okOpen("activate", to.disk.Activate(m.term), to) {
	}
	m.record()
}

// compare finds out, reading by blocks, what d lacks; the guest may write meanwhile. It says whether that worked.
func (m *model) compare(d *device, st ReplicaState) bool {
	own := m.own()
	m.note("compare %s at %s", d.name, st.Position)
	c, err := own.disk.Compare(d.name, st)
	if errors.Is(err, ErrIncomplete) {
		return true
	}
	if !m.ok("compare", err, own) {
		return false
	}
	defer c.Close()
	m.record() // it begins at a barrier
	mine, theirs := make([]byte, Block), make([]byte, Block)
	for off, n := c.Next(0); n > 0; off, n = c.Next(off + Block) {
		if err := c.ReadAt(mine, off); err != nil {
			return m.ok("read", err, own)
		}
		if err := d.disk.ReadAt(theirs, off); err != nil {
			return m.ok("read", err, d)
		}
		if m.r.IntN(300) == 0 {
			disk := own.disk
			if m.write(); own.disk != disk {
				return false
			}
		}
		if bytes.Equal(mine, theirs) {
			must(m.t, c.Equal(off, Block))
		}
	}
	return m.ok("finish", c.Finish(), own)
}
