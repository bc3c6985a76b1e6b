package switching

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/vmdisk"
)

// scene is everything around a Giver, and writes down what it is told, in order.
type scene struct {
	mu    sync.Mutex
	told  []string
	fails map[string]error // by what is told
	hangs string           // what waits for its context
	gone  bool             // there is no guest
	copy  handover.Copy
	left  []hypervisor.Progress // looks at the memory; the last one stays
	live  bool
}

func (s *scene) note(ctx context.Context, what string) error {
	s.mu.Lock()
	s.told = append(s.told, what)
	err, hangs := s.fails[what], s.hangs == what
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (s *scene) say(what string) { _ = s.note(context.Background(), what) }

func (s *scene) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.told)
}

var bg = context.Background()

func (s *scene) Disk() Disk { return s }
func (s *scene) Guest() Guest {
	if s.gone {
		return nil
	}
	return s
}
func (s *scene) Fence() error { return s.note(bg, "fence") }
func (s *scene) Drain(ctx context.Context, device string) (vmdisk.Position, error) {
	return vmdisk.Position{Term: 3, Barrier: 9}, s.note(ctx, "drain to "+device)
}
func (s *scene) Name() (vmdisk.Position, error) { return s.Position(), s.note(bg, "name") }
func (s *scene) Seal() error                    { return s.note(bg, "seal") }
func (s *scene) ExportDirty() ([]byte, error)   { return []byte("sets"), s.note(bg, "export") }
func (s *scene) Position() vmdisk.Position      { return vmdisk.Position{Term: 3, Barrier: 8} }
func (s *scene) Want() func()                   { s.say("want"); return func() { s.say("enough") } }
func (s *scene) Copy() (handover.Copy, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copy, 7
}
func (s *scene) HoldBack() { s.say("hold back") }
func (s *scene) Tell(ctx context.Context, pos vmdisk.Position, sets []byte, moved func()) error {
	moved()
	return s.note(ctx, "tell "+string(sets))
}
func (s *scene) Teleport(ctx context.Context) (hypervisor.Outgoing, error) {
	return outgoing{s}, s.note(ctx, "teleport")
}
func (s *scene) Stop(ctx context.Context) error                    { return s.note(ctx, "stop") }
func (s *scene) Memory(ctx context.Context) (Line, error)          { return line{s}, s.note(ctx, "open") }
func (s *scene) Phase(p api.SwitchPhase)                           { s.say(string(p)) }
func (s *scene) Moved(context.Context)                             {}
func (s *scene) Report(Report)                                     {}
func (s *scene) Stopped(time.Time)                                 {}
func (s *scene) Prepared(ctx context.Context, pos vmdisk.Position) { s.say("prepared " + pos.String()) }
func (s *scene) Failed(ctx context.Context, err error)             { s.say("failed: " + err.Error()) }
func (s *scene) Now() time.Time                                    { return time.Now() }
func (s *scene) Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type line struct{ *scene }

func (l line) Carry(context.Context, io.ReadWriteCloser)  { l.say("carry") }
func (l line) Allow(int64)                                {}
func (l line) Spent(ctx context.Context, d time.Duration) { _ = l.Wait(ctx, d) }
func (l line) Release()                                   { l.say("release") }
func (l line) Sent() int64                                { return 5 }
func (l line) Arrived() int64                             { return 5 }
func (l line) Wire() int64                                { return 5 }
func (l line) Speed() int64                               { return 100 << 20 }
func (l line) Close()                                     { l.say("line closed") }

type outgoing struct{ *scene }

func (o outgoing) Stream() io.ReadWriteCloser { return stream(o) }
func (o outgoing) Progress(ctx context.Context) (hypervisor.Progress, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.left[0]
	if len(o.left) > 1 {
		o.left = o.left[1:]
	}
	return p, o.fails["progress"]
}
func (o outgoing) Rest(ctx context.Context) error         { return o.note(ctx, "rest") }
func (o outgoing) GoOn(ctx context.Context) error         { return o.note(ctx, "go on") }
func (o outgoing) AtSwitchover(ctx context.Context) error { return o.note(ctx, "at switchover") }
func (o outgoing) Finish(ctx context.Context) error       { return o.note(ctx, "finish") }
func (o outgoing) Cancel(ctx context.Context) error       { return o.note(ctx, "cancel") }

type stream struct{ *scene }

func (stream) Read([]byte) (int, error)    { return 0, io.EOF }
func (stream) Write(p []byte) (int, error) { return len(p), nil }
func (s stream) Close() error              { s.say("stream closed"); return nil }

