package directory

import (
	"errors"
	"fmt"
	"maps"
	"testing"
)

// trio is three devices that know each other and a VM of a's, switched to b: term 2 is b's.
func trio(t *testing.T) (a, b, c *Directory) {
	t.Helper()
	a, b, c = fresh(t, "a", "b", "c"), fresh(t, "b", "a", "c"), fresh(t, "c", "a", "b")
	create(t, a, "v")
	_, err := a.Give("v", 2, id("b"), "t", Position{1, 10}, KindSwitch)
	must(t, err)
	all(t, a, b, c)
	must(t, b.PutVM(VM{ID: "v", Name: "Work", DiskBytes: 1 << 30}))
	all(t, a, b, c)
	return a, b, c
}

// all lets everybody meet everybody, until nothing is new.
func all(t fataler, dirs ...*Directory) {
	t.Helper()
	for range dirs {
		for i, x := range dirs {
			for _, y := range dirs[:i] {
				meet(t, x, y)
			}
		}
	}
}

func sameHeads(t *testing.T, dirs ...*Directory) []SignedTransfer {
	t.Helper()
	want := dirs[0].Heads("v")
	for _, d := range dirs[1:] {
		if got := d.Heads("v"); fmt.Sprint(hashes(got)) != fmt.Sprint(hashes(want)) {
			t.Fatalf("heads %v and %v", hashes(got), hashes(want))
		}
	}
	return want
}

func hashes(list []SignedTransfer) (out []Hash) {
	for _, t := range list {
		out = append(out, t.Hash())
	}
	return out
}

func head(d *Directory) Hash { return d.Heads("v")[0].Hash() }

