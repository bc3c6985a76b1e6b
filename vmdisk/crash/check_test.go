package crash

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// loss is what one crash takes.
type loss struct {
	kind vfs.Loss
	seed uint64
}

func (l loss) String() string {
	switch l.kind {
	case vfs.LoseNothing:
		return "the process killed"
	case vfs.LoseUnsynced:
		return "all unsynced lost"
	}
	return fmt.Sprintf("some unsynced lost (%d)", l.seed)
}

// visitor checks crash points, and counts them.
type visitor struct {
	count int
	r     *rand.Rand
	// some is how many arbitrary losses each point gets; second is out of how many crash points one has all
	// crash points of its recovery visited too; thorough one has its replica catch up for real, or its hashes compared. 0 is none.
	some, second, thorough int
}

func (c *visitor) oneOf(n int) bool { return n > 0 && c.r.IntN(n) == 0 }

// visit checks what each loss leaves at p.
func (c *visitor) visit(p point) error {
	losses := []loss{{vfs.LoseNothing, 0}}
	if p.mems[p.who].Unsynced() {
		losses = append(losses, loss{vfs.LoseUnsynced, 0})
		for range c.some {
			losses = append(losses, loss{vfs.LoseSome, c.r.Uint64()})
		}
	}
	for _, l := range losses {
		c.count++
		again := c.oneOf(c.second)
		var err error
		if p.who == 0 {
			err = c.owner(p, l, again)
		} else {
			err = c.replica(p, l, again)
		}
		if err != nil {
			return fmt.Errorf("%s of device %d: %w", l, p.who, err)
		}
	}
	return nil
}

// looker checks an open disk after a crash, and says what it is. power says that the power was cut.
type looker func(d *vmdisk.Store, power bool) (values, vmdisk.Position, error)

// recover opens a disk after the crash l and has look check it. With again, every crash point of that is then visited
// too: from when the disk was open, and if the power was cut from the beginning, look must find the same.
func (c *visitor) recover(mem *vfs.Mem, l loss, again bool, look looker) error {
	var states []*vfs.Mem
	if again {
		mem.Trace(func(s *vfs.Mem) { states = append(states, s) })
	}
	power, opened := l.kind != vfs.LoseNothing, 0
	v, pos, err := c.open(mem, func(d *vmdisk.Store, power bool) (values, vmdisk.Position, error) {
		opened = len(states)
		return look(d, power)
	}, power)
	if err != nil {
		return err
	}
	for i, s := range states {
		c.count++
		l := loss{vfs.Loss(c.r.IntN(3)), c.r.Uint64()}
		v2, pos2, err := c.open(s.After(l.kind, l.seed), look, power || l.kind != vfs.LoseNothing)
		same := power || i+1 >= opened
		switch {
		case err != nil:
		case same && pos2.Compare(pos) < 0:
			err = fmt.Errorf("at %s instead of %s", pos2, pos)
		case same && !maps.Equal(v, v2):
			err = fmt.Errorf("at %s, and before at %s: %s", pos2, pos, differ(v2, v))
		}
		if err != nil {
			return fmt.Errorf("after a second crash, at call %d of recovery, %s: %w", i+1, l, err)
		}
	}
	return nil
}

func (c *visitor) open(mem *vfs.Mem, look looker, power bool) (values, vmdisk.Position, error) {
	d, err := vmdisk.Open("", options(mem))
	if err != nil {
		return nil, vmdisk.Position{}, err
	}
	v, pos, err := look(d, power)
	if names, _ := mem.List(); err == nil && slices.Contains(names, "hashes") && c.oneOf(c.thorough) && d.Info().Complete {
		err = healthy(d)
	}
	mem.Trace(nil)
	return v, pos, errors.Join(err, d.Close())
}

// owner checks the owner after a crash at p.
func (c *visitor) owner(p point, l loss, again bool) error {
	m, mem := p.m, p.mems[0].After(l.kind, l.seed)
	look := func(d *vmdisk.Store, power bool) (v values, pos vmdisk.Position, err error) {
		if v, err = scan(d); err != nil {
			return nil, pos, err
		}
		i := d.Info()
		if i.Err != nil || !i.Complete || i.Active || i.ID != diskID {
			return nil, pos, fmt.Errorf("not a complete, inactive disk: %+v", i)
		}
		if i.Size != m.size && i.Size != m.growing {
			return nil, pos, fmt.Errorf("a disk of %d bytes; it had %d, and was growing to %d", i.Size, m.size, m.growing)
		}
		if err := m.owner(v, power); err != nil {
			return nil, pos, err
		}
		if err := m.known(i.Position, v); err != nil {
			return nil, pos, err
		}
		next, err := m.fence(d, v)
		if err != nil {
			return nil, pos, err
		}
		if err := d.Activate(next); err != nil {
			return nil, pos, err
		}
		if err := m.goOn(d, v); err != nil {
			return nil, pos, err
		}
		mem.Trace(nil) // what follows is no recovery
		return v, i.Position, m.writeOn(d)
	}
	return c.recover(mem, l, again, look)
}

// fence checks that what was given away can't be written under, and says what term can.
func (m *told) fence(d *vmdisk.Store, v values) (next uint64, err error) {
	if err := d.WriteAt(zeroBlock[:], 0, false); !errors.Is(err, vmdisk.ErrInactive) {
		return 0, fmt.Errorf("write before activation: %v", err)
	}
	given := d.Info().Given
	if given != m.given && !(m.giving && given == m.term) {
		return 0, fmt.Errorf("term %d is given away, not %d (giving %v)", given, m.given, m.giving)
	}
	if given > 0 {
		if err := d.Activate(given); !errors.Is(err, vmdisk.ErrFenced) {
			return 0, fmt.Errorf("activation under term %d, which was given away: %v", given, err)
		}
	}
	if given < m.term {
		return m.term, nil
	}
	if !maps.Equal(v, m.now()) {
		return 0, fmt.Errorf("given away with something lost: %s", differ(v, m.now()))
	}
	return m.term + 1, nil
}