func lively() *scene {
	return &scene{live: true, copy: handover.Copy{Live: true, Standing: true}, fails: map[string]error{},
		left: []hypervisor.Progress{{Passes: 1, Remaining: 1 << 30}, {Passes: 2, Remaining: 1 << 20}}}
}

// give runs an attempt until all that it can do is done; until ends it.
func (s *scene) give(t *testing.T, until func(g *Giver)) []string {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := NewGiver(t.Context(), Giving{
			Attempt: "1", Taker: "b", Live: s.live, Rule: Usual, Copy: handover.Usual,
			Place: s, Replica: s, Streams: s, Tell: s, Clock: s, Log: slog.New(slog.DiscardHandler),
		})
		go g.Run()
		time.Sleep(time.Minute)
		synctest.Wait()
		until(g)
		synctest.Wait()
		select {
		case <-g.done:
		default:
			t.Error("it hasn't ended")
			g.cancel()
		}
	})
	return s.all()
}

func proceed(g *Giver) { g.Proceed() }

func TestTheOrderOfGiving(t *testing.T) {
	steps := func(s string) []string { return strings.Split(s, ", ") }
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(s *scene)
		until  func(g *Giver)
		want   string
	}{
		"a teleport": {func(s *scene) {}, proceed,
			"want, catch-up, memory, open, teleport, carry, hand-off, stop, release, fence, drain to b, at switchover, enough, prepared 3/9, finish"},
		"a stopped VM": {func(s *scene) { s.live = false }, func(*Giver) {}, "want, catch-up, fence, drain to b, enough, prepared 3/9"},
		"onto a copy that isn't whole": {func(s *scene) { s.copy = handover.Copy{Standing: true, Feeding: true, Remaining: 1 << 40, Rate: 1} }, proceed,
			"want, catch-up, memory, open, teleport, carry, hand-off, stop, release, fence, hold back, name, seal, export, tell sets, at switchover, enough, prepared 3/8, finish"},
		"the last writes don't come in time": {func(s *scene) { s.hangs = "drain to b" }, proceed,
			"want, catch-up, memory, open, teleport, carry, hand-off, stop, release, fence, drain to b, hold back, name, seal, export, tell sets, at switchover, enough, prepared 3/8, finish"},
		"no guest": {func(s *scene) { s.gone = true }, proceed, "want, catch-up, enough, failed: " + hypervisor.ErrNotRunning.Error()},
		"no stream": {func(s *scene) { s.fails["open"] = broken }, proceed,
			"want, catch-up, memory, open, enough, failed: open the memory stream: broken"},
		"no teleport": {func(s *scene) { s.fails["teleport"] = broken }, proceed,
			"want, catch-up, memory, open, teleport, line closed, enough, failed: broken"},
		"converged early": {func(s *scene) { s.fails["progress"] = hypervisor.ErrConverged }, proceed,
			"want, catch-up, memory, open, teleport, carry, enough, failed: " + hypervisor.ErrConverged.Error()},
		"the disk can't be fenced": {func(s *scene) { s.fails["fence"] = broken }, proceed,
			"want, catch-up, memory, open, teleport, carry, hand-off, stop, release, fence, enough, failed: fence the disk: broken"},
		"ended before the last word": {func(s *scene) {}, func(g *Giver) { g.End(bg) },
			"want, catch-up, memory, open, teleport, carry, hand-off, stop, release, fence, drain to b, at switchover, enough, prepared 3/9, release, cancel, line closed"},
		"ended while memory flows": {func(s *scene) { s.left = s.left[:1] }, func(g *Giver) { g.End(bg) },
			"want, catch-up, memory, open, teleport, carry, enough, release, cancel, line closed"},
		"ended while the guest is being stopped": {func(s *scene) { s.hangs = "stop" }, func(g *Giver) { g.End(bg) },
			"want, catch-up, memory, open, teleport, carry, hand-off, stop, enough, release, cancel, line closed"},
		"abandoned": {func(s *scene) {}, func(g *Giver) { g.Abandon() },
			"want, catch-up, memory, open, teleport, carry, hand-off, stop, release, fence, drain to b, at switchover, enough, prepared 3/9, stream closed, line closed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := lively()
			c.change(s)
			got := s.give(t, c.until)
			if !slices.Equal(got, steps(c.want)) {
				t.Errorf("it was\n%s, not\n%s", strings.Join(got, ", "), c.want)
			}
		})
	}
}