// TestTakeoverKeepResolve goes the way of a conflict, from end to end.
func TestTakeoverKeepResolve(t *testing.T) {
	a, b, c := trio(t)
	fork := head(c)
	want, err := c.NextForced(KindTakeover, "v", fork, nil, Position{2, 4})
	must(t, err)
	taken, err := c.TakeOver("v", fork, Position{2, 4}, IfTerm(want), BatonEntry("v", []byte("taking")))
	must(t, err)
	if taken.Term != want || taken.From != b.opt.Self || taken.To != c.opt.Self || taken.Term < 2+forcedGap {
		t.Fatalf("took %+v, foretold %d", taken.Transfer, want)
	}
	must(t, c.PutVM(VM{ID: "v", Name: "Taken"}))
	// The owner goes on, and hands over without knowing.
	must(t, b.PutVM(VM{ID: "v", Name: "Work on", DiskBytes: 1 << 30}))
	if vm, _ := b.VM("v"); vm.Owner != b.opt.Self || vm.Name != "Work on" {
		t.Fatalf("vm %+v", vm)
	}
	all(t, a, c)
	all(t, a, b)
	if heads := sameHeads(t, a, b, c); len(heads) != 1 || heads[0].Hash() != taken.Hash() {
		t.Fatalf("heads %v", heads)
	}
	wantErr(t, b.PutVM(VM{ID: "v"}), ErrNotOwner)
	_, err = b.Give("v", 3, a.opt.Self, "u", Position{2, 9}, KindSwitch)
	wantErr(t, err, ErrNotOwner)
	if r := b.Relation(taken.Hash(), Position{2, 9}); r != RelationDiverged {
		t.Fatalf("the old owner is %s", r)
	}
	kept, err := b.Keep("v", fork, Position{2, 9}, BatonEntry("v", []byte("ousted")))
	must(t, err)
	if kept.To != b.opt.Self || kept.From != b.opt.Self || kept.Kind != KindKept {
		t.Fatalf("kept %+v", kept.Transfer)
	}
	all(t, a, b, c)
	heads := sameHeads(t, a, b, c)
	if len(heads) != 2 || heads[0].Hash() != taken.Hash() || heads[1].Hash() != kept.Hash() {
		t.Fatalf("heads %v", heads)
	}
	if pos := a.CommonPosition("v"); pos != (Position{2, 4}) {
		t.Fatalf("common %v", pos)
	}
	if vm, _ := a.VM("v"); vm.Name != "Taken" || vm.Owner != c.opt.Self || vm.Term != taken.Term {
		t.Fatalf("vm %+v", vm)
	}
	// A device without a side doesn't choose.
	_, err = a.Resolve("v", kept.Hash(), []Hash{taken.Hash()}, Position{2, 9}, "keep", "")
	wantErr(t, err, ErrNotOwner)
	want, err = c.NextForced(KindResolved, "v", kept.Hash(), []Hash{taken.Hash()}, Position{2, 9})
	must(t, err)
	chosen, err := c.Resolve("v", kept.Hash(), []Hash{taken.Hash()}, Position{2, 9}, "both", "Work (2)", BatonEntry("v", []byte("lost")))
	must(t, err)
	if chosen.Term != want || chosen.To != b.opt.Self || chosen.From != c.opt.Self || chosen.How != "both" || chosen.Name != "Work (2)" {
		t.Fatalf("chosen %+v", chosen.Transfer)
	}
	all(t, a, b, c)
	if heads := sameHeads(t, a, b, c); len(heads) != 1 || heads[0].Hash() != chosen.Hash() {
		t.Fatalf("heads %v", heads)
	}
	if !a.GivenUp(taken.Hash()) || a.GivenUp(kept.Hash()) || a.GivenUp(chosen.Hash()) || a.GivenUp(Hash{1}) {
		t.Fatal("who was given up?")
	}
	// What the kept side said before counts again, until its owner says more.
	if vm, ok := a.VM("v"); !ok || vm.Name != "Work on" || vm.Owner != b.opt.Self || vm.Term != chosen.Term || vm.Written != 2 {
		t.Fatalf("vm %+v", vm)
	}
	must(t, b.PutVM(VM{ID: "v", Name: "Chosen"}))
	all(t, a, b, c)
	if vm, _ := c.VM("v"); vm.Name != "Chosen" {
		t.Fatalf("vm %+v", vm)
	}
	if n := len(a.History("v")); n != 5 {
		t.Fatalf("%d transfers", n)
	}
	if chain := a.Chain("v"); len(chain) != 4 || chain[3].Hash() != chosen.Hash() || chain[2].Hash() != kept.Hash() || chain[1].Term != 2 {
		t.Fatalf("chain %v", chain)
	}
	if lost := a.Ancestry(taken.Hash()); len(lost) != 3 || a.Ancestry(Hash{1}) != nil {
		t.Fatalf("ancestry %v", lost)
	}
	_, err = b.Give("v", chosen.Term+1, a.opt.Self, "x", Position{chosen.Term, 3}, KindSwitch)
	must(t, err)
}

