package custody_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"testing"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/disktest"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// note is a custody.Slot in memory.
type note struct{ b []byte }

func (n *note) Read() ([]byte, error) {
	if n.b == nil {
		return nil, fs.ErrNotExist
	}
	return n.b, nil
}
func (n *note) Write(b []byte) error { n.b = b; return nil }

// given is a VM that a gave to b, at a position that b's copy isn't at.
type given struct {
	giver   *directory.Directory
	t       *testing.T
	dir     *directory.Directory // b's
	aID     string
	ours    *vfs.Mem // a's disk
	mem     *vfs.Mem // b's copy
	note    *note
	lacking custody.Lacking
	pos     vmdisk.Position // b's copy's
	state   []byte
}

// give makes one: both have 1 in block 3, and then a wrote 2 to the blocks 10 to 13.
func give(t *testing.T) *given {
	a, b := open(t, "a", "b"), open(t, "b", "a")
	g := &given{t: t, giver: a, dir: b, mem: vfs.NewMem(), note: &note{}, state: []byte("state")}
	g.aID, _ = key("a")
	bID, _ := key("b")
	created, err := a.NewCreated(vmID)
	must(t, err)
	must(t, a.AppendTransfer(created))
	g.ours = vfs.NewMem()
	disk, err := vmdisk.Create("", vmdisk.ID{7}, blocks*vmdisk.Block, vmdisk.Options{FS: g.ours, BarrierEvery: -1, SaveEvery: -1})
	must(t, err)
	defer func() { must(t, disk.Close()) }()
	must(t, disk.Activate(1))
	must(t, disk.WriteAt(bytes.Repeat([]byte{1}, vmdisk.Block), 3*vmdisk.Block, true))
	replica, err := vmdisk.CreateReplica("", vmdisk.ID{7}, blocks*vmdisk.Block, g.options())
	must(t, err)
	follow(t, disk, replica, bID)
	g.pos = replica.Position()
	must(t, replica.Close())
	must(t, disk.WriteAt(bytes.Repeat([]byte{2}, 4*vmdisk.Block), 10*vmdisk.Block, true))
	must(t, disk.Fence())
	must(t, disk.Seal())
	sets, err := disk.ExportDirty()
	must(t, err)
	g.lacking = custody.Lacking{From: g.aID, Attempt: "try", Position: disk.Position(), Sets: sets}
	must(t, custody.Custody{VM: vmID, Self: g.aID, Dir: a, Disk: disk, Log: slog.New(slog.DiscardHandler)}.Given(custody.Giving{
		Term: 2, To: bID, Attempt: "try", Position: directory.Position(disk.Position()), Kind: directory.KindSwitch, State: g.state,
	}))
	meet(a, b, g.aID)
	return g
}

// follow brings a replica to where its owner is.
func follow(t *testing.T, d, r *vmdisk.Store, name string) {
	t.Helper()
	must(t, disktest.Follow(t.Context(), d, r, name))
}

func (g *given) options() vmdisk.Options {
	return vmdisk.Options{FS: g.mem, BarrierEvery: -1, SaveEvery: -1}
}

// open opens b's copy.
func (g *given) open() custody.Custody {
	g.t.Helper()
	disk, err := vmdisk.Open("", g.options())
	must(g.t, err)
	return g.with(disk)
}

func (g *given) with(disk *vmdisk.Store) custody.Custody {
	bID, _ := key("b")
	return custody.Custody{VM: vmID, Self: bID, Dir: g.dir, Disk: disk, Log: slog.New(slog.DiscardHandler), Lacking: g.note}
}

// check makes sure that an active disk is what b was given: at that position, with exactly what it lacks stale, and knowing where the giver is.
func (g *given) check(c custody.Custody) {
	g.t.Helper()
	info := c.Disk.Info()
	if !info.Active || info.Term != 2 || info.Position != g.lacking.Position || !info.Hydrating || info.Stale != 4*vmdisk.Block || info.Before != g.pos {
		g.t.Fatalf("the disk: %+v", info)
	}
	if !c.Disk.Stale(10*vmdisk.Block, vmdisk.Block) || c.Disk.Stale(3*vmdisk.Block, vmdisk.Block) {
		g.t.Fatal("other blocks are stale")
	}
	lag, ok := c.Disk.Lag(g.aID)
	if !ok || lag.Acked != g.lacking.Position || len(slices.Collect(func(yield func(uint64) bool) {
		for a := range lag.Runs() {
			if !yield(a) {
				return
			}
		}
	})) != 0 {
		g.t.Fatalf("it isn't known that the giver has everything: %+v, %v", lag, ok)
	}
	lag.Release()
}

// TestLackingSurvivesEveryCrash cuts the power, and kills the process, at every change that the taker makes to its files: whenever it is active
// afterwards it knows what it lacks, and whoever is asked to go on with it can.
func TestLackingSurvivesEveryCrash(t *testing.T) {
	g := give(t)
	c := g.open()
	must(t, c.Keep(g.lacking))
	if info := c.Disk.Info(); info.Hydrating || info.Position != g.pos {
		t.Fatalf("being told has changed the copy: %+v", info)
	}
	must(t, c.Owned(2, g.state))
	must(t, c.Disk.Close())
	start := g.mem
	for _, loss := range []vfs.Loss{vfs.LoseNothing, vfs.LoseUnsynced, vfs.LoseSome} {
		for n := 1; ; n++ {
			g.mem = start.Crash(vfs.LoseNothing, 1)
			c := g.open()
			g.mem.FailAt(n, vfs.ErrGone, true)
			err := c.Activate(2, nil)
			if err == nil {
				g.check(c)
			}
			g.mem = g.mem.Crash(loss, uint64(n))
			_ = c.Disk.Close() // its files are gone
			c = g.open()
			must(t, c.Resume(2)) // as a restarted engine does
			g.check(c)
			must(t, c.Disk.Close())
			if err == nil {
				t.Logf("%d changes", n-1)
				break
			}
		}
	}
}

