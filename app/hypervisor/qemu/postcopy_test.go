package qemu

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qmp"
)

// valve carries a memory stream by small pieces, so that a test can end it before all of the memory has passed.
type valve struct {
	from, to io.ReadWriteCloser
	mu       sync.Mutex // held while a piece passes
	shut     bool
	group    sync.WaitGroup
}

func through(from, to io.ReadWriteCloser) *valve {
	v := &valve{from: from, to: to}
	v.group.Go(func() {
		b := make([]byte, 1024)
		for {
			n, err := from.Read(b)
			v.mu.Lock()
			shut := v.shut
			if n > 0 && !shut {
				_, _ = to.Write(b[:n])
			}
			v.mu.Unlock()
			if err != nil || shut {
				return
			}
		}
	})
	v.group.Go(func() { _, _ = io.Copy(from, to) })
	return v
}

// cut ends it as a broken line does: what has left the giver's QEMU and isn't there yet is lost.
func (v *valve) cut() {
	v.mu.Lock()
	v.shut = true
	v.mu.Unlock()
	v.from.Close()
	v.to.Close()
	v.group.Wait()
}

// slowly passes little a second. An empty page takes nine bytes of the stream, and apartKiB more than half a megabyte: so the memory's end doesn't come
// before a test has looked, however long that takes, once it is nearly still.
type slowly struct {
	io.ReadWriteCloser
	still *atomic.Bool
}

func (s slowly) Read(p []byte) (int, error) {
	wait := 10 * time.Millisecond
	if s.still.Load() {
		wait = 500 * time.Millisecond
	}
	time.Sleep(wait)
	return s.ReadWriteCloser.Read(p[:min(len(p), 1024)])
}

// apartKiB is the memory of a guest that goes ahead of it.
const apartKiB = 256<<10 - 64