// TestForcedSignsOnce: called again, also after a commit of which nobody knows, each returns the same transfer.
func TestForcedSignsOnce(t *testing.T) {
	_, b, c := trio(t)
	fork := head(b)
	_, err := c.TakeOver("v", fork, Position{2, 4})
	must(t, err)
	all(t, b, c)
	kept, err := b.Keep("v", fork, Position{2, 9})
	must(t, err)
	taken := head(b)
	for name, sign := range map[string]func(d *Directory, n uint64, with ...Entry) (SignedTransfer, error){
		"takeover": func(d *Directory, n uint64, with ...Entry) (SignedTransfer, error) {
			return d.TakeOver("v", taken, Position{2, n}, with...)
		},
		"kept": func(d *Directory, n uint64, with ...Entry) (SignedTransfer, error) {
			return d.Keep("v", fork, Position{2, n}, with...)
		},
		"resolved": func(d *Directory, n uint64, with ...Entry) (SignedTransfer, error) {
			return d.Resolve("v", kept.Hash(), []Hash{taken}, Position{2, n}, "keep", "", with...)
		},
	} {
		for _, stored := range []bool{false, true} {
			s := &memory{m: map[string][]byte{}}
			d := open(t, s, "c", "a", "b")
			all(t, b, d)
			s.fail = func() (bool, error) { return stored, errors.New("broken") }
			_, err := sign(d, 5, BatonEntry("v", []byte("one")))
			wantErr(t, err, ErrUnsure)
			before := maps.Clone(s.m)
			_, err = sign(d, 6, BatonEntry("v", []byte("one")))
			wantErr(t, err, ErrUnsure)
			s.fail = nil
			first, err := sign(d, 7, BatonEntry("v", []byte("two")))
			must(t, err)
			if v, ok := before[first.Record.Key]; ok != stored || ok && string(v) != string(s.m[first.Record.Key]) {
				t.Fatalf("%s: signed anew though the first may have been stored", name)
			}
			if first.Position.Barrier != 5 {
				t.Fatalf("%s: %v", name, first.Position)
			}
			second, err := sign(d, 8, BatonEntry("v", []byte("three")))
			must(t, err)
			d = open(t, s, "c")
			third, err := sign(d, 9, BatonEntry("v", []byte("four")))
			must(t, err)
			if second.Hash() != first.Hash() || third.Hash() != first.Hash() {
				t.Fatalf("%s was signed twice", name)
			}
			if b, _ := d.LoadBaton("v"); string(b) != "four" {
				t.Fatalf("%s: baton %q", name, b)
			}
		}
	}
}

