package vmdisk

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
)

func (m *model) write() {
	d := m.own()
	n := int64(1+m.r.IntN(16)) * modelSector
	off := m.r.Int64N(modelSize/modelSector) * modelSector
	if m.r.IntN(2) == 0 {
		n, off = int64(1+m.r.IntN(24))*Block, off/Block*Block
	}
	n = min(n, modelWindow-off%modelWindow)
	at := windows[off/modelWindow] + off%modelWindow
	if n = min(n, d.disk.Size()-at); n <= 0 {
		return
	}
	p := make([]byte, n)
	kind, fua := m.r.IntN(8), m.r.IntN(8) == 0
	m.stamp++
	if kind > 1 {
		for i := int64(0); i < n; i += modelSector {
			for j := i; j < i+modelSector; j += 8 {
				binary.LittleEndian.PutUint64(p[j:], m.stamp)
			}
		}
	}
	m.note("write %d: %d at %d (block %d), kind %d, fua %v", m.stamp, n, off, at/Block, kind, fua)
	var err error
	switch kind {
	case 0:
		err = d.disk.Trim(at, n, fua)
	case 1:
		err = d.disk.Zero(at, n, m.r.IntN(2) == 0, fua)
	default:
		err = d.disk.WriteAt(p, at, fua)
	}
	for i := off / modelSector; i < (off+n)/modelSector; i++ {
		m.maybe[i] = append(m.maybe[i], binary.LittleEndian.Uint64(p[(i*modelSector)-off:]))
	}
	copy(m.now[off:], p)
	if m.ok("write", err, d) && fua {
		m.record()
	}
}

func (m *model) flush() {
	m.note("flush")
	m.ok("flush", m.own().disk.Flush(), m.own())
}

// grow makes a device's disk larger, be it the owner's or not.
func (m *model) grow(d *device) {
	m.t.Helper()
	size := d.disk.Size()
	bytes := (size/GrowUnit + 1 + m.r.Int64N(3)) * GrowUnit
	if bytes > modelMost {
		return
	}
	m.note("%s grows from %d to %d", d.name, size, bytes)
	if d == m.own() {
		defer func() {
			for _, o := range m.dev {
				m.disconnect(o) // the feeds have ended
			}
		}()
	}
	if m.ok("grow", d.disk.Resize(bytes), d) && d.disk.Size() != bytes {
		m.fatal("%s has %d bytes, not %d", d.name, d.disk.Size(), bytes)
	}
}

func (m *model) save() {
	m.note("save")
	m.ok("save", m.own().disk.save(), m.own())
}

// recordHashes records what is quiet, and finds nothing that isn't what it was recorded to be.
func (m *model) recordHashes(d *device) {
	m.t.Helper()
	err := d.disk.Record(context.Background())
	m.note("record hashes of %s: %v", d.name, err)
	if errors.Is(err, ErrIncomplete) || !m.ok("record", err, d) {
		return
	}
	res, err := d.disk.Scrub(context.Background(), ScrubOptions{})
	if m.ok("scrub", err, d) && len(res.Damaged) > 0 && !d.broken {
		m.fatal("%s isn't what was recorded: %+v", d.name, res)
	}
}

// merge merges a layer of a device, if there is one.
func (m *model) merge(d *device) {
	more, err := d.disk.mergeBottom(context.Background())
	m.note("merge of %s: %v", d.name, more)
	m.ok("merge", err, d)
}

// harm loses or damages a file of an unfinished catch-up, now and then.
func (m *model) harm(d *device) {
	l := d.disk.incoming
	if l == nil || m.r.IntN(3) > 0 {
		return
	}
	name := l.Name() + []string{".map", ".data"}[m.r.IntN(2)]
	m.note("%s of %s is lost", name, d.name)
	f, err := d.mem.Open(name)
	if err != nil {
		return // it never got its name, or is gone already
	}
	if m.r.IntN(2) == 0 {
		must(m.t, d.mem.Remove(name))
	} else {
		must(m.t, f.Truncate(100))
	}
	must(m.t, f.Close())
}

func (m *model) connect(d *device) {
	if d.feed != nil || d.applier != nil {
		return
	}
	if !m.ok("reach", d.disk.Reach(m.own().disk.Size()), d) {
		return
	}
	a, err := d.disk.Apply()
	if !m.ok("apply", err, d) {
		return
	}
	a.Within(m.own().disk.Size())
	st := a.State()
	m.note("connect %s at %s, complete %v", d.name, st.Position, st.Complete)
	f, err := m.own().disk.Attach(d.name, st)
	if errors.Is(err, ErrDiverged) {
		// The sets of a hand-off got lost, and the ends with them; the directory has them.
		if err := m.own().disk.LearnEnds(m.ends); !m.ok("learn", err, m.own()) {
			m.ok("close", a.Close(), d)
			return
		}
		f, err = m.own().disk.Attach(d.name, st)
	}
	if errors.Is(err, ErrDiverged) || err == nil && m.r.IntN(3) == 0 {
		if err == nil {
			f.Close()
		}
		if !m.compare(d, st) {
			m.ok("close", a.Close(), d)
			return
		}
		f, err = m.own().disk.Attach(d.name, st)
	}
	if err != nil {
		m.ok("close", a.Close(), d)
		m.ok("attach", err, m.own())
		return
	}
	d.applier, d.feed, d.acks = a, f, nil
}

