package directory

import (
	"fmt"
	"testing"
)

// TestAnotherFleetMayRemoveItToo: what a device remembers of its removal from one fleet doesn't keep it in the next.
func TestAnotherFleetMayRemoveItToo(t *testing.T) {
	for name, out := range map[string]func(t *testing.T, a, b *Directory){
		"left": func(t *testing.T, _, b *Directory) { must(t, b.Leave()) },
		"was removed twice": func(t *testing.T, a, b *Directory) {
			for range 2 {
				must(t, a.RemoveMember(id("b"), false))
				r, _ := a.Removal(id("b"))
				_, err := b.AcceptRemoval(r)
				must(t, err)
				pair(t, a, b, "a", "b")
				meet(t, a, b)
			}
			must(t, b.Leave())
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, c := fresh(t, "a"), fresh(t, "b"), fresh(t, "c")
			pair(t, a, b, "a", "b")
			meet(t, a, b)
			out(t, a, b)
			pair(t, b, c, "b", "c")
			meet(t, b, c)
			must(t, c.RemoveMember(id("b"), true))
			r, _ := c.Removal(id("b"))
			wipe, err := b.AcceptRemoval(r)
			if err != nil || !wipe {
				t.Fatalf("wipe %v, %v", wipe, err)
			}
		})
	}
}

// TestAGenerationRaisedInSteps: a device that counted itself up where it could doesn't stay a member of those that were away.
func TestAGenerationRaisedInSteps(t *testing.T) {
	a, b := fresh(t, "a", "b", "evil"), fresh(t, "b", "a", "evil")
	meet(t, a, b)
	for gen := uint64(1000); gen <= 9000; gen += 1000 {
		m := membership{Device: id("evil"), By: id("evil"), Gen: gen}
		value, err := encodeValue(m)
		must(t, err)
		must(t, a.Apply(id("evil"), forge("evil", Record{Key: memberKey(m.Device, m.By), Version: m.version(), Writer: m.By, Value: value})))
	}
	must(t, a.RemoveMember(id("evil"), true))
	meet(t, a, b)
	if b.IsMember(id("evil")) {
		t.Error("removed at one, a member at the other")
	}
	if s := b.Strikes(); len(s) > 0 {
		t.Errorf("strikes against who only told of it: %v", s)
	}
}

// TestAFullDirectoryHearsRemovals: whoever fills the directories of others can still be removed from them.
func TestAFullDirectoryHearsRemovals(t *testing.T) {
	a, b, c := fresh(t, "a", "b", "c"), fresh(t, "b", "a", "c", "evil"), fresh(t, "c", "a", "b", "evil")
	meet(t, b, c)
	meet(t, a, c)
	for i := range MaxRecords * 3 / 4 {
		key := fmt.Sprintf("vmnote/x/%010d", i)
		b.records[key] = Record{Key: key}
	}
	b.bytes = maxBytes / 4 * 3
	wantErr(t, b.Apply(id("evil"), forgeTransfer("evil", Transfer{VM: "v", Term: 1, To: id("evil"), Kind: KindCreated})), ErrFull)
	must(t, a.RemoveMember(id("evil"), true)) // it has said nothing of it before
	r, _ := a.Removal(id("evil"))
	if err := b.Apply(id("c"), r); err != nil || b.IsMember(id("evil")) {
		t.Errorf("still a member where the directory is full: %v", err)
	}
	must(t, c.RemoveMember(id("evil"), false))
	r, _ = c.Removal(id("evil"))
	r.Key = memberKey(id("evil"), id("x"))
	wantErr(t, b.Apply(id("c"), forge("x", Record{Key: r.Key, Version: 7, Writer: id("x"), Value: []byte(`{"schema":1,"body":{"device":"` + id("evil") + `","by":"` + id("x") + `","gen":1,"removed":true,"wipe":true}}`)})), ErrFull)
}

// TestNobodyIsBlamedForATermSignedTwice: two devices that each believe the first that they saw tell each other what follows.
func TestNobodyIsBlamedForATermSignedTwice(t *testing.T) {
	a, b, c := fresh(t, "a", "b", "c", "evil"), fresh(t, "b", "a", "c", "evil"), fresh(t, "c", "a", "b", "evil")
	e := fresh(t, "evil", "a", "b", "c")
	create(t, e, "v")
	all(t, a, b, c, e)
	first := head(e)
	for d, to := range map[*Directory]string{a: "b", b: "c"} {
		must(t, d.Apply(id("evil"), forgeTransfer("evil", Transfer{VM: "v", Term: 2, From: id("evil"), To: id(to), Prev: first, Kind: KindSwitch})))
	}
	// b is with a what it is told, c with b.
	must(t, c.Apply(id("evil"), b.records[transferKey("v", 2)]))
	must(t, c.PutVM(VM{ID: "v", Name: "c's", DiskBytes: 1 << 30}))
	must(t, c.PutNote(Note{VM: "v", Term: 2, How: "switch"}))
	must(t, c.PutReplica("v", id("b"), ReplicaInfo{Position: Position{2, 1}}, nil))
	meet(t, b, c)
	meet(t, a, b)
	if s := a.Strikes(); s[id("b")]+s[id("c")] > 0 {
		t.Errorf("strikes of a: %v", s)
	}
	if s := b.Strikes(); s[id("a")]+s[id("c")] > 0 {
		t.Errorf("strikes of b: %v", s)
	}
}

// TestNobodyIsBlamedForAShrunkenDisk: an owner that takes back how large its disk is makes no liar of who has its older word.
func TestNobodyIsBlamedForAShrunkenDisk(t *testing.T) {
	a, b, e := fresh(t, "a", "b", "evil"), fresh(t, "b", "a", "evil"), fresh(t, "evil", "a", "b")
	create(t, e, "v")
	must(t, e.PutReplica("v", id("a"), ReplicaInfo{Position: Position{1, 1}, StaleBlocks: 1000}, nil))
	all(t, e, a)
	must(t, e.PutVM(VM{ID: "v", Name: "Work", DiskBytes: 4096}))
	must(t, b.Apply(id("evil"), e.records[transferKey("v", 1)]))
	must(t, b.Apply(id("evil"), e.records["vm/v"]))
	meet(t, a, b)
	if s := b.Strikes(); len(s) > 0 {
		t.Errorf("strikes %v", s)
	}
	if a, b := a.Digest(), b.Digest(); fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("a tells %v\nb %v", a, b)
	}
}
