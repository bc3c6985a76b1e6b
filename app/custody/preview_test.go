package custody_test

import (
	"log/slog"
	"testing"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// TestPreviewOfAnotherSide asks what a takeover would mean where the disk is of the side that was given up. Its position has the higher
// number, since a takeover's term is a large one, and must not count as one that has everything.
func TestPreviewOfAnotherSide(t *testing.T) {
	a, b := open(t, "a", "b"), open(t, "b", "a")
	aID, _ := key("a")
	bID, _ := key("b")
	created, err := a.NewCreated(vmID)
	must(t, err)
	must(t, a.AppendTransfer(created))
	disk, err := vmdisk.CreateReplica("", vmdisk.NewID(), blocks*vmdisk.Block, vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1})
	must(t, err)
	defer func() { must(t, disk.Close()) }()
	must(t, a.PutVM(directory.VM{ID: vmID, Name: "Work", Disk: disk.ID().String(), DiskBytes: blocks * vmdisk.Block}))
	told := directory.Position{Term: 1, Barrier: 9}
	must(t, a.PutReplica(vmID, bID, directory.ReplicaInfo{Position: told, Of: told, Complete: true}, nil))
	meet(a, b, aID)

	c := custody.Custody{VM: vmID, Self: bID, Dir: b, Disk: disk, Log: slog.New(slog.DiscardHandler)}
	if _, err := c.Preview(); err == nil {
		t.Fatal("a takeover with half a copy")
	}
	at := func(p directory.Position) {
		t.Helper()
		app, err := disk.Apply()
		must(t, err)
		if !disk.Info().Complete {
			must(t, app.Begin([16]byte{1}))
		}
		must(t, app.Barrier(vmdisk.Position(p)))
		must(t, app.Close())
	}
	at(directory.Position{Term: 1, Barrier: 8})
	if p, err := c.Preview(); err != nil || p.Missing == nil || *p.Missing != 0 || p.Position.Barrier != 8 || p.Latest != told {
		t.Fatalf("at 1/8 of 1/9: %+v, %v", p, err)
	}
	at(directory.Position{Term: 1, Barrier: 10}) // it came after the telling
	if p, err := c.Preview(); err != nil || p.Missing == nil || *p.Missing != 0 || p.Latest != p.Position {
		t.Fatalf("at 1/10 of 1/9: %+v, %v", p, err)
	}
	// Somebody takes over at 1/5, and the copy here gets what is written there; then the person goes on with a's.
	taken, err := b.TakeOver(vmID, created.Hash(), directory.Position{Term: 1, Barrier: 5})
	must(t, err)
	at(directory.Position{Term: taken.Term, Barrier: 3})
	meet(b, a, bID)
	kept, err := a.Keep(vmID, created.Hash(), told)
	must(t, err)
	_, err = a.Resolve(vmID, kept.Hash(), []directory.Hash{taken.Hash()}, told, "keep", "")
	must(t, err)
	must(t, a.PutVM(directory.VM{ID: vmID, Name: "Work", Disk: disk.ID().String(), DiskBytes: blocks * vmdisk.Block}))
	meet(a, b, aID)
	if heads := b.Heads(vmID); len(heads) != 1 || heads[0].To != aID {
		t.Fatalf("%d heads", len(heads))
	}
	if p, err := c.Preview(); err != nil || p.Missing != nil || p.Certain || p.Latest == p.Position && p.Better != "" {
		t.Fatalf("at a position of the side that was given up: %+v, %v", p, err)
	}
}
