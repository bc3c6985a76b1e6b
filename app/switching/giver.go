package switching

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/app/holdpoint"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/vmdisk"
)

// Giving is one attempt to give a VM away. All fields are needed.
type Giving struct {
	Attempt string
	Taker   string // the device
	Live    bool   // a guest goes along
	Early   bool   // stop it within the first pass: see Rule.EarlyStop
	// PostCopy has the guest go ahead of its memory after one pass.
	PostCopy bool
	// Pause is for how long the guest may stand still, by the person's word; 0 is the rule's.
	Pause   time.Duration
	Rule    Rule
	Copy    handover.Rule
	Place   Place
	Replica Replica
	Streams Streams
	Tell    Teller
	Clock   Clock
	Log     *slog.Logger
}

// Giver carries an attempt out. Run is called once; the other methods may be called from anywhere, on a nil Giver too, where there is
// nothing to do.
type Giver struct {
	Giving
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
	begun   time.Time
	proceed chan struct{}
	bytes   int64 // that had moved when that was told last; Run's own

	// guarded by mu
	mu   sync.Mutex
	line Line
	out  hypervisor.Outgoing
	told bool
}

// NewGiver makes a Giver; the caller calls Run in a goroutine of its own. When ctx ends, so does it.
func NewGiver(ctx context.Context, a Giving) *Giver {
	ctx, cancel := context.WithCancel(ctx)
	return &Giver{Giving: a, ctx: ctx, cancel: cancel, done: make(chan struct{}), begun: a.Clock.Now(), proceed: make(chan struct{}, 1)}
}

// Run prepares the hand-off, waits for Proceed, and lets the last of the memory leave. It says how that goes to the Teller.
func (g *Giver) Run() {
	defer close(g.done)
	pos, err := g.prepare(g.ctx)
	if err == nil {
		g.Tell.Prepared(g.ctx, pos)
		err = g.finish(g.ctx)
	}
	if err != nil && g.ctx.Err() == nil {
		g.Log.Warn("Giving the VM away failed", "attempt", g.Attempt, "error", err)
		g.Tell.Failed(g.ctx, err)
	}
}

// prepare brings the taker to where only the last words are missing: its replica is complete at the
// returned position, or it knows durably what it lacks of that; this disk is fenced, the guest stands still.
func (g *Giver) prepare(ctx context.Context) (vmdisk.Position, error) {
	defer g.Replica.Want()()
	if err := g.catchUp(ctx); err != nil {
		return vmdisk.Position{}, fmt.Errorf("bring the other device's copy up to date: %w", err)
	}
	if !g.Live {
		return g.seal(ctx)
	}
	guest := g.Place.Guest()
	if guest == nil {
		return vmdisk.Position{}, hypervisor.ErrNotRunning
	}
	out, line, stopped, err := g.sendMemory(ctx, guest)
	if err != nil {
		return vmdisk.Position{}, err
	}
	paused := g.Clock.Now().Sub(stopped)
	// From here on the guest can't write memory: all of it leaves while the disk is sealed, or nothing if it goes ahead.
	if err := goAhead(ctx, out); err != nil {
		return vmdisk.Position{}, err
	}
	line.Release()
	pos, err := g.seal(ctx)
	if err != nil {
		return pos, err
	}
	sealed := g.Clock.Now().Sub(stopped)
	if err := g.letRestLeave(ctx, out, line); err != nil {
		return pos, err
	}
	holdpoint.At(ctx, holdpoint.Switchover)
	g.Log.Info("The guest stands still, all but its last state is there", "paused", paused, "sealed", sealed, "switchover", g.Clock.Now().Sub(stopped))
	return pos, nil
}

// sendMemory carries memory away while the guest runs, until little enough is left, and stops the guest.
func (g *Giver) sendMemory(ctx context.Context, guest Guest) (hypervisor.Outgoing, Line, time.Time, error) {
	g.Tell.Phase(api.PhaseMemory)
	line, err := g.Streams.Memory(ctx)
	if err != nil {
		return nil, nil, time.Time{}, fmt.Errorf("open the memory stream: %w", err)
	}
	out, err := g.teleport(ctx, guest)
	if err != nil {
		line.Close()
		return nil, nil, time.Time{}, err
	}
	g.mu.Lock()
	g.out, g.line = out, line
	g.mu.Unlock()
	line.Carry(ctx, out.Stream())
	stopped, err := g.converge(ctx, guest, out, line)
	return out, line, stopped, err
}

// letRestLeave waits until all of the memory has left, and says how it gets on.
func (g *Giver) letRestLeave(ctx context.Context, out hypervisor.Outgoing, line Line) error {
	for {
		soon, cancel := context.WithTimeout(ctx, g.Rule.TellEvery)
		err := out.AtSwitchover(soon)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
		g.moved(ctx, line.Sent())
	}
}

// Proceed lets the last part through: the machine's word that the taker is ready and the disk complete.
func (g *Giver) Proceed() {
	if g == nil {
		return
	}
	select {
	case g.proceed <- struct{}{}:
	default:
	}
}

// finish waits for Proceed and sends the devices' state.
func (g *Giver) finish(ctx context.Context) error {
	if !g.Live {
		return nil
	}
	select {
	case <-g.proceed:
	case <-ctx.Done():
		return ctx.Err()
	}
	_, out := g.way()
	return out.Finish(ctx)
}

func (g *Giver) way() (Line, hypervisor.Outgoing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.line, g.out
}

// Sent is how many bytes of memory have left.
func (g *Giver) Sent() int64 {
	if g == nil {
		return 0
	}
	if line, _ := g.way(); line != nil {
		return line.Sent()
	}
	return 0
}

// Told says that the taker knows already what it lacks of the disk.
func (g *Giver) Told() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.told
}

// End gives the attempt up and waits for its end: the memory stream is closed, the hypervisor forgets the teleport. The
// guest stays as it is: stopped, if it was.
func (g *Giver) End(ctx context.Context) {
	if g == nil {
		return
	}
	g.cancel()
	<-g.done
	line, out := g.way()
	if out == nil {
		return
	}
	line.Release()
	if g.PostCopy {
		line.Close() // first: its hypervisor hears only who isn't carrying
	}
	if err := out.Cancel(ctx); err != nil {
		g.Log.Warn("Cancelling the teleport failed", "error", err)
	}
	if !g.PostCopy {
		line.Close()
	}
}

// Abandon is End without a word to a hypervisor that is about to be killed.
func (g *Giver) Abandon() {
	if g == nil {
		return
	}
	g.cancel()
	<-g.done
	if line, out := g.way(); out != nil {
		out.Stream().Close()
		line.Close()
		if apart, ok := out.(hypervisor.OutgoingApart); ok {
			apart.Sever()
		}
	}
}
