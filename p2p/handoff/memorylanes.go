package handoff

import "tagalong.org/tagalong/p2p/flow"

// smallest is from how many bytes on a piece is worth a lane, when none is at work.
const smallest = 16 << 10

// parcel is a piece of the giver's content on its way through a lane. What it holds is its lane's while that packs it, and otherwise guarded by mu.
type parcel struct {
	plan    flow.Plan
	content []byte // a copy
	frame   []byte
	effort  flow.Effort // not learned of yet
	begun   bool        // a lane has it
	done    bool        // frame is whole
}

// lanes are several cores that pack a giver's content at once, each a piece of its own; the frames leave in the order in which the content came. There are none
// until they are planned; until then, and with a plan for one, Write packs by itself. They hold two pieces each at most, and nothing back: a frame goes on as soon
// as it and those before it are whole.
type lanes struct {
	started int
	wide    int       // how many may pack at present
	packing int       // how many do
	order   []*parcel // in the order of the content
	free    []*parcel
}

// unbegun is the first that no lane has.
func (l *lanes) unbegun() *parcel {
	for _, p := range l.order {
		if !p.begun {
			return p
		}
	}
	return nil
}

// waiting is how many aren't packed.
func (l *lanes) waiting() (n int) {
	for _, p := range l.order {
		if !p.done {
			n++
		}
	}
	return n
}

// spread gives a piece to the lanes. It waits while they have enough to do.
func (m *Memory) spread(plan flow.Plan, piece []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.lanes
	l.wide = plan.Lanes
	for m.err == nil && (len(l.order) >= 2*plan.Lanes || !plan.Raw() && l.waiting() > plan.Lanes) {
		m.changed.Wait()
	}
	if m.err != nil {
		return m.err
	}
	for l.started < plan.Lanes {
		l.started++
		m.ended.Go(m.lane)
	}
	p := new(parcel)
	if last := len(l.free) - 1; last >= 0 {
		p, l.free = l.free[last], l.free[:last]
	}
	*p = parcel{plan: plan, content: append(p.content[:0], piece...), frame: p.frame[:0]}
	if plan.Raw() {
		p.frame = appendMemData(p.frame, flow.Raw, len(piece), piece)
		p.begun, p.done = true, true
	}
	l.order = append(l.order, p)
	m.passed.Add(int64(len(piece)))
	m.changed.Broadcast()
	m.toPack.Broadcast()
	return nil
}

// lane packs one piece after the other until there will be no more, or the stream fails.
func (m *Memory) lane() {
	y := m.pack.Lane()
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		p := m.lanes.unbegun()
		switch {
		case m.err != nil || p == nil && m.closing:
			return
		case p == nil || m.lanes.packing >= m.lanes.wide:
			m.toPack.Wait()
			continue
		}
		p.begun = true
		m.lanes.packing++
		m.mu.Unlock()
		codec, body, effort, err := y.Pack(p.plan, p.content)
		if err == nil {
			p.frame = appendMemData(p.frame, codec, len(p.content), body)
		}
		m.mu.Lock()
		m.lanes.packing--
		if err != nil {
			m.failLocked(err)
			return
		}
		p.effort, p.done = effort, true
		m.changed.Broadcast()
		m.toPack.Broadcast()
	}
}

// gatherLocked hands over to be sent what the lanes have packed, in order, while little is.
func (m *Memory) gatherLocked() {
	l, room, n := &m.lanes, m.roomLocked(), 0
	for n < len(l.order) && l.order[n].done && len(m.pending) < room {
		p := l.order[n]
		m.pending = append(m.pending, p.frame...)
		m.packedLocked(len(p.content), len(p.frame))
		l.free = append(l.free, p)
		n++
	}
	if n > 0 {
		l.order = append(l.order[:0], l.order[n:]...)
		m.changed.Broadcast()
	}
}