// goOn checks that the disk, which contains v, can be worked with: its peer gets what it lacks.
func (m *told) goOn(d *vmdisk.Store, v values) error {
	peer := &counting{state: vmdisk.ReplicaState{Disk: diskID, Complete: m.complete, Position: m.held, Copy: m.copying}, v: m.partial}
	if m.complete {
		peer.v, peer.state.Copy = m.history[m.held], [16]byte{}
	}
	if m.complete || m.copying != [16]byte{} {
		if err := catchUp(d, peerName, peer.state, peer); err != nil {
			return fmt.Errorf("catch-up of the peer at %s: %w", m.held, err)
		}
		if !maps.Equal(peer.v, v) {
			return fmt.Errorf("the peer was at %s and isn't equal afterwards: %s", m.held, differ(peer.v, v))
		}
	}
	return m.known(d.Position(), v)
}

// writeOn checks that no position is used twice.
func (m *told) writeOn(d *vmdisk.Store) error {
	before := d.Position()
	if err := d.WriteAt(fill(make([]byte, vmdisk.Block), 0, 1), 0, true); err != nil {
		return err
	}
	if pos := d.Position(); pos.Compare(m.newest) <= 0 || pos.Compare(before) <= 0 {
		return fmt.Errorf("a new barrier is called %s, there were %s and %s", pos, m.newest, before)
	}
	return nil
}

// replica checks the replica after a crash at p, then connects it to an owner that was killed at the same time.
func (c *visitor) replica(p point, l loss, again bool) error {
	m := p.m
	look := func(d *vmdisk.Store, _ bool) (v values, pos vmdisk.Position, err error) {
		i, st := d.Info(), d.ReplicaState()
		if i.Err != nil || i.Active || i.ID != diskID {
			return nil, pos, fmt.Errorf("not a good replica: %+v", i)
		}
		if err := d.WriteAt(zeroBlock[:], 0, false); !errors.Is(err, vmdisk.ErrInactive) {
			return nil, pos, fmt.Errorf("write to a replica: %v", err)
		}
		if st.Position != m.held && st.Position != m.ending {
			return nil, pos, fmt.Errorf("at %s; it acknowledged %s and was told %s", st.Position, m.held, m.ending)
		}
		if !st.Complete {
			if m.complete {
				return nil, pos, errors.New("was complete, and isn't")
			}
			return values{}, st.Position, nil
		}
		if v, err = scan(d); err != nil {
			return nil, pos, err
		}
		want, ok := m.history[st.Position]
		if !ok || !maps.Equal(v, want) {
			return nil, pos, fmt.Errorf("isn't what the disk was at %s (known %v): %s", st.Position, ok, differ(v, want))
		}
		return v, st.Position, nil
	}
	mem := p.mems[1].After(l.kind, l.seed)
	if err := c.recover(mem, l, again, look); err != nil {
		return err
	}
	if m.given == m.term || !c.oneOf(c.thorough) {
		return nil
	}
	return reunite(p.mems[0].After(vfs.LoseNothing, 0), mem, m.term)
}

// reunite opens an owner and a replica, and lets the replica catch up.
func reunite(om, rm *vfs.Mem, term uint64) (err error) {
	d, err := vmdisk.Open("", options(om))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	r, err := vmdisk.Open("", options(rm))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := d.Activate(term); err != nil {
		return err
	}
	return follow(d, r)
}

// follow lets a replica catch up, and compares.
func follow(d, r *vmdisk.Store) error {
	if err := r.Reach(d.Size()); err != nil {
		return err
	}
	a, err := r.Apply()
	if err != nil {
		return err
	}
	st := a.State()
	if err := errors.Join(catchUp(d, peerName, st, a), a.Close()); err != nil {
		return fmt.Errorf("catch-up of a real replica at %s (complete %v): %w", st.Position, st.Complete, err)
	}
	want, err := scan(d)
	if err != nil {
		return err
	}
	got, err := scan(r)
	if err != nil {
		return err
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("the replica was at %s and isn't equal afterwards: %s", st.Position, differ(got, want))
	}
	if r.Position() != d.Position() {
		return fmt.Errorf("equal, but at %s and %s", r.Position(), d.Position())
	}
	return nil
}

// finish connects the living owner with a replica that crashed at the last point where it did something.
func (w *world) finish(seed uint64) error {
	if v, err := scan(w.owner); err != nil {
		return err
	} else if now := w.m.now(); !maps.Equal(v, now) {
		return fmt.Errorf("the guest reads something else: %s", differ(v, now))
	}
	if w.cut != nil {
		if err := w.closeCut(); err != nil {
			return err
		}
	}
	w.om.Trace(nil)
	w.rm.Trace(nil)
	last := slices.IndexFunc(w.points, func(p point) bool { return p.who == 1 })
	if !w.m.active || w.m.fenced || last < 0 {
		return nil
	}
	if w.feed != nil {
		w.feed.Close()
	}
	r, err := vmdisk.Open("", options(w.points[last].mems[1].After(vfs.LoseSome, seed)))
	if err != nil {
		return err
	}
	err = follow(w.owner, r)
	return errors.Join(err, r.Close())
}
