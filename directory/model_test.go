package directory

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// copyOf is a device's copy of a VM's disk in the model: what was written, in order, and how far that is.
type copyOf struct {
	writes []int
	pos    Position
	took   Hash // the head under which this device may write; zero of a replica
	kept   bool // the person has to choose before anything happens to it
}

// fleet is a few directories with disks, and the reference: who owns a VM is what follows from all transfers by the rules
// told once more, and a disk is part of a history if what was written to it is.
type fleet struct {
	names  []string
	dirs   map[string]*Directory
	stores map[string]*memory
	disks  map[string]map[string]*copyOf // by name and VM
	device map[string]string             // by name
	seen   map[string]map[string]uint64
	out    map[string]bool // was removed, or has left, at some time
	n      int
}

func newFleet(t *rapid.T) *fleet {
	f := &fleet{
		names:  []string{"a", "b", "c", "d"},
		dirs:   map[string]*Directory{},
		stores: map[string]*memory{},
		disks:  map[string]map[string]*copyOf{},
		device: map[string]string{},
		seen:   map[string]map[string]uint64{},
		out:    map[string]bool{},
	}
	for _, n := range f.names {
		f.stores[n] = &memory{m: map[string][]byte{}}
		f.dirs[n] = open(t, f.stores[n], n, f.names...)
		f.disks[n] = map[string]*copyOf{}
		f.wrongClock(n)
	}
	// Most of what matters happens to one VM that everybody has a replica of.
	c, err := f.dirs["a"].NewCreated("v")
	must(t, err)
	must(t, f.dirs["a"].AppendTransfer(c))
	f.disks["a"]["v"] = &copyOf{took: c.Hash()}
	f.write("a", "v")
	for _, n := range f.names[1:] {
		f.meet(t, "a", n)
		f.disks[n]["v"] = &copyOf{writes: f.disks["a"]["v"].writes, pos: f.disks["a"]["v"].pos}
	}
	return f
}

// wrongClock sets a device's clock off by up to a week: nothing may depend on it.
func (f *fleet) wrongClock(name string) {
	off := time.Duration(int(name[0])%8-4) * 36 * time.Hour
	f.dirs[name].now = func() time.Time {
		f.n++
		return time.Unix(1700000000, int64(f.n)).Add(off)
	}
}

func (f *fleet) title() string {
	f.n++
	return fmt.Sprint("title ", f.n)
}

func (f *fleet) name(device string) string {
	for _, n := range f.names {
		if id(n) == device {
			return n
		}
	}
	return ""
}

func (f *fleet) linked(a, b string) bool {
	return a != b && a != "" && b != "" && f.dirs[a].IsMember(id(b)) && f.dirs[b].IsMember(id(a))
}

// owns says whether a device may write a VM: by its own view, and because it took that term.
func (f *fleet) owns(n, v string) bool {
	disk, heads := f.disks[n][v], f.dirs[n].Heads(v)
	return disk != nil && !disk.kept && len(heads) > 0 && disk.took == heads[0].Hash() && heads[0].To == id(n)
}

// settle lets a device come to terms with what it has heard, as the engine does.
func (f *fleet) settle(t *rapid.T, n string) {
	d := f.dirs[n]
	for _, v := range sortedStrings(f.disks[n]) {
		disk := f.disks[n][v]
		heads := d.Heads(v)
		if len(heads) == 0 {
			continue
		}
		best := heads[0]
		switch {
		case disk.took == best.Hash():
			disk.kept = false // it may be alone again
			continue
		case best.To == id(n) && best.Kind == KindResolved && (best.Prev == disk.took || f.sameChoice(d, best, disk.took)):
			// Chosen, perhaps again: it goes on.
			disk.took, disk.kept = best.Hash(), false
			continue
		}
		mine := disk.took
		if mine == (Hash{}) {
			mine = f.fork(d, best, disk.pos)
		}
		switch d.Relation(best.Hash(), disk.pos) {
		case RelationUnknown:
			t.Fatalf("%s doesn't know its own history", n)
		case RelationBehind:
			disk.took, disk.kept = Hash{}, false
		case RelationDiverged:
			if d.GivenUp(mine) || mine == (Hash{}) {
				// Set aside, as a restore point: this copy begins anew.
				*disk = *f.blank()
				continue
			}
			kept, err := d.Keep(v, mine, disk.pos)
			switch {
			case err == nil:
				disk.took, disk.kept = kept.Hash(), true
				if d.GivenUp(kept.Hash()) {
					*disk = *f.blank()
				}
			case errors.Is(err, ErrChain):
				*disk = *f.blank()
			default:
				t.Fatalf("%s keeps: %v", n, err)
			}
		}
	}
}

