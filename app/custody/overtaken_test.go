package custody_test

import (
	"errors"
	"log/slog"
	"slices"
	"testing"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// replicaAt is a device's whole copy at a position.
func replicaAt(t *testing.T, id vmdisk.ID, at vmdisk.Position) *vmdisk.Store {
	t.Helper()
	disk, err := vmdisk.CreateReplica("", id, blocks*vmdisk.Block, vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1})
	must(t, err)
	t.Cleanup(func() { must(t, disk.Close()) })
	ap, err := disk.Apply()
	must(t, err)
	must(t, ap.Begin([16]byte{1}))
	must(t, ap.Barrier(at))
	must(t, ap.Close())
	return disk
}

// TestAChoiceCrossesAHandOff: d took the VM over from a, and gives it to b while the person chooses d's side on a, which so gives up all terms below
// the choice's. b repeats the choice: nobody's numbers are above the owner's then.
func TestAChoiceCrossesAHandOff(t *testing.T) {
	a, b, d := open(t, "a", "b"), open(t, "b", "a"), open(t, "d", "a")
	aID, _ := key("a")
	bID, _ := key("b")
	dID, _ := key("d")
	for _, dir := range []*directory.Directory{a, b} {
		must(t, dir.AddMember(directory.Member{ID: dID, Name: "d"}))
	}
	must(t, d.AddMember(directory.Member{ID: bID, Name: "b"}))
	created, err := a.NewCreated(vmID)
	must(t, err)
	must(t, a.AppendTransfer(created))
	meet(a, b, aID)
	meet(a, d, aID)
	taken, err := d.TakeOver(vmID, created.Hash(), directory.Position{Term: 1, Barrier: 2})
	must(t, err)
	meet(d, a, dID)
	kept, err := a.Keep(vmID, created.Hash(), directory.Position{Term: 1, Barrier: 5})
	must(t, err)
	at := directory.Position{Term: taken.Term, Barrier: 3}
	given, err := d.Give(vmID, taken.Term+1, bID, "attempt", at, directory.KindSwitch)
	must(t, err)
	meet(d, b, dID)
	chosen, err := a.Resolve(vmID, taken.Hash(), []directory.Hash{kept.Hash()}, directory.Position{Term: 1, Barrier: 2}, "both", "Work 2")
	must(t, err)
	if chosen.Term < given.Term {
		t.Fatal("the choice is below the hand-off")
	}

	id := vmdisk.NewID()
	mb := baton.NewReplica(baton.Config{})
	cb := custody.Custody{VM: vmID, Self: bID, Dir: b, Disk: replicaAt(t, id, vmdisk.Position(at)), Log: slog.New(slog.DiscardHandler)}
	drive(t, mb, baton.Event{Kind: baton.EvPeerTransfer, Peer: dID, Attempt: "attempt", Term: given.Term, Position: baton.Position(at)})
	meet(a, b, aID)
	if signed, err := cb.Repeat(mb); signed || err != nil {
		t.Fatalf("while it is being taken: %v, %v", signed, err)
	}
	drive(t, mb, baton.Event{Kind: baton.EvPersisted, Term: given.Term})
	must(t, cb.Activate(given.Term, nil))

	// Where the choice was made, the side is set aside, and stands still: the owner has a lower number.
	meet(d, a, dID)
	meet(b, a, bID)
	da := replicaAt(t, id, vmdisk.Position{Term: 1, Barrier: 5})
	ca := custody.Custody{VM: vmID, Self: aID, Dir: a, Disk: da, Log: slog.New(slog.DiscardHandler)}
	ma, err := baton.NewOwner(baton.Config{}, 1)
	must(t, err)
	drive(t, ma, baton.Event{Kind: baton.EvSuperseded, Peer: dID, Term: taken.Term}, baton.Event{Kind: baton.EvJudged, Term: taken.Term, Newer: true},
		baton.Event{Kind: baton.EvPersisted, Term: taken.Term})

	signed, err := cb.Repeat(mb)
	must(t, err)
	ev, news := cb.News(mb)
	if !signed || !news || ev.Kind != baton.EvChosen || !ev.Mine || ev.Term <= chosen.Term {
		t.Fatalf("signed: %v; told %+v, %v", signed, ev, news)
	}
	if signed, err := cb.Repeat(mb); signed || err != nil {
		t.Fatalf("once more: %v, %v", signed, err)
	}
	drive(t, mb, ev, baton.Event{Kind: baton.EvPersisted, Term: ev.Term})
	must(t, cb.Renew(ev.Term))
	if mb.State() != baton.Owned || mb.Term() != ev.Term || cb.Disk.Info().Term != ev.Term {
		t.Fatalf("it is %s of term %d, its disk of %d", mb.State(), mb.Term(), cb.Disk.Info().Term)
	}
	must(t, b.PutVM(directory.VM{ID: vmID, Name: "Work", Disk: id.String(), DiskBytes: blocks * vmdisk.Block}))
	if vm, _ := b.VM(vmID); !slices.Equal(vm.Heeds, []uint64{chosen.Term}) {
		t.Fatalf("the owner heeds %v", vm.Heeds)
	}

	// The one who gave it sees that it was taken.
	md, err := baton.NewOwner(baton.Config{}, taken.Term)
	must(t, err)
	drive(t, md, baton.Event{Kind: baton.EvPeerAsk, Peer: bID, Ask: "ask", Attempt: "attempt"}, baton.Event{Kind: baton.EvPeerReady, Peer: bID, Attempt: "attempt"},
		baton.Event{Kind: baton.EvPeerLoaded, Peer: bID, Attempt: "attempt"}, baton.Event{Kind: baton.EvPrepared, Attempt: "attempt", Position: baton.Position(at)},
		baton.Event{Kind: baton.EvPersisted, Term: given.Term})
	meet(a, d, aID)
	meet(b, d, bID)
	cd := custody.Custody{VM: vmID, Self: dID, Dir: d, Log: slog.New(slog.DiscardHandler)}
	if got, news := cd.News(md); md.State() != baton.Given || !news || got.Kind != baton.EvPeerActive || got.Peer != bID || got.Term != given.Term {
		t.Fatalf("in %s the giver is told %+v, %v", md.State(), got, news)
	}

	// The side is set aside by the choice that the person made, and what the owner writes is above it.
	meet(b, a, bID)
	got, news := ca.News(ma)
	if !news || got.Kind != baton.EvChosen || got.Mine || got.Term != chosen.Term || got.Peer != bID {
		t.Fatalf("where it was chosen it is told %+v, %v", got, news)
	}
	must(t, ca.Yield(got.Term))
	ap, err := da.Apply()
	must(t, err)
	if err := ap.Barrier(vmdisk.Position{Term: given.Term, Barrier: 9}); !errors.Is(err, vmdisk.ErrOldTerm) {
		t.Fatalf("a term that was given up is taken: %v", err)
	}
	must(t, ap.Close())
	ap, err = da.Apply()
	must(t, err)
	must(t, ap.Barrier(vmdisk.Position{Term: ev.Term, Barrier: 10}))
	must(t, ap.Close())
}
