package nbd

import (
	"reflect"
	"sync"
)

// export is one Backend while connections use it, and the order of what they change on it.
type export struct {
	backend Backend
	size    int64

	mu    sync.Mutex
	conns map[*conn]struct{}
	// first and last are the ends of the list of changes that have not ended, in order of arrival.
	first, last *request
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
		if peerGone(other.nc) {
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
		if r.off < w.off+w.length && w.off < r.off+r.length {
			w.dependents = append(w.dependents, r)
			r.waits++
		}
	}
	if r.changes() {
		r.listed = true
		r.prev = e.last
		if e.last != nil {
			e.last.next = r
		} else {
			e.first = r
		}
		e.last = r
	}
	return r.waits == 0
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
	free := r.dependents[:0]
	for _, d := range r.dependents {
		if d.waits--; d.waits == 0 {
			free = append(free, d)
		}
	}
	e.mu.Unlock()
	for i, d := range free {
		free[i] = nil
		d.conn.workers.submit(d)
	}
	r.dependents = nil
}