// sameChoice says that took is another choice of the same side.
func (f *fleet) sameChoice(d *Directory, best SignedTransfer, took Hash) bool {
	line := d.Ancestry(took)
	if len(line) == 0 {
		return false
	}
	last := line[len(line)-1]
	return last.Kind == KindResolved && last.Prev == best.Prev
}

func (f *fleet) blank() *copyOf { return &copyOf{} }

// fork finds the transfer of head's ancestry after which a replica at pos isn't part of it any more: its parent.
func (f *fleet) fork(d *Directory, head SignedTransfer, pos Position) Hash {
	for _, x := range d.Ancestry(head.Hash()) {
		if x.Kind != KindCreated && d.Relation(x.Hash(), pos) == RelationDiverged && d.Relation(x.Prev, pos) == RelationBehind {
			return x.Prev
		}
	}
	return Hash{}
}

func (f *fleet) actions() map[string]func(*rapid.T) {
	name := func(t *rapid.T) string { return rapid.SampledFrom(f.names).Draw(t, "device") }
	vm := func(t *rapid.T) string { return rapid.SampledFrom([]string{"v", "v", "v", "w"}).Draw(t, "vm") }
	return map[string]func(*rapid.T){
		"write": func(t *rapid.T) {
			v, n := vm(t), name(t)
			if !f.owns(n, v) {
				t.Skip("not the owner")
			}
			f.write(n, v)
		},
		"mirror": f.mirror(name, vm),
		"give": func(t *rapid.T) {
			v, from, to := vm(t), name(t), name(t)
			d, disk := f.dirs[from], f.disks[from][v]
			if disk == nil || from == to || !f.linked(from, to) && f.owns(from, v) {
				t.Skip("can't")
			}
			term, _, _ := d.Owner(v)
			legal := f.owns(from, v)
			heads := d.Heads(v)
			if !legal && len(heads) > 0 && heads[0].To == id(from) {
				t.Skip("the engine wouldn't")
			}
			if other := f.disks[to][v]; other != nil && other.kept {
				t.Skip("it has to be chosen first")
			}
			tr, err := d.Give(v, term+1, id(to), f.title(), disk.pos, KindSwitch)
			if (err == nil) != legal {
				t.Fatalf("%s gives %s to %s: %v", from, v, to, err)
			}
			if legal {
				// The receiver gets it at once, with all before it, as by the hand-off.
				send(d, f.dirs[to])
				must(t, f.dirs[to].AppendTransfer(tr))
				f.settle(t, to)
				f.settle(t, from)
				if f.disks[to][v] == nil || !f.disks[to][v].kept && f.dirs[to].Heads(v)[0].Hash() == tr.Hash() {
					f.disks[to][v] = &copyOf{writes: disk.writes, pos: disk.pos, took: tr.Hash()}
				}
			}
		},
		"take over": func(t *rapid.T) {
			v, n := vm(t), name(t)
			d, disk := f.dirs[n], f.disks[n][v]
			heads := d.Heads(v)
			if disk == nil || disk.kept || disk.took != (Hash{}) || len(heads) != 1 {
				t.Skip("nothing to take over")
			}
			if d.Relation(heads[0].Hash(), disk.pos) != RelationBehind {
				t.Skip("another history")
			}
			want, err := d.NextForced(KindTakeover, v, heads[0].Hash(), nil, disk.pos)
			must(t, err)
			tr, err := d.TakeOver(v, heads[0].Hash(), disk.pos, IfTerm(want))
			must(t, err)
			for _, x := range d.History(v) {
				if x.Hash() != tr.Hash() && x.Term >= tr.Term {
					t.Fatalf("term %d isn't above %d", tr.Term, x.Term)
				}
			}
			disk.took = tr.Hash()
		},
		"choose": func(t *rapid.T) {
			v, n := vm(t), name(t)
			heads := f.dirs[n].Heads(v)
			if len(heads) < 2 {
				t.Skip("no conflict")
			}
			if owner := f.name(heads[rapid.IntRange(0, len(heads)-1).Draw(t, "side")].To); f.linked(n, owner) {
				f.meet(t, n, owner)
				n = owner
			}
			d := f.dirs[n]
			if heads = d.Heads(v); len(heads) < 2 {
				return
			}
			keep := rapid.IntRange(0, len(heads)-1).Draw(t, "keep")
			var over []Hash
			side := heads[keep].To == id(n)
			for i, h := range heads {
				if i != keep {
					over = append(over, h.Hash())
					side = side || h.To == id(n)
				}
			}
			tr, err := d.Resolve(v, heads[keep].Hash(), over, heads[keep].Position, "keep", "")
			if (err == nil) != side {
				t.Fatalf("%s chooses: %v", n, err)
			}
			if side {
				if got := d.Heads(v); len(got) != 1 || got[0].Hash() != tr.Hash() {
					t.Fatalf("chosen, but heads are %v", hashes(got))
				}
				f.settle(t, n)
			}
		},
		"one record": func(t *rapid.T) {
			a, b := name(t), name(t)
			from, to := f.dirs[a], f.dirs[b]
			keys := sortedStrings(from.Digest())
			if len(keys) == 0 || !f.linked(a, b) {
				t.Skip("nothing")
			}
			k := rapid.SampledFrom(keys).Draw(t, "key")
			_ = to.Apply(from.opt.Self, from.Get([]string{k})[0]) // may come too early
			f.settle(t, b)
		},
		"meet": func(t *rapid.T) { f.meet(t, name(t), name(t)) },
		"rest": func(t *rapid.T) {
			// Rare things, so that they don't crowd out the others.
			rest := f.rest(name, vm)
			rest[rapid.SampledFrom(sortedStrings(rest)).Draw(t, "what")](t)
		},
		"": f.check,
	}
}

