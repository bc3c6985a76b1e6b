package directory

import (
	"slices"
	"testing"
)

// crossed is a VM whose history goes on at a lower term than a choice about it: b chose c's side while c gave the VM to a.
func crossed(t *testing.T) (a, b, c *Directory, kept, chosen, given SignedTransfer) {
	t.Helper()
	a, b, c = trio(t)
	fork := head(c)
	taken, err := c.TakeOver("v", fork, Position{2, 4})
	must(t, err)
	all(t, a, b, c)
	kept, err = b.Keep("v", fork, Position{2, 9})
	must(t, err)
	// Only b knows of what it kept, and of what it chooses.
	given, err = c.Give("v", taken.Term+1, a.opt.Self, "x", Position{taken.Term, 3}, KindSwitch)
	must(t, err)
	chosen, err = b.Resolve("v", taken.Hash(), []Hash{kept.Hash()}, Position{2, 4}, "both", "Work (2)")
	must(t, err)
	return a, b, c, kept, chosen, given
}

// TestAnOvertakenChoiceIsRepeated: the owner raises the history above every number that the choice made others give up.
func TestAnOvertakenChoiceIsRepeated(t *testing.T) {
	a, b, c, kept, chosen, given := crossed(t)
	all(t, a, c)
	if list := a.Overtaken("v"); list != nil {
		t.Fatalf("before it is heard of, %v was overtaken", list)
	}
	all(t, a, b, c)
	if heads := sameHeads(t, a, b, c); len(heads) != 1 || heads[0].Hash() != given.Hash() || given.Term >= chosen.Term {
		t.Fatalf("heads %v", heads)
	}
	if list := b.Overtaken("v"); len(list) != 1 || list[0].Hash() != chosen.Hash() {
		t.Fatalf("overtaken: %v", list)
	}
	_, err := c.Repeat("v", Position{})
	wantErr(t, err, ErrNotOwner)
	again, err := a.Repeat("v", Position{given.Position.Term, 3}, BatonEntry("v", []byte("owned")))
	must(t, err)
	if again.Term <= chosen.Term || again.To != a.opt.Self || again.Prev != given.Hash() || !slices.Equal(again.Over, []Hash{kept.Hash()}) || again.How != "both" || again.Name != "Work (2)" {
		t.Fatalf("repeated as %+v", again.Transfer)
	}
	all(t, a, b, c)
	if heads := sameHeads(t, a, b, c); len(heads) != 1 || heads[0].Hash() != again.Hash() {
		t.Fatalf("heads %v", heads)
	}
	if !c.GivenUp(kept.Hash()) || c.GivenUp(given.Hash()) || c.GivenUp(again.Hash()) {
		t.Fatal("who was given up?")
	}
	if r := c.Relation(again.Hash(), Position{given.Term, 8}); r != RelationBehind {
		t.Fatalf("what the owner wrote until then is %s", r)
	}
	if list := a.Overtaken("v"); list != nil {
		t.Fatalf("after that, %v was overtaken", list)
	}
	_, err = a.Repeat("v", Position{})
	wantErr(t, err, ErrChain)
	must(t, a.PutVM(VM{ID: "v", Name: "Work", DiskBytes: 1 << 30}))
	if vm, _ := a.VM("v"); !slices.Equal(vm.Heeds, []uint64{chosen.Term}) {
		t.Fatalf("the owner heeds %v", vm.Heeds)
	}
}

// TestTheNextOwnerRepeatsAChoice: where the VM was given on before its owner heard of the choice.
func TestTheNextOwnerRepeatsAChoice(t *testing.T) {
	a, b, c, kept, chosen, given := crossed(t)
	all(t, a, c)
	on, err := a.Give("v", given.Term+1, c.opt.Self, "y", Position{given.Term, 9}, KindSwitch)
	must(t, err)
	all(t, b, c)
	_, err = c.Repeat("v", Position{})
	wantErr(t, err, ErrNotOwner) // what came of the VM since isn't known here
	all(t, a, b, c)
	again, err := c.Repeat("v", Position{given.Term, 9})
	must(t, err)
	if again.Prev != on.Hash() || again.Term <= chosen.Term || !slices.Equal(again.Over, []Hash{kept.Hash()}) {
		t.Fatalf("repeated as %+v", again.Transfer)
	}
	all(t, a, b, c)
	if heads := sameHeads(t, a, b, c); len(heads) != 1 || heads[0].Hash() != again.Hash() {
		t.Fatalf("heads %v", heads)
	}
}

// TestNothingIsRepeatedInAConflict: the person's next choice is above all of it.
func TestNothingIsRepeatedInAConflict(t *testing.T) {
	a, b, c, _, chosen, given := crossed(t)
	all(t, a, c)
	other, err := b.TakeOver("v", chosen.Hash(), Position{2, 4})
	must(t, err)
	all(t, a, b, c)
	if heads := sameHeads(t, a, b, c); len(heads) != 2 {
		t.Fatalf("heads %v", heads)
	}
	if list := a.Overtaken("v"); list != nil {
		t.Fatalf("in a conflict, %v was overtaken", list)
	}
	_, err = a.Repeat("v", Position{})
	wantErr(t, err, ErrChain)
	last, err := a.Resolve("v", given.Hash(), []Hash{other.Hash()}, Position{given.Position.Term, 3}, "keep", "")
	must(t, err)
	if last.Term <= chosen.Term || a.Overtaken("v") != nil {
		t.Fatalf("chosen as %+v", last.Transfer)
	}
}
