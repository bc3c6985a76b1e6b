package custody_test

import (
	"log/slog"
	"testing"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// TestChosenBeforeItWasTaken: b was about to get the VM from a, and knew what it lacks of it, when it heard of d's takeover; it kept what it had, of which a
// has more. The person chooses what a gave to b: b goes on with that, though it never took it, if it can.
func TestChosenBeforeItWasTaken(t *testing.T) {
	g := give(t)
	a, b, d := g.giver, g.dir, open(t, "d", "a")
	bID, _ := key("b")
	dID, _ := key("d")
	for _, dir := range []*directory.Directory{a, b} {
		must(t, dir.AddMember(directory.Member{ID: dID, Name: "d"}))
	}
	must(t, d.AddMember(directory.Member{ID: bID, Name: "b"}))
	created, ok := a.Transfer(vmID, 1)
	if !ok {
		t.Fatal("there is no VM")
	}
	must(t, d.AppendTransfer(created))
	taken, err := d.TakeOver(vmID, created.Hash(), directory.Position{})
	must(t, err)
	meet(d, a, dID)

	c := g.open()
	m := baton.NewReplica(baton.Config{})
	drive(t, m, baton.Event{Kind: baton.EvWant, Peer: g.aID, Ask: "ask"}, baton.Event{Kind: baton.EvPeerOffer, Peer: g.aID, Ask: "ask", Attempt: "try", Term: 1})
	// It has the takeover, but not the transfer: that comes too late.
	early := open(t, "b", "a")
	must(t, early.AddMember(directory.Member{ID: dID, Name: "d"}))
	must(t, early.AppendTransfer(created))
	must(t, early.AppendTransfer(taken))
	c.Dir = early
	ev, news := c.News(m)
	if !news || ev.Kind != baton.EvSuperseded || ev.Peer != dID {
		t.Fatalf("it is told %+v, %v", ev, news)
	}
	drive(t, m, ev, baton.Event{Kind: baton.EvJudged, Term: ev.Term, Newer: true})
	if _, err := c.Kept(m.Encode()); err != nil {
		t.Fatal(err)
	}
	drive(t, m, baton.Event{Kind: baton.EvPersisted, Term: ev.Term})
	meet(early, a, bID)

	keptA, err := a.Keep(vmID, created.Hash(), directory.Position(g.lacking.Position))
	must(t, err)
	var given directory.SignedTransfer
	var over []directory.Hash
	for _, h := range a.Heads(vmID) {
		if h.Kind == directory.KindSwitch {
			given = h
		} else {
			over = append(over, h.Hash())
		}
	}
	if given.To != bID || len(over) != 2 {
		t.Fatalf("the sides are %d, and what a gave is of %q; a kept term %d", len(over)+1, given.To, keptA.Term)
	}
	chosen, err := a.Resolve(vmID, given.Hash(), over, given.Position, "keep", "")
	must(t, err)
	meet(a, early, g.aID)

	// Without what the giver told it can't, and stays as it is.
	if ev, news := c.News(m); news && ev.Mine {
		t.Fatalf("with a copy of %s it is told %+v", c.Disk.Position(), ev)
	}
	must(t, c.Keep(g.lacking))
	ev, news = c.News(m)
	if !news || ev.Kind != baton.EvChosen || !ev.Mine || ev.Term != chosen.Term {
		t.Fatalf("in %s it is told %+v, %v", m.State(), ev, news)
	}
	drive(t, m, ev)
	must(t, c.Owned(ev.Term, m.Encode()))
	drive(t, m, baton.Event{Kind: baton.EvPersisted, Term: ev.Term})
	must(t, c.Activate(ev.Term, nil))
	if info := c.Disk.Info(); m.State() != baton.Owned || info.Term != chosen.Term || info.Position != g.lacking.Position || info.Stale != 4*vmdisk.Block {
		t.Fatalf("it is %s, with %+v", m.State(), info)
	}
	must(t, c.Disk.Close())

	// A device with no copy at all doesn't.
	none := custody.Custody{VM: vmID, Self: bID, Dir: early, Log: slog.New(slog.DiscardHandler)}
	other := baton.NewReplica(baton.Config{})
	if ev, news := none.News(other); news {
		t.Fatalf("without a disk it is told %+v", ev)
	}
}
