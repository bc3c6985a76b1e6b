package nbd

import (
	"reflect"
	"sync"
	"sync/atomic"
)

// export is one Backend while connections use it, and the order of what they change on it.
type export struct {
	backend Backend
	size    int64

	mu    sync.Mutex
	conns map[*conn]struct{}
	// first and last are the ends of the list of changes that have not ended, in order of arrival.
	first, last *request
	// changes is the length of the list. It is changed under mu.
	changes atomic.Int64
}

// registry holds the exports in use, one for each distinct Backend.
type registry struct {
	mu      sync.Mutex
	exports map[Backend]*export
}

// join adds c to the users of b. It first ends the connections whose client is gone: what such a client
// sent and we have not read yet must not be carried out after what the next client sends.
func (g *registry) join(c *conn, b Backend) (*export, error) {
	if b == nil || !reflect.ValueOf(b).Comparable() {
		return nil, errBackend
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.exports[b]
	if e == nil {
		e = &export{backend: b, size: max(b.Size(), 0), conns: make(map[*conn]struct{})}
		if g.exports == nil {
			g.exports = make(map[Backend]*export)
		}
		g.exports[b] = e
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for other := range e.conns {
		if other.gone() {
			other.abort(errReplaced)
		}
	}
	e.conns[c] = struct{}{}
	return e, nil
}

// leave takes c, all of whose requests have ended, from the users of e.
func (g *registry) leave(c *conn, e *export) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
	if len(e.conns) == 0 {
		delete(g.exports, e.backend)
	}
}

// admit puts r into the order of e and reports whether it may start now; if not, it is submitted to its
// connection's workers when the changes that it waits for have ended.
//
// A request that is admitted after its connection ended, or that waits when it does, is dropped by run.
// One that run has already let through was admitted before, so what the next client sends waits for it.
func (e *export) admit(r *request) (ready bool) {
	if !r.ranged() {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := e.first; w != nil; w = w.next {
		if r.overlaps(&w.header) {
			w.dependents = append(w.dependents, r)
			r.waits++
		}
	}
	if r.changes() {
		e.list(r)
	}
	return r.waits == 0
}

// admitAlone is admit for a change that won't wait: if it would have to, nothing is done.
func (e *export) admitAlone(r *request) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.overlapped(&r.header) {
		return false
	}
	e.list(r)
	return true
}

// unchanging reports whether no change to the range is under way: what only reads it may start now.
func (e *export) unchanging(h *header) bool {
	if e.changes.Load() == 0 {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.overlapped(h)
}

// overlapped reports whether a change under way overlaps h. The caller holds mu.
func (e *export) overlapped(h *header) bool {
	for w := e.first; w != nil; w = w.next {
		if h.overlaps(&w.header) {
			return true
		}
	}
	return false
}

// list appends r to the changes under way. The caller holds mu.
func (e *export) list(r *request) {
	r.listed = true
	r.prev = e.last
	if e.last != nil {
		e.last.next = r
	} else {
		e.first = r
	}
	e.last = r
	e.changes.Add(1)
}

// done takes r out of the order and lets those go that waited for nothing else.
func (e *export) done(r *request) {
	if !r.listed {
		return
	}
	e.mu.Lock()
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		e.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		e.last = r.prev
	}
	r.prev, r.next, r.listed = nil, nil, false
	e.changes.Add(-1)
	free := r.dependents[:0]
	for _, d := range r.dependents {
		if d.waits--; d.waits == 0 {
			free = append(free, d)
		}
	}
	e.mu.Unlock()
	for _, d := range free {
		d.conn.workers.submit(d)
	}
	clear(r.dependents)
	r.dependents = r.dependents[:0]
}
