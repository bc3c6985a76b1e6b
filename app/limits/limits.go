package limits

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"tagalong.org/tagalong/app/allowance"
	"tagalong.org/tagalong/app/durable"
)

// Direction is seen from this device.
type Direction int

const (
	Up Direction = iota
	Down
)

// Options of Limits. File and Log are required.
type Options struct {
	// File keeps what is set. It needn't be there.
	File string
	Log  *slog.Logger
	Around
}

// Around is whom to ask what this device runs on and is connected by.
type Around struct {
	// Battery says what this device runs on, and how full it is in percent (0 is unknown); nil is mains.
	Battery func() (draining bool, percent int)
	// Metered tells whether the connection is metered, first and whenever that changes, until ctx ends; nil, or one that returns, is not metered.
	Metered func(ctx context.Context, log *slog.Logger, tell func(metered bool))
}

// Limits are this device's. Its methods may be called from any goroutine.
type Limits struct {
	opt      Options
	up, down *Pace
	kick     chan struct{} // 1-buffered: Run is to look at the time anew

	saving sync.Mutex // held over a change of the file

	mu         sync.Mutex
	will       will
	unreadable error
	around     allowance.Around
	looking    bool // what this device is connected by isn't known yet
	wishes     wishes
	shown      allowance.Allowance // what watchers were told last
	watchers   map[chan struct{}]struct{}
}

// Open reads what was set. A file that can't be read is no error here: then nothing may be pushed, and Snapshot says why.
func Open(opt Options) *Limits {
	l := &Limits{opt: opt, up: newPace(), down: newPace(), kick: make(chan struct{}, 1), looking: true, wishes: newWishes(), watchers: map[chan struct{}]struct{}{}}
	l.will, l.unreadable = load(opt.File)
	if l.unreadable != nil {
		opt.Log.Error("What was set about syncing can't be read: nothing is pushed to other sites", "file", opt.File, "error", l.unreadable)
	}
	l.refresh()
	return l
}

const (
	// lookEvery is how often the battery is looked at, and the clock, which may be set or sleep.
	lookEvery = 20 * time.Second
	// lookLimit is how long it is waited at the start for word of what this device is connected by.
	lookLimit = 30 * time.Second
)

// Run keeps what is true up to date until ctx ends.
func (l *Limits) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group.Go(func() {
		if l.opt.Metered != nil {
			l.opt.Metered(ctx, l.opt.Log, func(metered bool) { l.see(func(a *allowance.Around) { a.Metered = metered }) })
		}
		l.see(func(*allowance.Around) {})
	})
	limit := time.NewTimer(lookLimit)
	defer limit.Stop()
	type power struct {
		draining bool
		percent  int
	}
	// Nobody waits for a look that the kernel holds up: it ends by itself, and no other begins before.
	looked, looks := make(chan power, 1), false
	for {
		if l.opt.Battery != nil && !looks {
			looks = true
			go func() {
				draining, percent := l.opt.Battery()
				looked <- power{draining, percent}
			}()
		}
		timer := time.NewTimer(l.next())
		again := false
		for !again {
			again = true
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-l.kick:
			case <-timer.C:
			case <-limit.C:
				l.see(func(*allowance.Around) {})
			case p := <-looked:
				l.mu.Lock()
				l.around.OnBattery, l.around.Percent = p.draining, p.percent
				l.mu.Unlock()
				l.refresh()
				looks, again = false, false
			}
		}
		timer.Stop()
		l.refresh()
	}
}

// see takes news of the connection.
func (l *Limits) see(change func(*allowance.Around)) {
	l.mu.Lock()
	change(&l.around)
	l.looking = false
	l.mu.Unlock()
	l.refresh()
}

// next is how long until Run has to look again.
func (l *Limits) next() time.Duration {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := lookEvery
	for _, at := range []time.Time{l.decide(now, false).Until, l.wishes.lapse()} {
		if !at.IsZero() {
			wait = min(wait, at.Sub(now))
		}
	}
	return max(wait, time.Millisecond)
}

// decide is what applies. The caller holds mu.
func (l *Limits) decide(now time.Time, asked bool) allowance.Allowance {
	s := allowance.State{
		Settings: l.will.settings, Unreadable: l.unreadable != nil, Paused: l.will.paused, PausedUntil: l.will.until,
		Asked: asked, Looking: l.looking, Around: l.around,
	}
	return s.At(now)
}

// refresh sets the paces, and says so where something has changed.
func (l *Limits) refresh() {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	lapsed := l.wishes.expire(now)
	a := l.decide(now, l.wishes.any())
	if a.May {
		l.up.set(a.Up)
		l.down.set(a.Down)
	}
	a.Until, a.Percent = time.Time{}, 0
	if a != l.shown || lapsed {
		l.shown = a
		l.tell()
	}
}

// tell hints to all who watch. The caller holds mu.
func (l *Limits) tell() {
	for w := range l.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Changed hints, in a channel with room for one, that Allowance may have another answer. stop ends that.
func (l *Limits) Changed() (changed <-chan struct{}, stop func()) {
	w := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers[w] = struct{}{}
	return w, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, w)
	}
}