func (f *fleet) rest(name, vm func(*rapid.T) string) map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"create": func(t *rapid.T) {
			v, n := vm(t), name(t)
			for _, disks := range f.disks {
				if disks[v] != nil {
					t.Skip("exists")
				}
			}
			c, err := f.dirs[n].NewCreated(v)
			must(t, err)
			must(t, f.dirs[n].AppendTransfer(c))
			f.disks[n][v] = &copyOf{took: c.Hash()}
		},
		"title": func(t *rapid.T) {
			v, n := vm(t), name(t)
			_, owner, _ := f.dirs[n].Owner(v)
			err := f.dirs[n].PutVM(VM{ID: v, Name: f.title()})
			if (err == nil) != (owner == id(n)) || err != nil && !errors.Is(err, ErrNotOwner) {
				t.Fatalf("%s writes %s of %s: %v", n, v, short(owner), err)
			}
		},
		"remove": func(t *rapid.T) {
			by, n := name(t), name(t)
			if by == n || len(f.out) > 1 || !f.dirs[by].IsMember(id(n)) {
				t.Skip("enough")
			}
			must(t, f.dirs[by].RemoveMember(id(n), rapid.Bool().Draw(t, "wipe")))
			f.out[n] = true
		},
		"leave": func(t *rapid.T) {
			n := name(t)
			if len(f.out) > 1 {
				t.Skip("enough")
			}
			must(t, f.dirs[n].Leave())
			f.out[n] = true
		},
		"tell the removed": func(t *rapid.T) {
			by, n := name(t), name(t)
			r, ok := f.dirs[by].Removal(id(n))
			if !ok || by == n {
				t.Skip("not removed")
			}
			_, err := f.dirs[n].AcceptRemoval(r)
			if err == nil && len(f.dirs[n].Members()) != 0 {
				t.Fatalf("%s was removed and has members", n)
			}
		},
		"pair": func(t *rapid.T) {
			a, b := name(t), name(t)
			if a == b {
				t.Skip("alone")
			}
			must(t, f.dirs[a].AddMember(Member{ID: id(b), Name: b}))
			must(t, f.dirs[b].AddMember(Member{ID: id(a), Name: a}))
		},
		"device": func(t *rapid.T) {
			n, title := name(t), f.title()
			must(t, f.dirs[n].PutDevice(Device{Name: title}))
			f.device[n] = title
		},
		"restart": func(t *rapid.T) {
			n := name(t)
			before, heads := shared(f.dirs[n]), fmt.Sprint(hashes(f.dirs[n].Heads("v")))
			f.dirs[n] = open(t, f.stores[n], n)
			f.wrongClock(n)
			if !maps.Equal(before, shared(f.dirs[n])) || heads != fmt.Sprint(hashes(f.dirs[n].Heads("v"))) {
				t.Fatalf("%s restarts with other records", n)
			}
		},
	}
}

