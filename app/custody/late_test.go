package custody_test

import (
	"log/slog"
	"slices"
	"testing"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// drive lets a machine hear events, of which none may be wrong.
func drive(t *testing.T, m *baton.Machine, evs ...baton.Event) {
	t.Helper()
	for _, ev := range evs {
		if _, err := m.Step(ev); err != nil {
			t.Fatalf("%s: %v", ev.Kind, err)
		}
	}
}

// TestWhatIsGivenBackInVain: a device hears of its transfer only when the VM was taken over and its giver has kept its side. It can't sign any more
// that it sends it back. It is superseded then, and goes on if the person chooses the side that it was given.
func TestWhatIsGivenBackInVain(t *testing.T) {
	a, b, d, created := three(t)
	aID, _ := key("a")
	bID, _ := key("b")
	dID, _ := key("d")
	given, err := a.NewTransfer(vmID, bID, "attempt", directory.Position{Term: 1, Barrier: 5}, directory.KindSwitch)
	must(t, err)
	must(t, a.AppendTransfer(given))
	taken, err := d.TakeOver(vmID, created.Hash(), directory.Position{Term: 1, Barrier: 2})
	must(t, err)
	meet(d, a, dID)
	meet(a, b, aID)
	if head := b.Heads(vmID)[0]; head.Hash() != taken.Hash() {
		t.Fatalf("the preferred head is %s of %s", head.Kind, head.To)
	}

	m := baton.NewReplica(baton.Config{})
	drive(t, m, baton.Event{
		Kind: baton.EvPeerTransfer, Peer: aID, Attempt: "attempt", Term: 2, Position: baton.Position{Term: 1, Barrier: 5}, Live: true, GuestHeld: true,
	}, baton.Event{Kind: baton.EvPersisted, Term: 2})
	c := custody.Custody{VM: vmID, Self: bID, Dir: b, Log: slog.New(slog.DiscardHandler)}
	if err := c.Given(custody.Giving{Term: 3, To: aID, Attempt: "attempt", Position: given.Position, Kind: directory.KindReturned}); err == nil {
		t.Fatal("it can be given back")
	}
	drive(t, m, baton.Event{Kind: baton.EvPersistFailed, Term: 3, NotWritten: true})
	if m.State() != baton.Giving {
		t.Fatalf("it is %s", m.State())
	}
	ev, news := c.News(m)
	if !news || ev.Kind != baton.EvSuperseded || ev.Term != taken.Term {
		t.Fatalf("it is told %+v, %v", ev, news)
	}
	drive(t, m, ev)
	if m.State() != baton.Ousted {
		t.Fatalf("it is %s", m.State())
	}

	meet(a, d, aID)
	chosen, err := d.Resolve(vmID, given.Hash(), []directory.Hash{taken.Hash()}, directory.Position{}, "keep", "")
	must(t, err)
	meet(d, b, dID)
	if ev, news = c.News(m); !news || ev.Kind != baton.EvChosen || !ev.Mine || ev.Term != chosen.Term {
		t.Fatalf("it is told %+v, %v", ev, news)
	}
}

// TestAChoiceBesideIsHeeded: two devices choose the same third one's side, apart. The choice that doesn't count is heeded as well, once the owner
// says that it knows it.
func TestAChoiceBesideIsHeeded(t *testing.T) {
	a, b, d, created := three(t)
	aID, _ := key("a")
	bID, _ := key("b")
	dID, _ := key("d")
	must(t, b.AddMember(directory.Member{ID: dID, Name: "d"}))
	at := directory.Position{Term: 1, Barrier: 1}
	taken, err := d.TakeOver(vmID, created.Hash(), at)
	must(t, err)
	meet(d, a, dID)
	meet(d, b, dID)
	keptA, err := a.Keep(vmID, created.Hash(), directory.Position{Term: 1, Barrier: 2})
	must(t, err)
	keptB, err := b.Keep(vmID, created.Hash(), directory.Position{Term: 1, Barrier: 3})
	must(t, err)
	byA, err := a.Resolve(vmID, taken.Hash(), []directory.Hash{keptA.Hash()}, at, "keep", "")
	must(t, err)
	byB, err := b.Resolve(vmID, taken.Hash(), []directory.Hash{keptB.Hash()}, at, "keep", "")
	must(t, err)
	loser, winner, self, selfID, otherID := byA, byB, a, aID, bID
	if byA.Term > byB.Term {
		loser, winner, self, selfID, otherID = byB, byA, b, bID, aID
	}
	meet(a, b, aID)
	meet(b, a, bID)
	record := directory.VM{ID: vmID, Name: "Work", Disk: vmdisk.NewID().String(), DiskBytes: blocks * vmdisk.Block}
	c := custody.Custody{VM: vmID, Self: selfID, Dir: self}
	counts := map[string]*directory.Directory{aID: a, bID: b}[otherID]

	// The owner hears of the choice that counts first, and says so.
	var keys []string
	for k := range counts.Digest() {
		keys = append(keys, k)
	}
	for range keys {
		for _, r := range counts.Get(keys) {
			if tr, ok := counts.Transfer(vmID, loser.Term); !ok || !slices.Equal(r.Sig, tr.Record.Sig) {
				_ = d.Apply(otherID, r)
			}
		}
	}
	if _, ok := d.Transfer(vmID, loser.Term); ok {
		t.Fatal("d knows the other choice already")
	}
	must(t, d.PutVM(record))
	meet(d, self, dID)
	if vm, _ := self.VM(vmID); vm.Term != winner.Term || vm.Written != winner.Term {
		t.Fatalf("it is of term %d, written %d", vm.Term, vm.Written)
	}
	if c.Heeded(loser) {
		t.Fatal("d doesn't know that choice, and may choose what it gave up")
	}
	meet(self, d, selfID)
	if vm, ok := d.VM(vmID); !ok || len(vm.Heeds) != 0 || !slices.Equal(d.Heeds(vmID), []uint64{loser.Term}) {
		t.Fatalf("it heeds %v, and says %v", d.Heeds(vmID), vm.Heeds)
	}
	must(t, d.PutVM(record))
	meet(d, self, dID)
	if !c.Heeded(loser) {
		t.Fatal("the owner has said that it knows that choice")
	}
}

// TestATermOfAnotherSide: a copy gave away the terms of a side that lost. It may be handed the VM at a position of the winner's, of a lower term.
func TestATermOfAnotherSide(t *testing.T) {
	disk, err := vmdisk.CreateReplica("", vmdisk.NewID(), blocks*vmdisk.Block, vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1})
	must(t, err)
	defer func() { must(t, disk.Close()) }()
	ap, err := disk.Apply()
	must(t, err)
	must(t, ap.Begin([16]byte{1}))
	must(t, ap.Barrier(vmdisk.Position{Term: 2, Barrier: 10}))
	must(t, ap.Close())
	must(t, disk.Give(300))
	at := vmdisk.Position{Term: 3, Barrier: 13}
	must(t, disk.SetStale(nil, at))
	if got := disk.Position(); got != at {
		t.Fatalf("it is at %s", got)
	}
	if err := disk.Activate(300); err == nil {
		t.Fatal("it is active under a term that it gave away")
	}
	must(t, disk.Activate(301))
}