// A copy that isn't where it was given, and wasn't told what it lacks by this very hand-off, is never written.
func TestUntoldIsRefused(t *testing.T) {
	g := give(t)
	c := g.open()
	defer func() { must(t, c.Disk.Close()) }()
	try := func(what string) {
		t.Helper()
		if err := c.Activate(2, &custody.Word{From: g.aID, Position: g.lacking.Position, Sets: g.lacking.Sets}); !errors.Is(err, custody.ErrUntold) {
			t.Errorf("%s: activated: %v", what, err)
		}
		if err := c.Resume(2); !errors.Is(err, custody.ErrUntold) {
			t.Errorf("%s: resumed: %v", what, err)
		}
		if err := c.Renew(2); !errors.Is(err, custody.ErrUntold) {
			t.Errorf("%s: renewed: %v", what, err)
		}
		if info := c.Disk.Info(); info.Active || info.Hydrating {
			t.Errorf("%s: %+v", what, info)
		}
	}
	must(t, c.Owned(2, g.state))
	try("nothing was told")
	for what, change := range map[string]func(l *custody.Lacking){
		"another attempt": func(l *custody.Lacking) { l.Attempt = "other" },
		"another giver":   func(l *custody.Lacking) { l.From = "c" },
	} {
		l := g.lacking
		change(&l)
		must(t, c.Keep(l))
		try(what)
	}
	must(t, c.Keep(g.lacking))
	whole := g.note.b
	g.note.b = slices.Clone(whole)
	g.note.b[len(whole)-1] ^= 1
	try("damaged")
	g.note.b = []byte("{}")
	try("another version")
	g.note.b = whole
	must(t, c.Activate(2, nil))
	g.check(c)
}

func TestKeepChecks(t *testing.T) {
	g := give(t)
	c := g.open()
	l := g.lacking
	l.Position.Barrier++
	if err := c.Keep(l); !errors.Is(err, custody.ErrUntold) {
		t.Errorf("another position: %v", err)
	}
	l = g.lacking
	l.Sets = slices.Clone(l.Sets)
	l.Sets[len(l.Sets)/2] ^= 1
	if err := c.Keep(l); !errors.Is(err, vmdisk.ErrMalformed) {
		t.Errorf("damaged: %v", err)
	}
	if _, err := g.note.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something was kept")
	}
	must(t, c.Disk.Close())
	g.mem = vfs.NewMem()
	disk, err := vmdisk.CreateReplica("", vmdisk.ID{7}, blocks*vmdisk.Block, g.options())
	must(t, err)
	if err := g.with(disk).Keep(g.lacking); !errors.Is(err, custody.ErrNoDisk) {
		t.Errorf("a copy that was never whole: %v", err)
	}
	must(t, disk.Close())
}

// A VM that was given onto a copy that isn't whole, and is given back before its guest ran: the copy is again what it was, through a crash in between,
// and one that was written can't be given.
func TestGivenBackBeforeItRan(t *testing.T) {
	for _, crash := range []bool{false, true} {
		for _, wrote := range []bool{false, true} {
			g := give(t)
			c := g.open()
			must(t, c.Keep(g.lacking))
			must(t, c.Owned(2, g.state))
			must(t, c.Activate(2, nil))
			if crash {
				g.mem = g.mem.Crash(vfs.LoseUnsynced, 1)
				_ = c.Disk.Close()
				c = g.open()
				must(t, c.Resume(2))
			}
			if wrote {
				must(t, c.Disk.WriteAt(bytes.Repeat([]byte{5}, vmdisk.Block), 0, true))
			}
			back := custody.Giving{Term: 3, To: g.aID, Attempt: "try", Position: directory.Position(g.lacking.Position), Kind: directory.KindReturned, State: g.state}
			err := c.Given(back)
			info := c.Disk.Info()
			switch {
			case wrote && (!errors.Is(err, vmdisk.ErrHydrating) || !info.Hydrating):
				t.Errorf("crash %v: what was written was given back: %v, %+v", crash, err, info)
			case !wrote && (err != nil || info.Hydrating || info.Active || info.Position != g.pos || info.Given < 2):
				t.Errorf("crash %v: given back: %v, %+v", crash, err, info)
			}
			must(t, c.Disk.Close())
		}
	}
}

// An owner that still lacks blocks may be taken over from, and keep its side: what is stale in it is as it was when it was given, all the same.
func TestWhatIsKeptWasGiven(t *testing.T) {
	g := give(t)
	c := g.open()
	defer func() { must(t, c.Disk.Close()) }()
	must(t, c.Keep(g.lacking))
	must(t, c.Owned(2, g.state))
	must(t, c.Activate(2, nil))
	at, ok := c.HandedAt(2)
	if !ok || at != g.lacking.Position {
		t.Fatalf("it was given at %v, %v", at, ok)
	}
	_, err := g.giver.TakeOver(vmID, g.giver.Heads(vmID)[0].Hash(), directory.Position(g.pos))
	must(t, err)
	meet(g.giver, g.dir, g.aID)
	term, err := c.Kept(g.state)
	must(t, err)
	if term <= 2 {
		t.Fatalf("kept under term %d", term)
	}
	if at, ok := c.HandedAt(term); !ok || at != g.lacking.Position {
		t.Errorf("under what it kept: %v, %v", at, ok)
	}
	if _, ok := c.HandedTo(term, g.aID); ok {
		t.Error("the giver counts as who was given it")
	}
}