// Allowance says whether a push of a VM's disk, to or from another site, may go on now, why, and until when at most that holds.
func (l *Limits) Allowance(vm string) allowance.Allowance {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wishes.expire(now)
	_, asked := l.wishes.open(vm)
	return l.decide(now, asked)
}

// Pace is what all pushes of a direction wait on.
func (l *Limits) Pace(d Direction) *Pace {
	if d == Down {
		return l.down
	}
	return l.up
}

// Ask wishes to have a VM's changes at other sites now, or all VMs' if it is "".
func (l *Limits) Ask(vm string) {
	l.mu.Lock()
	l.wishes.ask(vm, time.Now())
	l.tell()
	l.mu.Unlock()
	l.refresh()
}

// Now says whether there is a wish for a VM that isn't served, and the number of the latest.
func (l *Limits) Now(vm string) (gen uint64, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wishes.expire(time.Now())
	return l.wishes.open(vm)
}

// Served ends the wishes for a VM up to gen: everybody who is reached has what there was when Now told gen.
func (l *Limits) Served(vm string, gen uint64) {
	l.mu.Lock()
	l.wishes.serve(vm, gen)
	l.mu.Unlock()
	l.refresh()
}

// Begin says that a push of a VM is under way, until end is called (once or more). A wish for it doesn't lapse meanwhile.
func (l *Limits) Begin(vm string) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	began := time.Now()
	l.wishes.begin(vm)
	return sync.OnceFunc(func() {
		l.mu.Lock()
		l.wishes.end(vm, began, time.Now())
		l.mu.Unlock()
		l.refresh()
	})
}

// Hold says that something else than a push is under way that a wish for the VM opens, until end is called (once or more). The wish
// doesn't lapse meanwhile.
func (l *Limits) Hold(vm string) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	began := time.Now()
	l.wishes.hold(vm)
	return sync.OnceFunc(func() {
		l.mu.Lock()
		l.wishes.release(vm, began, time.Now())
		l.mu.Unlock()
		l.refresh()
	})
}

// Pause holds all pushes back until then, or, if that is zero, until Resume. It ends wishes that are open.
func (l *Limits) Pause(until time.Time) error {
	return l.change(func(w *will) error {
		w.paused, w.until = true, until
		return nil
	}, true)
}

// Resume ends a pause.
func (l *Limits) Resume() error {
	return l.change(func(w *will) error {
		w.paused, w.until = false, time.Time{}
		return nil
	}, false)
}

// Set changes what is set. It fails with allowance.ErrSettings if that makes no sense, or with what change returns, and then nothing is
// changed, nor if it can't be kept.
func (l *Limits) Set(change func(*allowance.Settings) error) error {
	return l.change(func(w *will) error {
		if err := change(&w.settings); err != nil {
			return err
		}
		return w.settings.Check()
	}, false)
}

// change makes a change durable, and then true.
func (l *Limits) change(change func(*will) error, calm bool) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	w, err := l.will, l.unreadable
	l.mu.Unlock()
	if err != nil {
		return err
	}
	w.settings = w.settings.Clone()
	if err := change(&w); err != nil {
		return err
	}
	if err := w.save(l.opt.File); err != nil {
		return err
	}
	l.take(w, calm)
	return nil
}

func (l *Limits) take(w will, calm bool) {
	l.mu.Lock()
	l.will, l.unreadable = w, nil
	if calm {
		l.wishes.calm()
	}
	l.tell()
	l.mu.Unlock()
	l.refresh()
}

// Reset makes all as if nothing had ever been set. A file that couldn't be read is put aside, under the name that it returns.
func (l *Limits) Reset() (put string, err error) {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	unreadable := l.unreadable != nil
	l.mu.Unlock()
	if unreadable {
		put = l.opt.File + aside
		if err := durable.Rename(l.opt.File, put); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("limits: put settings aside: %w", err)
		}
	}
	w := will{settings: allowance.Default()}
	if err := w.save(l.opt.File); err != nil {
		return put, err
	}
	l.take(w, false)
	return put, nil
}

// Snapshot is all of it at once.
type Snapshot struct {
	Settings allowance.Settings
	// Unreadable is why the settings can't be read; then Settings is empty.
	Unreadable  error
	Paused      bool
	PausedUntil time.Time // zero is until Resume
	Around      allowance.Around
	Allowance   allowance.Allowance // without regard to wishes
	Asked       bool                // some wish is open
	Rounds      int                 // pushes under way
}

// Snapshot tells how all is now.
func (l *Limits) Snapshot() Snapshot {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wishes.expire(now)
	paused := l.will.paused && (l.will.until.IsZero() || now.Before(l.will.until))
	s := Snapshot{
		Settings: l.will.settings.Clone(), Unreadable: l.unreadable, Paused: paused, Around: l.around,
		Allowance: l.decide(now, false), Asked: l.wishes.any(), Rounds: l.wishes.rounds(),
	}
	if paused {
		s.PausedUntil = l.will.until
	}
	return s
}