func (m *model) disconnect(d *device) {
	m.note("disconnect %s", d.name)
	if d.feed != nil {
		d.feed.Close()
	}
	if d.applier != nil {
		m.ok("close applier", d.applier.Close(), d)
	}
	d.feed, d.applier, d.acks = nil, nil, nil
}

// pump moves up to n operations to d. Acknowledgements travel with a delay, or not at all.
func (m *model) pump(d *device, n int) {
	m.t.Helper()
	for ; n > 0 && d.feed != nil; n-- {
		op, err := d.feed.poll()
		m.record()
		if !m.ok("next", err, m.own()) || op == nil {
			break
		}
		m.note("to %s: kind %d, %d at block %d, %s", d.name, op.Kind, op.Len, op.Off/Block, op.Pos)
		ack, err := feedTo(d.applier, op)
		if errors.Is(err, ErrMerging) {
			m.note("%s has too many layers", d.name)
			for more := true; more && !d.broken; {
				more, err = d.disk.mergeBottom(context.Background())
				if !m.ok("merge", err, d) {
					return
				}
			}
			m.disconnect(d)
			return
		}
		if !m.ok("apply", err, d) {
			break
		}
		if ack != (Position{}) {
			m.check(d)
			d.acks = append(d.acks, ack)
		}
		for len(d.acks) > 0 && m.r.IntN(2) == 0 {
			m.note("%s acknowledges %s", d.name, d.acks[0])
			d.feed.Acked(d.acks[0])
			d.acks = d.acks[1:]
		}
	}
}

func (m *model) settleAcks(d *device) {
	for ; len(d.acks) > 0 && d.feed != nil; d.acks = d.acks[1:] {
		d.feed.Acked(d.acks[0])
	}
}

// handoff gives the disk to another device that follows; any device may crash in between.
func (m *model) handoff() {
	m.t.Helper()
	from, to := m.own(), m.other()
	if to.feed == nil {
		return
	}
	m.note("hand-off from %s to %s", from.name, to.name)
	if !m.ok("fence", from.disk.Fence(), from) {
		return
	}
	if err := from.disk.WriteAt(make([]byte, Block), 0, false); !errors.Is(err, ErrFenced) && !from.broken {
		m.fatal("write to a fenced disk: %v", err)
	}
	pos, err := m.drain(from, to)
	if err != nil {
		m.note("hand-off failed: %v", err)
		if m.own().disk == from.disk && from.disk.Info().Fenced {
			m.ok("unfence", from.disk.Unfence(), from)
		}
		return
	}
	m.record()
	blob, err := from.disk.ExportDirty()
	must(m.t, err)
	if st := to.disk.ReplicaState(); st.Position != pos || !st.Complete {
		m.fatal("drained to %s, but the taker is at %s", pos, st.Position)
	}
	if err := from.disk.Give(m.term); err != nil {
		m.ok("give", err, from)
		if from.disk.Info().Given < m.term {
			return
		}
		blob = nil
	}
	m.record()
	if m.r.IntN(3) == 0 {
		m.note("%s dies before the sets are sent", from.name)
		m.crash(from)
		blob, err = from.disk.ExportDirty()
		must(m.t, err)
	}
	for _, d := range m.dev {
		m.disconnect(d)
	}
	if err := from.disk.Activate(m.term); !errors.Is(err, ErrFenced) && !from.broken {
		m.fatal("activated a term that was given away: %v", err)
	}
	old := m.term
	m.ends = append(m.ends, pos)
	m.owner, m.term = m.indexOf(to), m.term+1
	if m.r.IntN(4) == 0 {
		m.note("the sets get lost")
		blob = nil
	}
	for {
		if blob != nil && to.disk.ReplicaState().Complete && !to.disk.Info().Active {
			if err := to.disk.ImportDirty(blob, to.name); !m.okOpen("import", err, to) {
				continue
			}
		}
		if err := to.disk.Activate(m.term); !m.okOpen("activate", err, to) {
			continue
		}
		break
	}
	if err := to.disk.Activate(old); err == nil {
		m.fatal("activated an old term")
	}
	if m.r.IntN(2) == 0 {
		err := to.disk.SetClean(from.name, pos)
		if err == nil || !errors.Is(err, ErrOldPosition) {
			m.ok("set clean", err, to)
		}
	}
}

// okOpen is ok, also if the crash has made the disk active already.
func (m *model) okOpen(what string, err error, d *device) bool {
	m.t.Helper()
	if err == nil || errors.Is(err, ErrActive) && d.disk.Info().Active {
		return true
	}
	return m.ok(what, err, d)
}

func (m *model) indexOf(d *device) int {
	for i := range m.dev {
		if m.dev[i] == d {
			return i
		}
	}
	return -1
}

func (m *model) drain(from, to *device) (Position, error) {
	type result struct {
		pos Position
		err error
	}
	done := make(chan result, 1)
	ctx, cancel := context.WithCancel(context.Background())
	disk := from.disk
	go func() {
		p, err := disk.Drain(ctx, to.name)
		done <- result{p, err}
	}()
	defer cancel()
	for {
		select {
		case r := <-done:
			return r.pos, r.err
		default:
		}
		m.pump(to, 5)
		m.settleAcks(to)
		if to.feed == nil || from.disk != disk {
			cancel()
			r := <-done
			if r.err == nil {
				r.err = ErrDetached
			}
			return r.pos, r.err
		}
		runtime.Gosched()
	}
}