// apart brings a guest to where it could run at the taker and lacks most of its memory.
func apart(t *testing.T, ctx context.Context) (giver, taker hypervisor.PostCopier, out hypervisor.OutgoingApart, line *valve) {
	t.Helper()
	q := &QEMU{Accel: "tcg"}
	a := testConfig(t)
	a.MemoryKiB = apartKiB
	b := a
	b.Dir = t.TempDir()
	giver = start(t, ctx, q, a, false).(hypervisor.PostCopier)
	taker = start(t, ctx, q, b, true).(hypervisor.PostCopier)
	in, err := taker.IncomingApart(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if out, err = giver.TeleportApart(ctx); err != nil {
		t.Fatal(err)
	}
	var still atomic.Bool
	line = through(slowly{out.Stream(), &still}, in)
	if err := giver.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := out.GoAhead(ctx); err != nil {
		t.Fatal(err)
	}
	if err := out.AtSwitchover(ctx); err != nil {
		t.Fatal(err)
	}
	if err := out.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if is, err := taker.LoadedApart(ctx); err != nil || !is {
		t.Fatalf("loaded: apart %v, %v", is, err)
	}
	still.Store(true)
	wantState(t, ctx, taker, hypervisor.StatePaused)
	return giver, taker, out, line
}

func wantApart(t *testing.T, ctx context.Context, g hypervisor.PostCopier, side hypervisor.Side, broken bool) {
	t.Helper()
	eventually(t, ctx, "the memory to be "+string(side), func() bool {
		a, err := g.Apart(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return a.Side == side && a.Broken == broken
	})
}

// TestTheRestComesLater has a guest go ahead of its memory, twice loses the line, and has the rest of the memory come over new ones, of which the last
// is found by an engine that was started anew.
func TestTheRestComesLater(t *testing.T) {
	ctx := testContext(t)
	giver, taker, out, line := apart(t, ctx)
	if err := taker.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		line.cut()
		out.Sever()
		wantApart(t, ctx, giver, hypervisor.Left, true)
		if a, err := giver.Apart(ctx); err != nil || a.Remaining == 0 {
			t.Fatalf("the giver's side: %+v, %v", a, err)
		}
		if err := giver.Settle(ctx); !errors.Is(err, hypervisor.ErrApart) {
			t.Fatalf("a teleport that can go on was ended: %v", err)
		}
		rest, err := taker.TakeRest(ctx)
		if err != nil {
			t.Fatal(err)
		}
		from, err := giver.SendRest(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var still atomic.Bool
		line = through(slowly{from, &still}, rest)
		wantApart(t, ctx, giver, hypervisor.Left, false)
		still.Store(true)
	}
	line.cut()
	again := &QEMU{Accel: "tcg"}
	found, err := again.Find(ctx, giver.(*guest).cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = found.Close()
	rest, err := taker.TakeRest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	from, err := giver.SendRest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	line = through(from, rest)
	if err := taker.AwaitWhole(ctx); err != nil {
		t.Fatal(err)
	}
	line.group.Wait()
	wantApart(t, ctx, giver, hypervisor.Whole, false)
	wantState(t, ctx, taker, hypervisor.StateRunning)
	if s, err := giver.State(ctx); err != nil || s == hypervisor.StateRunning {
		t.Fatalf("the giver's guest is %s, %v", s, err)
	}
	if err := taker.Settle(ctx); err != nil {
		t.Errorf("the taker's teleport can't be settled: %v", err)
	}
}

// TestItStaysWhereItsMemoryIs calls a teleport off when the guest could go ahead, and hasn't.
func TestItStaysWhereItsMemoryIs(t *testing.T) {
	ctx := testContext(t)
	giver, _, out, line := apart(t, ctx)
	// The line is lost first: QEMU must not notice.
	line.cut()
	if err := out.Cancel(ctx); err != nil {
		t.Fatal(err)
	}
	wantApart(t, ctx, giver, hypervisor.Whole, false)
	if err := giver.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	wantState(t, ctx, giver, hypervisor.StateRunning)
}

// TestItIsCalledBackByALaterEngine: the engine dies after the last of the devices' state, and the taker never let the guest go on. The next engine has it go on where it was.
func TestItIsCalledBackByALaterEngine(t *testing.T) {
	ctx := testContext(t)
	giver, _, out, line := apart(t, ctx)
	line.cut()
	out.Sever()
	if err := giver.Close(); err != nil { // so does the end of the engine
		t.Fatal(err)
	}
	found, err := (&QEMU{Accel: "tcg"}).Find(ctx, giver.(*guest).cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	later := found.(hypervisor.PostCopier)
	if err := later.Settle(ctx); !errors.Is(err, hypervisor.ErrApart) {
		t.Fatalf("it was ended without the word that the taker never ran: %v", err)
	}
	if err := later.CallBack(ctx); err != nil {
		t.Fatal(err)
	}
	wantApart(t, ctx, later, hypervisor.Whole, false)
	if err := later.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	wantState(t, ctx, later, hypervisor.StateRunning)
}

// TestABusyTakerIsOfferedTheRest: QEMU's main loop waits for a page, and the engine that carried the memory is gone. It hears no new client, and takes the rest all the same.
func TestABusyTakerIsOfferedTheRest(t *testing.T) {
	ctx := testContext(t)
	giver, taker, out, line := apart(t, ctx)
	if err := taker.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	line.cut()
	out.Sever()
	// Its main loop reads memory that isn't there, from when it has opened the file on.
	file := filepath.Join(taker.(*guest).cfg.Dir, "memory")
	read := make(chan error, 1)
	go func() {
		read <- taker.(*guest).qmp.Do(ctx, "pmemsave", map[string]any{"val": 0, "size": apartKiB << 10, "filename": file}, nil)
	}()
	eventually(t, ctx, "QEMU to read its memory", func() bool { return exists(file) })
	if err := taker.Close(); err != nil { // so does the end of the engine
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, qmp.ErrClosed) {
		t.Fatalf("reading memory that isn't there: %v", err)
	}
	found, err := (&QEMU{Accel: "tcg"}).Find(ctx, taker.(*guest).cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	later := found.(hypervisor.PostCopier)
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if a, err := later.Apart(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a QEMU whose main loop waits says %+v, %v", a, err)
	}
	rest, err := later.TakeRest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	from, err := giver.SendRest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	line = through(from, rest)
	if err := later.AwaitWhole(ctx); err != nil {
		t.Fatal(err)
	}
	line.group.Wait()
	wantApart(t, ctx, giver, hypervisor.Whole, false)
	wantState(t, ctx, later, hypervisor.StateRunning)
}
