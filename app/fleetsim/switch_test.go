package fleetsim

import (
	"context"
	"errors"
	"io"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/switching"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// What package switching does is real; here are the disk, the lines and the model hypervisors that it is given. Its goroutines do nothing
// by themselves: each thing that they ask for is done by the world, when it is their turn, so that anything can happen between two.

const (
	guestPages = 12
	pageSize   = 1 << 20
)

// ram is a guest's memory: the version of each page.
type ram [guestPages]uint32

var (
	errEnded   = errors.New("it was ended")
	errBadLuck = errors.New("bad luck")
)

// rule is the engine's, in coarser steps.
var rule = func() switching.Rule {
	r := switching.Usual
	r.MinPortion, r.MaxPortion, r.HoldBelow = 2*pageSize, 4*pageSize, pageSize
	return r
}()

// turns are what a goroutine asks the world for.
type turns struct {
	calls   chan turn
	ended   chan struct{}
	pending *turn
}

type turn struct {
	do   func()
	wait bool // it only lets time go by
	done chan struct{}
}

func newTurns() *turns { return &turns{calls: make(chan turn), ended: make(chan struct{})} }

// take waits for its turn and has the world do something.
func (t *turns) take(ctx context.Context, do func()) error { return t.ask(ctx, turn{do: do}) }

func (t *turns) ask(ctx context.Context, c turn) error {
	c.done = make(chan struct{})
	select {
	case t.calls <- c:
		<-c.done
		return ctx.Err()
	case <-t.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// look finds out what is asked for next.
func (t *turns) look() {
	if t.pending != nil {
		return
	}
	synctest.Wait()
	select {
	case c := <-t.calls:
		t.pending = &c
	default:
	}
}

// goOn does some of what is asked for; false if there is nothing but waiting.
func (t *turns) goOn(w *world) bool {
	did := false
	n := 1
	if !w.stepwise {
		n += w.rng.IntN(10)
	}
	for range n {
		t.look()
		c := t.pending
		if c == nil {
			break
		}
		t.pending = nil
		c.do()
		close(c.done)
		if t.look(); c.wait && (t.pending == nil || t.pending.wait) {
			break
		}
		did = true
	}
	return did
}

// end lets nobody wait any more.
func (t *turns) end() {
	close(t.ended)
	if t.pending != nil {
		close(t.pending.done)
		t.pending = nil
	}
}

// giving is an attempt to give the VM away, and all that it needs.
type giving struct {
	*turns
	e       *engine
	attempt string
	peer    string
	giver   *switching.Giver
	way     *way
	now     time.Time // as it thinks
	rate    int64     // of the taker's feed, bytes a second, as it thinks
	link    int64     // bytes a second
	busy    int       // the guest writes a page of n
	idle    bool      // it doesn't even tick
}

func (e *engine) give(a baton.Action) {
	w := e.d.w
	o := &giving{turns: newTurns(), e: e, attempt: a.Attempt, peer: a.Peer, now: time.Now()}
	o.rate, o.link = []int64{0, 1, 1 << 30}[w.rng.IntN(3)], []int64{200_000, 10_000_000, 100_000_000}[w.rng.IntN(3)]
	o.busy = []int{0, 1, 4, 20}[w.rng.IntN(4)]
	if w.behind {
		o.rate = 1
	}
	if o.idle = w.rng.IntN(6) == 0; w.healing {
		o.link, o.idle = 100_000_000, false
	}
	o.giver = switching.NewGiver(context.Background(), switching.Giving{
		Attempt: a.Attempt, Taker: a.Peer, Live: a.Live, Early: w.rng.IntN(4) == 0, Rule: rule, Copy: handover.Usual,
		Place: o, Replica: o, Streams: o, Tell: o, Clock: o, Log: silent,
	})
	e.outgoing = o
	go o.giver.Run()
}

func (e *engine) endOutgoing() {
	o := e.outgoing
	if o == nil {
		return
	}
	e.outgoing = nil
	o.end()
	o.giver.End(context.Background())
}

// Now and Wait are switching.Clock.
func (o *giving) Now() time.Time { return o.now }

func (o *giving) Wait(ctx context.Context, d time.Duration) error {
	return o.ask(ctx, turn{wait: true, do: func() { o.now = o.now.Add(d * time.Duration(1+o.e.d.w.rng.IntN(100))) }})
}

// Disk is switching.Place.
func (o *giving) Disk() switching.Disk { return givenDisk{o, o.e.disk} }

// Guest is switching.Place.
func (o *giving) Guest() switching.Guest {
	if o.e.d.guest == nil {
		return nil
	}
	return o
}

// givenDisk is the giver's disk, step by step.
type givenDisk struct {
	o    *giving
	disk *vmdisk.Store
}

func (g givenDisk) step(what string, do func() error) (err error) {
	d := g.o.e.d
	if ended := g.o.take(context.Background(), func() {
		d.w.note("%s %ss its disk", d.id, what)
		d.sure, d.touched = vmdisk.Position{}, true // it may get another name now
		if err = do(); err != nil {
			d.w.trouble(d, what, err)
		}
		d.w.look(d)
	}); ended != nil {
		return ended
	}
	return err
}

func (g givenDisk) Fence() error {
	if g.o.e.d.w.saboteur == doesntStop {
		return nil
	}
	return g.step("fence", g.disk.Fence)
}

func (g givenDisk) Name() (pos vmdisk.Position, err error) {
	err = g.step("name", func() error {
		pos, err = g.disk.Name()
		return err
	})
	return pos, err
}

func (g givenDisk) Seal() error { return g.step("seal", g.disk.Seal) }

func (g givenDisk) ExportDirty() (sets []byte, err error) {
	err = g.step("export", func() error {
		sets, err = g.disk.ExportDirty()
		return err
	})
	return sets, err
}

func (g givenDisk) Position() vmdisk.Position { return g.disk.Position() }

// Drain goes on by itself, as far as the replica does.
func (g givenDisk) Drain(ctx context.Context, device string) (vmdisk.Position, error) {
	d := g.o.e.d
	if err := g.o.take(ctx, func() { d.sure = vmdisk.Position{} }); err != nil {
		return vmdisk.Position{}, err
	}
	pos, err := g.disk.Drain(ctx, device)
	if err == nil {
		err = g.o.take(ctx, func() { d.w.note("%s has drained to %s at %s", d.id, device, pos) })
	}
	return pos, err
}

// Want, Copy, HoldBack and Tell are switching.Replica.
func (o *giving) Want() func() { return func() {} }

func (o *giving) Copy() (handover.Copy, int64) {
	c := switching.CopyOf(o.e.disk.Peers(), o.peer)
	c.Rate = o.rate
	return c, 0
}

func (o *giving) HoldBack() {
	_ = o.take(context.Background(), func() {
		if f := o.e.feeds[o.peer]; f != nil && o.e.d.w.rng.IntN(2) == 0 {
			f.closeOwner() // what is on its way may still arrive
		}
	})
}

// Tell lets the taker know what it lacks of the fenced disk.
func (o *giving) Tell(ctx context.Context, pos vmdisk.Position, sets []byte, moved func()) (err error) {
	d, w := o.e.d, o.e.d.w
	if ended := o.take(ctx, func() {
		p := w.dev(o.peer)
		if !w.net.linked(d.id, p.id) || p.e == nil {
			err = errNoLink
			return
		}
		err = p.e.custody().Keep(custody.Lacking{From: d.id, Attempt: o.attempt, Position: pos, Sets: sets})
		if w.chance(20) {
			err = errNoLink // the answer is lost
		}
		w.note("%s has told %s what it lacks of %s: %v", d.id, o.peer, pos, err)
	}); ended != nil {
		return ended
	}
	return err
}

// Phase and the others are switching.Teller.
func (o *giving) Phase(api.SwitchPhase) {}

func (o *giving) Moved(ctx context.Context) { o.event(ctx, baton.Event{Kind: baton.EvProgress}) }

func (o *giving) Report(r switching.Report) {
	if r.Step != switching.StepUsual {
		o.e.d.w.acts.slowed++
	}
}

func (o *giving) Stopped(time.Time) {}

func (o *giving) Prepared(ctx context.Context, pos vmdisk.Position) {
	if o.e.dir.Room() != nil {
		o.event(ctx, baton.Event{Kind: baton.EvLocalFailed, Attempt: o.attempt, Reason: baton.ReasonNotStored})
		return
	}
	o.event(ctx, baton.Event{Kind: baton.EvPrepared, Attempt: o.attempt, Position: baton.Position(pos)})
}

func (o *giving) Failed(ctx context.Context, err error) {
	var busy *switching.TooBusyError
	if errors.As(err, &busy) {
		o.e.d.w.acts.tooBusy++
	}
	o.event(ctx, baton.Event{Kind: baton.EvLocalFailed, Attempt: o.attempt, Reason: err.Error()})
}

func (o *giving) event(ctx context.Context, ev baton.Event) {
	_ = o.take(ctx, func() { o.e.events = append(o.e.events, ev) })
}

// Stop and Teleport are switching.Guest.
func (o *giving) Stop(ctx context.Context) (err error) {
	d, w := o.e.d, o.e.d.w
	if ended := o.take(ctx, func() {
		switch {
		case w.saboteur == doesntStop:
		case d.guest == nil || d.guest.kind != running && d.guest.kind != standing || d.guest.flight != nil || w.chance(60):
			err = hypervisor.ErrNotRunning
		default:
			_ = o.e.gate.Stop(func() error {
				d.guest.kind = standing
				return nil
			})
		}
	}); ended != nil {
		return ended
	}
	return err
}

func (o *giving) Teleport(ctx context.Context) (out hypervisor.Outgoing, err error) {
	d, w := o.e.d, o.e.d.w
	if ended := o.take(ctx, func() {
		if d.guest == nil || d.guest.kind != running || w.chance(40) {
			err = hypervisor.ErrNotRunning
			return
		}
		o.way.guest, o.way.passes = d.guest, 1
		for i := range o.way.left {
			o.way.left[i] = true
		}
	}); ended != nil {
		return nil, ended
	}
	return o.way, err
}

// Memory is switching.Streams.
func (o *giving) Memory(ctx context.Context) (line switching.Line, err error) {
	d, w := o.e.d, o.e.d.w
	if ended := o.take(ctx, func() {
		p := w.dev(o.peer)
		o.way = &way{o: o}
		if o.way.to = o.way.other(); o.way.to == nil || p.e.incoming.peer != d.id || w.chance(40) {
			err = errNoLink
			return
		}
		select {
		case p.e.incoming.arrivals <- o.way.to:
		default:
			err = errNoLink // there was one already
		}
	}); ended != nil {
		return nil, ended
	}
	if err != nil {
		return nil, err
	}
	return memoryLine{o.way}, nil
}

// way is a guest's memory on its way: the giver's hypervisor, and the line.
type way struct {
	o       *giving
	guest   *guest
	to      *inbound
	left    [guestPages]bool // of this pass
	sent    ram              // as they left
	bytes   int64
	passes  int
	allowed int64
	broken  bool
	hangs   bool
}

// other is what takes the memory in at the other end, nil if nothing does (any more).
func (x *way) other() *inbound {
	d, w := x.o.e.d, x.o.e.d.w
	p := w.dev(x.o.peer)
	if !w.net.linked(d.id, p.id) || p.e == nil || p.e.incoming == nil || p.e.incoming.attempt != x.o.attempt ||
		p.guest == nil || p.guest.in == nil || p.guest.kind != incoming || p.guest.attempt != x.o.attempt {
		return nil
	}
	return p.guest.in
}

// move lets so many bytes leave.
func (x *way) move(n int64) {
	w := x.o.e.d.w
	if x.other() != x.to || w.chance(150) {
		x.broken = true
	}
	for i := range x.left {
		if n <= 0 || x.broken {
			return
		}
		if !x.left[i] {
			continue
		}
		x.left[i], x.sent[i] = false, x.guest.ram[i]
		if w.saboteur != losesPages || w.rng.IntN(guestPages) > 0 {
			x.to.ram[i] = x.guest.ram[i]
		}
		n, x.bytes = n-pageSize, x.bytes+pageSize
		x.o.now = x.o.now.Add(time.Duration(pageSize * int64(time.Second) / x.o.link))
	}
	if x.remaining() == 0 {
		x.sync()
	}
}

// sync begins a new pass with what was written in the last one.
func (x *way) sync() {
	x.passes++
	if x.guest.kind == running && !x.o.idle {
		x.guest.ram[0]++
	}
	for i := range x.left {
		x.left[i] = x.guest.ram[i] != x.sent[i]
	}
}

func (x *way) remaining() (n int64) {
	for _, l := range x.left {
		if l {
			n += pageSize
		}
	}
	return n
}

// state is why it can't go on, or nil.
func (x *way) state() error {
	switch {
	case x.o.e.d.guest != x.guest:
		return hypervisor.ErrNotRunning
	case x.broken:
		return hypervisor.ErrTeleport
	}
	return nil
}

// Progress and the others are hypervisor.Outgoing.
func (x *way) Progress(ctx context.Context) (p hypervisor.Progress, err error) {
	if ended := x.o.take(ctx, func() {
		if err = x.state(); err != nil {
			return
		}
		p = hypervisor.Progress{Passes: x.passes, Remaining: x.remaining(), Total: guestPages * pageSize}
		if p.Remaining == 0 {
			x.guest.kind = standing // it thinks that it is through
			err = hypervisor.ErrConverged
		}
	}); ended != nil {
		return p, ended
	}
	return p, err
}

// Rest waits until the guest's flush is answered.
func (x *way) Rest(ctx context.Context) (err error) {
	for waits := true; waits; {
		if ended := x.o.ask(ctx, turn{wait: waits, do: func() {
			if err = x.state(); err == nil && x.guest.flight != nil {
				err = errBadLuck
			}
			if waits = err == nil && x.guest.flushing != nil; err == nil && !waits {
				x.guest.kind = standing
			}
		}}); ended != nil {
			return ended
		}
	}
	return err
}

func (x *way) GoOn(ctx context.Context) (err error) {
	if ended := x.o.take(ctx, func() {
		if err = x.state(); err == nil {
			x.guest.kind = running
		}
	}); ended != nil {
		return ended
	}
	return err
}

func (x *way) AtSwitchover(ctx context.Context) (err error) {
	if x.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if ended := x.o.take(ctx, func() {
		x.hangs = x.o.e.d.w.chance(60)
		for err = x.state(); err == nil && x.remaining() > 0; err = x.state() {
			x.move(guestPages * pageSize)
		}
	}); ended != nil {
		return ended
	}
	return err
}

// Finish is answered whatever becomes of the devices' state, as QEMU does.
func (x *way) Finish(ctx context.Context) error {
	return x.o.take(ctx, func() {
		w := x.o.e.d.w
		if x.state() != nil || x.other() != x.to || w.chance(60) {
			x.broken = true
			x.to.fail()
			return
		}
		x.to.load(x.guest)
	})
}

func (x *way) Cancel(context.Context) error {
	x.broken = true
	if x.to != nil {
		x.to.fail()
	}
	return nil
}

func (x *way) Stream() io.ReadWriteCloser { return nothing{} }

// memoryLine is switching.Line.
type memoryLine struct{ *way }

func (memoryLine) Carry(context.Context, io.ReadWriteCloser) {}

func (l memoryLine) Allow(n int64) { l.allowed = n }

// Spent lets what is allowed leave, and the guest write meanwhile.
func (l memoryLine) Spent(ctx context.Context, _ time.Duration) {
	_ = l.o.take(ctx, func() {
		w, x := l.o.e.d.w, l.way
		if x.state() != nil {
			return
		}
		x.move(x.allowed)
		x.o.now = x.o.now.Add(2 * time.Millisecond)
		if x.guest.kind == running && x.o.busy > 0 && !w.healing {
			for i := range x.guest.ram {
				if w.rng.IntN(x.o.busy) == 0 {
					x.guest.ram[i]++
				}
			}
		}
	})
}

func (memoryLine) Release() {}

func (l memoryLine) Sent() int64 { return l.bytes }

func (l memoryLine) Arrived() int64 { return l.bytes }

func (l memoryLine) Wire() int64 { return l.bytes }

func (memoryLine) Speed() int64 { return 0 }

func (memoryLine) Close() {}