func (f *fleet) write(n, v string) {
	disk := f.disks[n][v]
	term, _, _ := f.dirs[n].Owner(v)
	f.n++
	disk.writes = append(slices.Clone(disk.writes), f.n)
	disk.pos = Position{term, disk.pos.Barrier + 1}
}

// mirror copies an owner's disk to a replica, if the replica's content is part of it.
func (f *fleet) mirror(name, vm func(*rapid.T) string) func(*rapid.T) {
	return func(t *rapid.T) {
		v, from, to := vm(t), name(t), name(t)
		if !f.owns(from, v) || !f.linked(from, to) {
			t.Skip("not the owner")
		}
		f.meet(t, from, to)
		if !f.owns(from, v) {
			return
		}
		src, dst := f.disks[from][v], f.disks[to][v]
		if dst == nil {
			dst = f.blank()
			f.disks[to][v] = dst
		}
		if dst.kept || dst.took != (Hash{}) {
			return
		}
		f.mustHave(t, to, v, src, dst)
		dst.writes, dst.pos = src.writes, src.pos
	}
}

// mustHave says that a replica isn't called behind an owner whose disk lacks some of it, and, where both are on the owner's
// history, that the reverse is so too.
func (f *fleet) mustHave(t *rapid.T, name, v string, owner, replica *copyOf) {
	prefix := len(replica.writes) <= len(owner.writes) && slices.Equal(replica.writes, owner.writes[:len(replica.writes)])
	r := f.dirs[name].Relation(owner.took, replica.pos)
	if r == RelationBehind && !prefix {
		t.Fatalf("%s's %s at %v %v would lose against %v %v", name, v, replica.pos, replica.writes, owner.pos, owner.writes)
	}
	if r == RelationDiverged && prefix {
		t.Fatalf("%s's %s at %v %v is part of %v %v and called diverged", name, v, replica.pos, replica.writes, owner.pos, owner.writes)
	}
}

// meet lets two devices exchange, if both let each other in.
func (f *fleet) meet(t *rapid.T, a, b string) {
	if !f.linked(a, b) {
		return
	}
	for range 100 {
		if !f.linked(a, b) || !send(f.dirs[a], f.dirs[b]) && !send(f.dirs[b], f.dirs[a]) {
			break
		}
	}
	f.settle(t, a)
	f.settle(t, b)
}

