package directory

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// busy makes a fleet of a, b and c with a VM whose history has everything in it, and members that came and went.
func busy(t *testing.T, rounds int) *Directory {
	t.Helper()
	dirs := map[string]*Directory{}
	list := []string{"a", "b", "c"}
	for _, n := range list {
		dirs[n] = fresh(t, n, list...)
	}
	create(t, dirs["a"], "v")
	owner := "a"
	everybody := func() { all(t, dirs["a"], dirs["b"], dirs["c"]) }
	for i := range rounds {
		everybody()
		term, _, _ := dirs[owner].Owner("v")
		must(t, dirs[owner].PutVM(VM{ID: "v", Name: fmt.Sprint("round ", i), DiskBytes: 1 << 30}))
		must(t, dirs[owner].PutNote(Note{VM: "v", Term: term, How: "switch"}))
		to := list[(slices.Index(list, owner)+1)%3]
		pos := Position{term, uint64(i + 1)}
		switch i % 8 {
		case 5: // taken over, and the owner had more
			fork := head(dirs[owner])
			taken, err := dirs[to].TakeOver("v", fork, pos)
			must(t, err)
			everybody()
			kept, err := dirs[owner].Keep("v", fork, Position{term, uint64(i + 9)})
			must(t, err)
			everybody()
			_, err = dirs[to].Resolve("v", taken.Hash(), []Hash{kept.Hash()}, pos, "keep", "")
			must(t, err)
		case 6: // taken over apart by two
			third := list[(slices.Index(list, owner)+2)%3]
			fork := head(dirs[owner])
			one, err := dirs[to].TakeOver("v", fork, pos)
			must(t, err)
			two, err := dirs[third].TakeOver("v", fork, pos)
			must(t, err)
			everybody()
			if i%16 == 6 {
				_, err = dirs[to].Resolve("v", one.Hash(), []Hash{two.Hash()}, pos, "both", "other")
				must(t, err)
			}
			to = map[string]string{dirs[to].opt.Self: to, dirs[third].opt.Self: third}[dirs[to].Heads("v")[0].To]
		case 7:
			must(t, dirs["a"].AddMember(Member{ID: fmt.Sprint("guest-", i), Name: "guest"}))
			must(t, dirs["b"].RemoveMember(fmt.Sprint("guest-", i-8), true))
			to = owner
		default:
			_, err := dirs[owner].Give("v", term+1, id(to), fmt.Sprint(i), pos, KindSwitch)
			must(t, err)
		}
		owner = to
	}
	everybody()
	for _, n := range list {
		must(t, dirs[n].PutDevice(Device{Name: n}))
	}
	everybody()
	sameHeads(t, dirs["a"], dirs["b"], dirs["c"])
	return dirs["a"]
}

// same fails unless two directories say the same in every way.
func same(t *testing.T, x, y *Directory) {
	t.Helper()
	if !maps.Equal(x.Digest(), y.Digest()) {
		for k, v := range x.Digest() {
			if w := y.Digest()[k]; w != v {
				t.Errorf("%s: %d and %d", k, v, w)
			}
		}
		t.Fatalf("%d and %d records", len(x.Digest()), len(y.Digest()))
	}
	sameHeads(t, x, y)
	if fmt.Sprint(hashes(x.History("v"))) != fmt.Sprint(hashes(y.History("v"))) || fmt.Sprint(x.CommonPosition("v")) != fmt.Sprint(y.CommonPosition("v")) {
		t.Fatal("different histories")
	}
	one, _ := x.VM("v")
	two, _ := y.VM("v")
	if fmt.Sprintf("%+v", one) != fmt.Sprintf("%+v", two) {
		t.Fatalf("different VMs:\n%+v\n%+v", one, two)
	}
}

// TestAnyOrder gives one set of records to many devices, each in another order, some of it through a third one and over
// restarts: all come to the same.
func TestAnyOrder(t *testing.T) {
	a := busy(t, 40)
	if n := len(a.Heads("v")); n < 1 {
		t.Fatalf("%d heads", n)
	}
	must(t, a.AddMember(Member{ID: id("d"), Name: "d"}))
	must(t, a.AddMember(Member{ID: id("e"), Name: "e"}))
	records := a.Get(sortedStrings(a.Digest()))
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := &memory{m: map[string][]byte{}}
		d := open(t, s, "d", "a", "b", "c")
		e := fresh(t, "e", "a", "d")
		rest := slices.Clone(records)
		for round := 0; len(rest) > 0; round++ {
			if round > len(records) {
				t.Fatalf("seed %d: %d records are never accepted", seed, len(rest))
			}
			r.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
			rest = slices.DeleteFunc(rest, func(x Record) bool {
				to := d
				if r.IntN(4) == 0 {
					_ = e.Apply(id("a"), x)
				}
				return to.Apply(id("a"), x) == nil
			})
			if r.IntN(3) == 0 {
				d = open(t, s, "d")
			}
			if r.IntN(3) == 0 {
				send(e, d)
			}
		}
		must(t, d.AddMember(Member{ID: id("e"), Name: "e"}))
		all(t, a, d)
		all(t, d, e)
		all(t, a, d, e)
		same(t, a, d)
		same(t, a, e)
		if n := d.Strikes(); len(n) > 0 {
			t.Fatalf("seed %d: honest devices are called liars: %v", seed, n)
		}
	}
}

// TestMonthsAway: a device that was away for a thousand terms, thousands of records catches up from one that was there, which knows it
// only by others' words, in one exchange, in the order in which package exchange sends.
func TestMonthsAway(t *testing.T) {
	a, b := fresh(t, "a", "b"), fresh(t, "b", "a")
	create(t, a, "v")
	all(t, a, b)
	away := fresh(t, "c", "a", "b")
	must(t, a.AddMember(Member{ID: id("c")}))
	all(t, a, away)
	x, y := a, b
	for i := range 1000 {
		term, _, _ := x.Owner("v")
		var tr SignedTransfer
		var err error
		if i%100 == 99 {
			tr, err = y.TakeOver("v", head(y), Position{term, uint64(i)})
		} else {
			tr, err = x.Give("v", term+1, y.opt.Self, fmt.Sprint(i), Position{term, uint64(i)}, KindSwitch)
		}
		must(t, err)
		must(t, x.AppendTransfer(tr))
		must(t, y.AppendTransfer(tr))
		must(t, y.PutNote(Note{VM: "v", Term: tr.Term, How: "switch"}))
		x, y = y, x
	}
	must(t, x.PutVM(VM{ID: "v", Name: "after months"}))
	send(a, b)
	send(b, a)
	must(t, b.AddMember(Member{ID: id("c")}))
	keys := sortedStrings(b.Digest())
	for _, r := range b.Get(keys) {
		if err := away.Apply(id("b"), r); err != nil {
			t.Fatalf("%s: %v", r.Key, err)
		}
	}
	same(t, b, away)
	if vm, ok := away.VM("v"); !ok || vm.Name != "after months" || len(away.Chain("v")) != 1001 {
		t.Fatalf("vm %+v, %d terms", vm, len(away.Chain("v")))
	}
}
