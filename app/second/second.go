package second

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tagalong.org/tagalong/vmdisk"
)

// ErrNoSecond, which is also ENOSPC, says that no other device has what was flushed: the guest is to stand still.
var ErrNoSecond = errors.New("second: no other device has it")

// Disk is what is needed of a disk; a vmdisk.Store is one.
type Disk interface {
	// Position is the last durable barrier.
	Position() vmdisk.Position
	Elsewhere() vmdisk.Elsewhere
	// Hurry tells that somebody waits.
	Hurry()
	// Watch wakes when something changed for any peer (""), until the function is called.
	Watch(peer string) (<-chan struct{}, func())
}

// Gate is one VM's. Its methods may be called from any goroutine, and don't block except where said.
type Gate struct {
	look func(vmdisk.Elsewhere) Why
	tell func()
	two  atomic.Bool

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew when waiting flushes must look
	waiting  map[*wait]struct{}
	stopping time.Time // since when; zero: it isn't being stopped
	still    bool
	failing  bool
	refused  bool
	told     bool // of the present trouble
}

// wait is a flush that waits.
type wait struct {
	began time.Time
	disk  Disk
	pos   vmdisk.Position
}

// New makes a gate at which nothing waits. look says why flushes needn't wait, if two is set and the disk is whole: Held, Alone, Offline or Uncopied;
// it is called while one would. tell is
// called when a flush has waited for TellAfter, once until a second copy is there again. Both are called from flushes and must not block.
func New(look func(vmdisk.Elsewhere) Why, tell func()) *Gate {
	return &Gate{look: look, tell: tell, changed: make(chan struct{}), waiting: map[*wait]struct{}{}}
}

// Bound is a gate around a disk, for as long as its export isn't ended. Equal ones are one.
type Bound struct {
	gate  *Gate
	disk  Disk
	ended <-chan struct{}
}

// On is the gate around a disk that is served until ended is closed.
func (g *Gate) On(d Disk, ended <-chan struct{}) Bound { return Bound{g, d, ended} }

// Flushed runs flush, which makes what was written durable here, and waits until it is durable elsewhere too. Errors: flush's,
// ErrNoSecond, vmdisk.ErrInactive.
func (b Bound) Flushed(flush func() error) error {
	if !b.gate.two.Load() {
		return flush()
	}
	active := b.disk.Elsewhere().Active
	if err := flush(); err != nil || !active {
		return err // a disk that isn't active has nothing to flush
	}
	return b.gate.wait(b.disk, b.ended)
}

// wait waits until another device has what d has now.
func (g *Gate) wait(d Disk, ended <-chan struct{}) error {
	pos := d.Position()
	if d.Elsewhere().Newest.Compare(pos) >= 0 {
		g.arrived()
		return nil
	}
	// Before the next look: what changes from here on wakes.
	woken, stop := d.Watch("")
	defer stop()
	d.Hurry()
	w := &wait{time.Now(), d, pos}
	g.mu.Lock()
	g.waiting[w] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.waiting, w)
		g.mu.Unlock()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		g.mu.Lock()
		changed := g.changed
		g.mu.Unlock()
		v, again := g.judge(w, over(ended))
		switch v {
		case answer:
			return nil
		case hangUp:
			return fmt.Errorf("wait for a second copy: %w", vmdisk.ErrInactive)
		case refuse:
			return fmt.Errorf("%w: %w", ErrNoSecond, syscall.ENOSPC)
		}
		timer.Reset(again)
		select {
		case <-woken:
		case <-changed:
		case <-ended:
		case <-timer.C:
		}
	}
}

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// judge looks at everything that w depends on, and notes what that leads to.
func (g *Gate) judge(w *wait, ended bool) (verdict, time.Duration) {
	e := w.disk.Elsewhere()
	s := sight{ended: ended, reached: e.Newest.Compare(w.pos) >= 0, active: e.Active, why: g.why(e), waited: time.Since(w.began), stopping: -1}
	g.mu.Lock()
	s.still, s.failing = g.still, g.failing
	if !g.stopping.IsZero() {
		s.stopping = time.Since(g.stopping)
	}
	v, again := judge(s)
	due := v == keepWaiting && s.waited >= TellAfter && !g.told
	g.told = g.told || due
	if v == refuse {
		g.refused, g.failing = true, g.failing || s.waited >= Grace
	}
	g.mu.Unlock()
	if s.reached {
		g.arrived()
	}
	if due {
		g.tell()
	}
	return v, again
}

func (g *Gate) why(e vmdisk.Elsewhere) Why {
	switch {
	case !g.two.Load():
		return Off
	case e.Hydrating:
		return Filling
	}
	return g.look(e)
}

// arrived tells that a second copy is there.
func (g *Gate) arrived() {
	g.mu.Lock()
	g.failing, g.told = false, false
	g.mu.Unlock()
}

// wake has the waiting flushes look. The caller holds mu.
func (g *Gate) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// Set says whether flushes wait for a second copy. Those that do already look anew.
func (g *Gate) Set(two bool) {
	if g.two.Swap(two) == two {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wake()
}

// Stop runs stop, which stops the guest's processors and waits for the guest's requests, and fails if they may still run.
func (g *Gate) Stop(stop func() error) error {
	g.mu.Lock()
	g.stopping = time.Now()
	g.wake()
	g.mu.Unlock()
	err := stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.still, g.stopping = err == nil, time.Time{}
	g.wake()
	return err
}

// Runs must be called before the guest's processors run, or may run again.
func (g *Gate) Runs() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.still, g.stopping, g.failing, g.refused = false, time.Time{}, false, false
}

// Refused says that a flush was refused since the guest last ran: if it stands still, that may be why.
func (g *Gate) Refused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}

// Satisfied says that a flush of what d has would be answered at once.
func (g *Gate) Satisfied(d Disk) bool {
	e := d.Elsewhere()
	return g.why(e) != Held || e.Newest.Compare(d.Position()) >= 0
}

// State is what the gate does now.
type State struct {
	// Why is why flushes don't wait.
	Why Why
	// Since is when the oldest flush began that has waited for TellAfter; zero if there is none.
	Since time.Time
	// Refused says that a flush was refused since the guest last ran.
	Refused bool
}

// State tells it, of a VM with the disk d.
func (g *Gate) State(d Disk) State {
	s := State{Why: g.why(d.Elsewhere())}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Refused = g.refused
	for w := range g.waiting {
		if time.Since(w.began) >= TellAfter && (s.Since.IsZero() || w.began.Before(s.Since)) {
			s.Since = w.began
		}
	}
	return s
}

// Two says whether flushes are to wait for a second copy.
func (g *Gate) Two() bool { return g.two.Load() }
