package custody_test

import (
	"log/slog"
	"testing"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// vain is a hand-off that d's takeover has overtaken: a, which has stopped the VM's guest and given all that it wrote to b, hears of it.
type vain struct {
	*given
	d     *directory.Directory
	dID   string
	taken directory.SignedTransfer
}

func inVain(t *testing.T) (v vain, c custody.Custody) {
	t.Helper()
	v = vain{given: give(t), d: open(t, "d", "a")}
	v.dID, _ = key("d")
	bID, _ := key("b")
	must(t, v.giver.AddMember(directory.Member{ID: v.dID, Name: "d"}))
	must(t, v.dir.AddMember(directory.Member{ID: v.dID, Name: "d"}))
	must(t, v.d.AddMember(directory.Member{ID: bID, Name: "b"}))
	created, ok := v.giver.Transfer(vmID, 1)
	if !ok {
		t.Fatal("there is no VM")
	}
	must(t, v.d.AppendTransfer(created))
	var err error
	v.taken, err = v.d.TakeOver(vmID, created.Hash(), directory.Position(v.pos))
	must(t, err)
	disk, err := vmdisk.Open("", vmdisk.Options{FS: v.ours, BarrierEvery: -1, SaveEvery: -1})
	must(t, err)
	t.Cleanup(func() { must(t, disk.Close()) })
	return v, custody.Custody{VM: vmID, Self: v.aID, Dir: v.giver, Disk: disk, Log: slog.New(slog.DiscardHandler)}
}

// TestWhatNobodyTookIsKept: b never heard that it was given the VM. What a gave it, flushed as it is, is on a alone: a keeps it as a side of its own, and makes a
// restore point of it when the person gives that up. Where b has shown that it has the VM, a's copy is only a copy.
func TestWhatNobodyTookIsKept(t *testing.T) {
	v, c := inVain(t)
	meet(v.d, v.giver, v.dID)
	if s := c.Stand(); s != custody.OtherSide {
		t.Fatalf("it is %q", s)
	}
	if newer, known := c.Judge(2, false); !newer || !known {
		t.Fatalf("judged newer %v, known %v", newer, known)
	}
	term, err := c.Kept([]byte("state"))
	must(t, err)
	heads := v.giver.Heads(vmID)
	if len(heads) != 3 || heads[0].Hash() != v.taken.Hash() || c.Stand() != custody.Own {
		t.Fatalf("%d sides, and what is kept is %q", len(heads), c.Stand())
	}
	var over []directory.Hash
	kept := false
	for _, h := range heads[1:] {
		over = append(over, h.Hash())
		kept = kept || h.Term == term && h.To == v.aID && h.Position == directory.Position(v.lacking.Position)
	}
	if !kept {
		t.Fatalf("what a kept as %d isn't a side", term)
	}
	_, err = v.giver.Resolve(vmID, v.taken.Hash(), over, v.taken.Position, "keep", "")
	must(t, err)
	if s := c.Stand(); s != custody.GivenUp {
		t.Fatalf("after the choice it is %q", s)
	}
}

func TestWhatWasTakenIsOnlyACopy(t *testing.T) {
	v, c := inVain(t)
	must(t, v.dir.PutVM(directory.VM{ID: vmID, Name: "Work", Disk: vmdisk.ID{7}.String(), DiskBytes: blocks * vmdisk.Block}))
	bID, _ := key("b")
	meet(v.dir, v.giver, bID)
	meet(v.d, v.giver, v.dID)
	if s := c.Stand(); s != custody.OtherSide {
		t.Fatalf("it is %q", s)
	}
	if newer, known := c.Judge(2, false); newer || !known {
		t.Fatalf("judged newer %v, known %v", newer, known)
	}
}

// TestGivenUpBeforeTheGiverHeard: when a hears of the takeover the person has already chosen it over what a gave. It makes a restore point of that, once the
// choice is heeded.
func TestGivenUpBeforeTheGiverHeard(t *testing.T) {
	v, c := inVain(t)
	m, err := baton.NewOwner(baton.Config{}, 1)
	must(t, err)
	bID, _ := key("b")
	drive(t, m,
		baton.Event{Kind: baton.EvPeerAsk, Peer: bID, Ask: "ask", Attempt: "try"}, baton.Event{Kind: baton.EvPeerReady, Peer: bID, Attempt: "try"},
		baton.Event{Kind: baton.EvPeerLoaded, Peer: bID, Attempt: "try"},
		baton.Event{Kind: baton.EvPrepared, Attempt: "try", Position: baton.Position(v.lacking.Position)}, baton.Event{Kind: baton.EvPersisted, Term: 2})
	if m.State() != baton.Given {
		t.Fatalf("it is %s", m.State())
	}
	meet(v.giver, v.d, v.aID)
	given := v.d.Heads(vmID)[1]
	chosen, err := v.d.Resolve(vmID, v.taken.Hash(), []directory.Hash{given.Hash()}, v.taken.Position, "keep", "")
	must(t, err)
	meet(v.d, v.giver, v.dID)
	if s := c.Stand(); s != custody.GivenUp {
		t.Fatalf("it is %q", s)
	}
	ev, news := c.News(m)
	if !news || ev.Kind != baton.EvChosen || ev.Mine || ev.Term != chosen.Term {
		t.Fatalf("it is told %+v, %v", ev, news)
	}
	acts, err := m.Step(ev)
	must(t, err)
	if n := len(acts); n == 0 || acts[n-1].Kind != baton.ActSetAside {
		t.Fatalf("it does %+v", acts)
	}
}

// TestWhatTheChosenSideHadIsNotGivenUp: two sides have the same, one of them is chosen, and goes back behind it by the person's word. What another device still has
// of it is beyond the history then, and isn't taken for what was given up with the other side.
func TestWhatTheChosenSideHadIsNotGivenUp(t *testing.T) {
	v, c := inVain(t)
	meet(v.d, v.giver, v.dID)
	_, err := c.Kept([]byte("state"))
	must(t, err)
	var given directory.SignedTransfer
	var over []directory.Hash
	for _, h := range v.giver.Heads(vmID) {
		if h.Kind == directory.KindSwitch {
			given = h
		} else {
			over = append(over, h.Hash())
		}
	}
	chosen, err := v.giver.Resolve(vmID, given.Hash(), over, given.Position, "keep", "")
	must(t, err)
	if s := c.Stand(); s != custody.Behind {
		t.Fatalf("it is %q", s)
	}
	meet(v.giver, v.dir, v.aID)
	_, err = v.dir.TakeOver(vmID, chosen.Hash(), directory.Position(v.pos))
	must(t, err)
	bID, _ := key("b")
	meet(v.dir, v.giver, bID)
	if s := c.Stand(); s != custody.Beyond {
		t.Fatalf("when b has gone back it is %q", s)
	}
}

// TestWhatWasGivenUpIsKeptAnew: a copy was kept as a side, and another side that has all of it was chosen. When that is taken over from with less, the copy is
// something of its own again, and what was said of it before doesn't speak for it any more.
func TestWhatWasGivenUpIsKeptAnew(t *testing.T) {
	g := give(t)
	d := open(t, "d", "a")
	bID, _ := key("b")
	dID, _ := key("d")
	for _, dir := range []*directory.Directory{g.giver, g.dir} {
		must(t, dir.AddMember(directory.Member{ID: dID, Name: "d"}))
	}
	must(t, d.AddMember(directory.Member{ID: bID, Name: "b"}))
	created, _ := g.giver.Transfer(vmID, 1)
	must(t, d.AppendTransfer(created))
	_, err := d.TakeOver(vmID, created.Hash(), directory.Position{})
	must(t, err)

	// b hasn't heard that it was given the VM, when it keeps its copy.
	early := open(t, "b", "a")
	must(t, early.AddMember(directory.Member{ID: dID, Name: "d"}))
	must(t, early.AppendTransfer(created))
	meet(d, early, dID)
	c := g.open()
	t.Cleanup(func() { must(t, c.Disk.Close()) })
	c.Dir = early
	first, err := c.Kept([]byte("state"))
	must(t, err)
	meet(early, g.giver, bID)
	meet(d, g.giver, dID)
	kept, err := g.giver.Keep(vmID, created.Hash(), directory.Position(g.lacking.Position))
	must(t, err)
	var over []directory.Hash
	for _, h := range g.giver.Heads(vmID) {
		if h.Hash() != kept.Hash() {
			over = append(over, h.Hash())
		}
	}
	chosen, err := g.giver.Resolve(vmID, kept.Hash(), over, kept.Position, "keep", "")
	must(t, err)
	meet(g.giver, early, g.aID)
	if s := c.Stand(); s != custody.Behind {
		t.Fatalf("after the choice it is %q", s)
	}

	meet(g.giver, d, g.aID)
	_, err = d.TakeOver(vmID, chosen.Hash(), directory.Position{})
	must(t, err)
	meet(d, early, dID)
	if s := c.Stand(); s != custody.Beyond {
		t.Fatalf("after the takeover it is %q", s)
	}
	for range 2 { // again, after a crash
		anew, err := c.Kept([]byte("state"))
		must(t, err)
		if anew == first || c.Stand() != custody.Own {
			t.Fatalf("kept first as %d, then as %d, and it is %q", first, anew, c.Stand())
		}
		if n := len(early.Heads(vmID)); n != 2 {
			t.Fatalf("%d sides", n)
		}
	}
}