// TestForcedRefusals: what can't be signed stores nothing.
func TestForcedRefusals(t *testing.T) {
	_, b, c := trio(t)
	fork, first := head(c), c.Chain("v")[0].Hash()
	create(t, c, "w")
	foreign := c.Chain("w")[0].Hash()
	before := maps.Clone(c.store.(*memory).m)
	state := BatonEntry("v", []byte("no"))
	for name, c := range map[string]struct {
		err  func() error
		want error
	}{
		"taken from nothing":   {func() error { _, err := c.TakeOver("v", Hash{1}, Position{}, state); return err }, ErrNotFound},
		"taken from another":   {func() error { _, err := c.TakeOver("v", foreign, Position{}, state); return err }, ErrNotFound},
		"taken from the past":  {func() error { _, err := c.TakeOver("v", first, Position{}, state); return err }, ErrChain},
		"taken in the future":  {func() error { _, err := c.TakeOver("v", fork, Position{3, 1}, state); return err }, ErrGap},
		"taken at another":     {func() error { _, err := c.TakeOver("v", fork, Position{2, 1}, state, IfTerm(7)); return err }, ErrChain},
		"kept from nothing":    {func() error { _, err := c.Keep("v", fork, Position{2, 1}, state); return err }, ErrChain},
		"kept of nothing":      {func() error { _, err := c.Keep("v", Hash{1}, Position{2, 1}, state); return err }, ErrNotFound},
		"chosen over nothing":  {func() error { _, err := c.Resolve("v", fork, nil, Position{}, "", "", state); return err }, ErrInvalid},
		"chosen over unknown":  {func() error { _, err := c.Resolve("v", fork, []Hash{{1}}, Position{}, "", "", state); return err }, ErrNotFound},
		"chosen over the past": {func() error { _, err := c.Resolve("v", fork, []Hash{first}, Position{}, "", "", state); return err }, ErrChain},
		"chosen over itself":   {func() error { _, err := c.Resolve("v", fork, []Hash{fork}, Position{}, "", "", state); return err }, ErrInvalid},
	} {
		if err := c.err(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if !maps.EqualFunc(before, c.store.(*memory).m, func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Fatal("something was stored")
	}
	for _, k := range []Kind{KindSwitch, "odd"} {
		_, err := c.NextForced(k, "v", fork, nil, Position{})
		wantErr(t, err, ErrInvalid)
	}
	_, err := c.NextForced(KindTakeover, "v", Hash{1}, nil, Position{})
	wantErr(t, err, ErrNotFound)
	_, err = c.NextForced(KindResolved, "v", fork, []Hash{{1}}, Position{})
	wantErr(t, err, ErrNotFound)
	// Its own head is a side already: nothing is to be signed, but the state is stored.
	got, err := b.Keep("v", fork, Position{2, 9}, BatonEntry("v", []byte("yes")))
	must(t, err)
	term, err := b.NextForced(KindKept, "v", fork, nil, Position{2, 9})
	must(t, err)
	if state, _ := b.LoadBaton("v"); got.Hash() != fork || term != 2 || string(state) != "yes" {
		t.Fatalf("kept %+v, state %q", got.Transfer, state)
	}
	// What was given up isn't kept any more.
	taken, err := c.TakeOver("v", fork, Position{2, 4})
	must(t, err)
	_, err = b.Give("v", 3, id("a"), "x", Position{2, 9}, KindSwitch)
	must(t, err)
	all(t, b, c)
	on, _ := b.Transfer("v", 3)
	_, err = c.Resolve("v", taken.Hash(), []Hash{on.Hash()}, Position{}, "keep", "")
	must(t, err)
	a := fresh(t, "a", "b", "c")
	all(t, a, c)
	_, err = a.Keep("v", on.Hash(), Position{2, 9})
	wantErr(t, err, ErrChain)
}

// TestForcedTermsAreAboveAll: also above those of sides that count no more, which a disk may have seen.
func TestForcedTermsAreAboveAll(t *testing.T) {
	a, b, c := trio(t)
	for range 3 {
		_, err := c.TakeOver("v", head(c), Position{2, 4})
		must(t, err)
		all(t, b, c)
		_, err = b.TakeOver("v", head(b), Position{2, 4})
		must(t, err)
		all(t, b, c)
	}
	high, _, _ := a.Owner("v")
	all(t, a, b, c)
	must(t, a.RemoveMember(id("b"), false))
	must(t, a.RemoveMember(id("c"), false))
	if n, owner, _ := a.Owner("v"); n != high || owner != id("b") || !a.Orphan("v") {
		t.Fatalf("term %d of %s", n, short(owner))
	}
	top := a.History("v")
	taken, err := a.TakeOver("v", head(a), Position{1, 10})
	must(t, err)
	if last := top[len(top)-1]; taken.Term <= last.Term || taken.Above != last.Hash() {
		t.Fatalf("term %d after %d", taken.Term, last.Term)
	}
	if a.Orphan("v") || a.Orphan("nothing") {
		t.Fatal("still an orphan")
	}
	d := fresh(t, "d", "a", "b", "c")
	all(t, a, d)
	if head(d) != taken.Hash() {
		t.Fatal("another device doesn't accept it")
	}
}

// TestTermsStayUnique: devices that take over, keep and choose apart never use one term, while the owner hands over
// without knowing.
func TestTermsStayUnique(t *testing.T) {
	_, b, _ := trio(t)
	fork := head(b)
	var dirs []*Directory
	for i := range 40 {
		d := fresh(t, fmt.Sprint("device ", i), "a", "b", "c")
		all(t, b, d)
		_, err := d.TakeOver("v", fork, Position{2, uint64(i)})
		must(t, err)
		dirs = append(dirs, d)
	}
	for i := range 40 {
		term, _, _ := b.Owner("v")
		to := "a"
		if i%2 == 1 {
			to = "b"
		}
		d := b
		if i%2 == 1 {
			d = fresh(t, "a", "b", "c")
			all(t, b, d)
		}
		tr, err := d.Give("v", term+1, id(to), fmt.Sprint(i), Position{term, 1}, KindSwitch)
		must(t, err)
		must(t, b.AppendTransfer(tr))
	}
	seen := map[uint64]Hash{}
	for _, d := range append(dirs, b) {
		for _, x := range d.History("v") {
			if h, ok := seen[x.Term]; ok && h != x.Hash() {
				t.Fatalf("term %d twice", x.Term)
			}
			seen[x.Term] = x.Hash()
		}
	}
}
