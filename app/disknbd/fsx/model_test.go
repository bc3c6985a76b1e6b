package fsx

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// op is a request.
type op struct {
	id         int
	cmd, flags uint16
	off, n     int64
	data       []byte // of a write; nil brings zeros
	changes    bool
	// start and end are the times between which it was carried out, of model.now; end is 0 while it isn't answered.
	start, end int64
}

func (o *op) String() string {
	name := map[uint16]string{cmdRead: "read", cmdWrite: "write", cmdFlush: "flush", cmdTrim: "trim", cmdCache: "cache", cmdZero: "zero", cmdStatus: "status"}[o.cmd]
	return fmt.Sprintf("#%d %s flags %d %d+%d [%d, %d]", o.id, name, o.flags, o.off, o.n, o.start, o.end)
}

// part is what the change o brings to [a, b).
func (o *op) part(a, b int64) []byte {
	if o.data == nil {
		return make([]byte, b-a)
	}
	return o.data[a-o.off : b-o.off]
}

// model is what may be on the disk: what was on it when it was last at rest, and the changes since.
type model struct {
	mu      sync.Mutex
	now     int64
	settled []byte // never changed, only replaced
	changes []*op
	before  []string // the last requests of the rounds before, for the report
	// borders are where a request is split, if it crosses one: a cut may have a part of one that was under way.
	borders []int64
}

// tick is the time; it goes on.
func (m *model) tick() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now++
	return m.now
}

func (m *model) begin(o *op) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now++
	o.start = m.now
	if o.changes {
		m.changes = append(m.changes, o)
	}
}

func (m *model) end(o *op) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now++
	o.end = m.now
}

// look is what somebody saw who began at start and was ready at end.
type look struct {
	start, end int64
	off        int64
	got        []byte
	// atomic says that overlapping changes must be seen whole: nothing was changed under the reader's eyes.
	atomic bool
}

var errWrong = errors.New("what is read was never written, or was overwritten before")

// check compares what was seen with what may be seen. latest is when the last change began that certainly was seen.
func (m *model) check(l look) (latest int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stop := l.off + int64(len(l.got))
	var relevant []*op
	edges := []int64{l.off, stop}
	for _, b := range m.borders {
		edges = append(edges, min(max(b, l.off), stop))
	}
	for _, o := range m.changes {
		if o.start < l.end && o.off < stop && l.off < o.off+o.n {
			relevant = append(relevant, o)
			edges = append(edges, max(o.off, l.off), min(o.off+o.n, stop))
		}
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	for i := range len(edges) - 1 {
		a, b := edges[i], edges[i+1]
		seen, err := m.checkRun(l, a, b, relevant)
		if err != nil {
			return 0, err
		}
		latest = max(latest, seen)
	}
	return latest, nil
}

// checkRun checks [a, b), in which no change begins or ends.
func (m *model) checkRun(l look, a, b int64, relevant []*op) (latest int64, err error) {
	got := l.got[a-l.off : b-l.off]
	var touching []*op
	for _, o := range relevant {
		if o.off <= a && b <= o.off+o.n {
			touching = append(touching, o)
		}
	}
	// gone says that a change that came after t had ended before the reader began.
	gone := func(t int64) bool {
		return slices.ContainsFunc(touching, func(o *op) bool { return t < o.start && o.end != 0 && o.end < l.start })
	}
	var may [][]byte
	matches, only := 0, int64(0)
	add := func(content []byte, start int64) {
		if may = append(may, content); bytes.Equal(content, got) {
			matches++
			only = start
		}
	}
	if !gone(0) {
		add(m.settled[a:b], 0)
	}
	for _, o := range touching {
		if o.end == 0 || !gone(o.end) {
			add(o.part(a, b), o.start)
		}
	}
	switch {
	case matches == 1:
		return only, nil
	case matches > 1:
		return 0, nil
	}
	for i := range got {
		fits := func(content []byte) bool { return content[i] == got[i] }
		if l.atomic || !slices.ContainsFunc(may, fits) {
			return 0, m.report(l, a, b, int64(i), touching)
		}
	}
	return 0, nil
}

// report tells what happened at the wrong place.
func (m *model) report(l look, a, b, i int64, touching []*op) error {
	var s strings.Builder
	fmt.Fprintf(&s, "seen between %d and %d, in [%d, %d), from %d on: % x\n", l.start, l.end, a, b, a+i, l.got[a+i-l.off:min(a+i+16, b)-l.off])
	fmt.Fprintf(&s, "  at rest before: % x\n", m.settled[a+i:min(a+i+16, b)])
	for _, o := range touching {
		fmt.Fprintf(&s, "  %v: % x\n", o, o.part(a+i, min(a+i+16, b)))
	}
	fmt.Fprintf(&s, "the last changes before:\n  %s", strings.Join(m.before, "\n  "))
	return fmt.Errorf("%w: %s", errWrong, s.String())
}

// whole checks a look at the whole disk at one moment: it has all that had ended before the beginning of anything that it has.
func (m *model) whole(l look) error {
	l.atomic = true
	for {
		latest, err := m.check(l)
		if err != nil || latest <= l.start {
			return err
		}
		l.start = latest
	}
}

// rest takes what was read from a disk at rest for what is on it. Nothing may be under way. History is the model as it was.
func (m *model) rest(content []byte) (history *model, err error) {
	now := m.tick()
	if err := m.whole(look{start: now, end: now, got: content}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	history = &model{now: m.now, borders: m.borders, settled: m.settled, changes: m.changes, before: m.before}
	for _, o := range m.changes {
		m.before = append(slices.Clone(m.before), o.String())
	}
	m.before = m.before[max(0, len(m.before)-40):]
	m.settled, m.changes = content, nil
	return history, nil
}