// check looks at what holds at every moment.
func (f *fleet) check(t *rapid.T) {
	for n, d := range f.dirs {
		digest := d.Digest()
		for k, v := range f.seen[n] {
			if now, ok := digest[k]; ok && now < v {
				t.Fatalf("%s: %s went from %d to %d", n, k, v, now)
			}
		}
		f.seen[n] = digest
		for _, v := range []string{"v", "w"} {
			if len(d.Forks(v)) > 0 {
				t.Fatalf("%s sees a double signature", n)
			}
			got, want := hashes(d.Heads(v)), reference(d.History(v), d.isRemoved)
			if !slices.Equal(got, want) {
				t.Fatalf("%s has heads %v, by the rules %v", n, got, want)
			}
		}
		if s := d.Strikes(); len(s) > 0 {
			t.Fatalf("%s takes honest devices for liars: %v", n, s)
		}
	}
}

// reference tells the rules of Heads once more, slowly.
func reference(history []SignedTransfer, removed func(string) bool) []Hash {
	at := map[uint64]SignedTransfer{}
	children := map[Hash][]SignedTransfer{}
	for _, x := range history {
		at[x.Term] = x
		if x.Kind != KindCreated {
			children[x.Prev] = append(children[x.Prev], x)
		}
	}
	var within func(a, b Position) bool // b is part of a
	within = func(a, b Position) bool {
		if a.Term <= b.Term || b.Term == 0 {
			return b.Term == 0 || a.Term == b.Term && b.Barrier <= a.Barrier
		}
		if x := at[a.Term]; x.Kind == KindResolved {
			term := uint64(0)
			for _, p := range history { // by rising term
				if p.Hash() == x.Prev || p.Kind == KindResolved && p.Prev == x.Prev && p.Term < x.Term {
					term = p.Term
				}
			}
			return within(Position{term, 1 << 62}, b)
		}
		if began := at[a.Term].Position; began.Term < a.Term {
			return within(began, b)
		}
		return b.Term == 0
	}
	var alive func(x SignedTransfer) bool
	alive = func(x SignedTransfer) bool {
		if slices.ContainsFunc(children[x.Hash()], alive) {
			return true
		}
		if x.Kind == KindKept && x.From != x.To && !slices.ContainsFunc(children[x.Prev], func(c SignedTransfer) bool { return c.Kind != KindKept && alive(c) }) {
			return false
		}
		return x.Kind == KindCreated || x.Kind == KindSwitch || x.Kind == KindReturned || !removed(x.Record.Writer)
	}
	var list []SignedTransfer
	for _, x := range history {
		givenUp := slices.ContainsFunc(history, func(r SignedTransfer) bool {
			return r.Kind == KindResolved && alive(r) && slices.Contains(r.Over, x.Hash())
		})
		covered := func(c SignedTransfer) bool {
			if x.Kind != KindKept || c.Kind != KindKept || c.Hash() == x.Hash() || x.From == x.To || !alive(c) || !within(c.Position, x.Position) {
				return false
			}
			return !within(x.Position, c.Position) || c.From == c.To || c.Hash().String() < x.Hash().String()
		}
		if alive(x) && !givenUp && !slices.ContainsFunc(children[x.Hash()], alive) && !slices.ContainsFunc(children[x.Prev], covered) {
			list = append(list, x)
		}
	}
	all := list
	list = slices.DeleteFunc(slices.Clone(list), func(x SignedTransfer) bool {
		if x.Kind == KindSwitch || x.Kind == KindReturned {
			has := func(c SignedTransfer) bool { // all that x gave, in another's hands or kept
				return (c.Kind == KindTakeover || c.Kind == KindKept) && alive(c) && within(c.Position, x.Position)
			}
			beside := slices.DeleteFunc(slices.Clone(children[x.Prev]), func(c SignedTransfer) bool { return !has(c) })
			if slices.ContainsFunc(beside, func(c SignedTransfer) bool { return c.To == x.To }) {
				return true
			}
			kept := slices.ContainsFunc(beside, func(c SignedTransfer) bool { return c.Kind == KindKept })
			before := map[Hash]bool{x.Hash(): true} // x, and what it comes from
			for i := range history {
				if y := history[len(history)-1-i]; before[y.Hash()] && y.Kind != KindCreated {
					before[y.Prev] = true
				}
			}
			return kept && slices.ContainsFunc(history, func(c SignedTransfer) bool {
				return c.Kind == KindTakeover && c.To == x.To && before[c.Prev] && !before[c.Hash()] && c.Prev != x.Hash() && alive(c)
			})
		}
		return x.Kind == KindResolved && slices.ContainsFunc(children[x.Prev], func(c SignedTransfer) bool {
			same := c.Kind == KindResolved && (c.Term > x.Term || len(children[c.Hash()]) > 0)
			return c.Hash() != x.Hash() && alive(c) && (same || c.Kind == KindSwitch || c.Kind == KindReturned)
		})
	})
	if len(list) == 0 && len(all) > 0 {
		list = all[len(all)-1:]
	}
	slices.SortFunc(list, func(a, b SignedTransfer) int {
		if (a.Kind == KindKept) != (b.Kind == KindKept) {
			if a.Kind == KindKept {
				return 1
			}
			return -1
		}
		return int(b.Term) - int(a.Term)
	})
	return hashes(list)
}

