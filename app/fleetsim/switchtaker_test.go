package fleetsim

import (
	"context"
	"io"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/switching"
	"tagalong.org/tagalong/directory/baton"
)

// The taker's side of a switch, with the model hypervisor that memory comes into.

// taking is an attempt to take the VM, and all that it needs.
type taking struct {
	*turns
	e        *engine
	attempt  string
	peer     string
	taker    *switching.Taker
	arrivals chan switching.Arrival
}

func (e *engine) take(a baton.Action) {
	t := &taking{turns: newTurns(), e: e, attempt: a.Attempt, peer: a.Peer, arrivals: make(chan switching.Arrival, 1)}
	t.taker = switching.NewTaker(context.Background(), switching.Taking{Attempt: a.Attempt, Rule: rule, Host: t, Clock: t, Log: silent})
	e.incoming = t
	go t.taker.Run()
}

// letGoIncoming ends the attempt's goroutines, and leaves the hypervisor as it is.
func (e *engine) letGoIncoming() {
	t := e.incoming
	if t == nil {
		return
	}
	e.incoming = nil
	t.end()
	t.taker.Cancel()
	<-t.taker.Done()
}

func (e *engine) endIncoming() {
	if e.incoming == nil {
		return
	}
	e.letGoIncoming()
	if g := e.d.guest; g != nil && (g.kind == incoming || g.kind == loaded) {
		g.exits()
		e.d.guest = nil
	}
	e.sealed = false
}

// Now and Wait are switching.Clock.
func (t *taking) Now() time.Time { return time.Now() }

func (t *taking) Wait(ctx context.Context, _ time.Duration) error {
	return t.ask(ctx, turn{wait: true, do: func() {}})
}

// Complete and the others are switching.Host.
func (t *taking) Complete() (bool, int64) { return t.e.disk != nil && t.e.disk.Info().Complete, 0 }

func (t *taking) Start(ctx context.Context) (in switching.Incoming, err error) {
	d, w := t.e.d, t.e.d.w
	if ended := t.take(ctx, func() {
		err = d.e.dir.Room()
		switch {
		case err != nil:
		case w.chance(30):
			w.note("%s's hypervisor doesn't start", d.id)
			err = errBadLuck
		case d.guest != nil:
			w.fail("%s starts a second hypervisor beside one that is %s", d.id, d.guest.kind)
			err = errBadLuck
		default:
			d.guest = &guest{kind: incoming, attempt: t.attempt, in: newInbound(t)}
			d.guest.in.guest, in = d.guest, d.guest.in
		}
	}); ended != nil {
		return nil, ended
	}
	return in, err
}

func (t *taking) Memory() <-chan switching.Arrival { return t.arrivals }

func (t *taking) Moved(ctx context.Context) { t.event(ctx, baton.Event{Kind: baton.EvProgress}) }

func (t *taking) Ready(ctx context.Context) {
	t.event(ctx, baton.Event{Kind: baton.EvIncomingReady, Attempt: t.attempt})
}

func (t *taking) Loaded(ctx context.Context) {
	if err := t.e.dir.Room(); err != nil {
		t.Failed(ctx, err)
		return
	}
	t.event(ctx, baton.Event{Kind: baton.EvLoadedLocal, Attempt: t.attempt})
}

// Rest is switching.Host; memory always comes first here.
func (t *taking) Rest(context.Context, switching.Rest) {}

func (t *taking) Seal() {
	_ = t.take(context.Background(), func() {
		t.e.seal()
		t.e.d.touched = true
	})
}

func (t *taking) Failed(ctx context.Context, err error) {
	t.event(ctx, baton.Event{Kind: baton.EvLocalFailed, Attempt: t.attempt, Reason: err.Error()})
}

func (t *taking) event(ctx context.Context, ev baton.Event) {
	_ = t.take(ctx, func() { t.e.events = append(t.e.events, ev) })
}

// inbound is a model hypervisor that takes memory in, and the line's end there.
type inbound struct {
	t      *taking
	guest  *guest
	ram    ram
	exited chan struct{}
	loaded chan error
}

func newInbound(t *taking) *inbound {
	return &inbound{t: t, exited: make(chan struct{}), loaded: make(chan error, 1)}
}

func (in *inbound) Incoming(context.Context) (io.ReadWriteCloser, error) { return nothing{}, nil }

func (in *inbound) Exited() <-chan struct{} { return in.exited }

func (in *inbound) Loaded(ctx context.Context) error {
	select {
	case err := <-in.loaded:
		return err
	case <-in.exited:
		return hypervisor.ErrTeleport
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (in *inbound) Carry(context.Context, io.ReadWriteCloser) {}

func (in *inbound) Close() {}

// fail is a stream that breaks before its end.
func (in *inbound) fail() {
	select {
	case in.loaded <- hypervisor.ErrTeleport:
	default:
	}
}

// load is the end of the stream: the devices' state.
func (in *inbound) load(from *guest) {
	d, w := in.t.e.d, in.t.e.d.w
	if w.chance(40) {
		w.note("%s's hypervisor refuses the memory", d.id)
		in.fail()
		return
	}
	select {
	case in.loaded <- nil:
	default:
		return
	}
	w.note("%s has loaded the memory", d.id)
	g := in.guest
	g.kind, g.view, g.term, g.ram, g.stood = loaded, from.view, from.term, in.ram, from.ram
	d.touched = true
}

// exits ends a hypervisor's process.
func (g *guest) exits() {
	if g == nil || g.in == nil {
		return
	}
	select {
	case <-g.in.exited:
	default:
		close(g.in.exited)
	}
}

// nothing stands for a stream.
type nothing struct{}

func (nothing) Read([]byte) (int, error)    { return 0, io.EOF }
func (nothing) Write(p []byte) (int, error) { return len(p), nil }
func (nothing) Close() error                { return nil }