// TestModel lets a fleet do anything, then meet: those that are one fleet must agree on everything.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFleet(t)
		t.Repeat(f.actions())
		for range len(f.names) + 2 {
			for i, a := range f.names {
				for _, b := range f.names[:i] {
					f.meet(t, a, b)
				}
			}
		}
		f.check(t)
		for i, a := range f.names {
			for _, b := range f.names[:i] {
				if f.linked(a, b) {
					f.agree(t, a, b)
				}
			}
			for m, title := range f.device {
				for _, dev := range f.dirs[a].Devices() {
					if dev.ID == id(m) && (f.linked(a, m) || a == m) && dev.Name != title {
						t.Fatalf("%s calls %s %q, its name is %q", a, m, dev.Name, title)
					}
				}
			}
		}
	})
}

// agree compares two devices of one fleet that have met everybody.
func (f *fleet) agree(t *rapid.T, a, b string) {
	x, y := f.dirs[a], f.dirs[b]
	if !maps.Equal(x.Digest(), y.Digest()) {
		t.Fatalf("%s and %s differ:\n%v\n%v", a, b, x.Digest(), y.Digest())
	}
	for _, v := range []string{"v", "w"} {
		if one, two := hashes(x.Heads(v)), hashes(y.Heads(v)); !slices.Equal(one, two) {
			t.Fatalf("%s and %s have heads %v and %v", a, b, one, two)
		}
		if one, two := x.CommonPosition(v), y.CommonPosition(v); one != two {
			t.Fatalf("%s and %s have %v and %v in common", a, b, one, two)
		}
		one, ok := x.VM(v)
		two, too := y.VM(v)
		if ok != too || one.Name != two.Name || one.Head != two.Head {
			t.Fatalf("%s and %s have %+v and %+v", a, b, one, two)
		}
		if f.owns(a, v) && f.owns(b, v) {
			t.Fatalf("%s and %s both own %s", a, b, v)
		}
		for _, p := range [][2]string{{a, b}, {b, a}} {
			if own, other := f.disks[p[0]][v], f.disks[p[1]][v]; f.owns(p[0], v) && other != nil && !other.kept && other.took == (Hash{}) {
				f.mustHave(t, p[1], v, own, other)
			}
		}
	}
}
