package directory

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// fleet is a few directories, and the reference: who owns each VM is the last
// of a list, and what was written last is a name.
type fleet struct {
	names  []string
	dirs   map[string]*Directory
	stores map[string]*memory
	owners map[string][]string // by VM, of terms 1, 2, …
	titles map[string]string   // by VM
	device map[string]string   // by name
	seen   map[string]map[string]uint64
	n      int
}

func newFleet(t *rapid.T) *fleet {
	f := &fleet{
		names:  []string{"a", "b", "c"},
		dirs:   map[string]*Directory{},
		stores: map[string]*memory{},
		owners: map[string][]string{},
		titles: map[string]string{},
		device: map[string]string{},
		seen:   map[string]map[string]uint64{},
	}
	for _, n := range f.names {
		f.stores[n] = &memory{m: map[string][]byte{}}
		f.dirs[n] = open(t, f.stores[n], n, f.names...)
	}
	return f
}

func (f *fleet) title() string {
	f.n++
	return fmt.Sprint("title ", f.n)
}

func (f *fleet) actions() map[string]func(*rapid.T) {
	name := func(t *rapid.T) string { return rapid.SampledFrom(f.names).Draw(t, "device") }
	vm := func(t *rapid.T) string { return rapid.SampledFrom([]string{"v", "w"}).Draw(t, "vm") }
	return map[string]func(*rapid.T){
		"create": func(t *rapid.T) {
			v := vm(t)
			if len(f.owners[v]) > 0 {
				t.Skip("exists")
			}
			n := name(t)
			c, err := f.dirs[n].NewCreated(v)
			must(t, err)
			must(t, f.dirs[n].AppendTransfer(c))
			f.owners[v] = []string{n}
		},
		"give": func(t *rapid.T) {
			v, from, to := vm(t), name(t), name(t)
			d, term := f.dirs[from], uint64(len(f.owners[v])+1)
			_, err := d.Give(v, term, id(to), "t", Position{term, 1}, KindSwitch)
			known := uint64(len(d.Chain(v)))
			legal := len(f.owners[v]) > 0 && f.owners[v][term-2] == from && from != to
			if (err == nil) != legal {
				t.Fatalf("%s gives %s to %s: %v, the chain there has %d", from, v, to, err, known)
			}
			if legal {
				f.owners[v] = append(f.owners[v], to)
				tr, _ := d.Transfer(v, term)
				// The receiver gets it at once, with all before it, as by the hand-off.
				for _, before := range d.Chain(v) {
					must(t, f.dirs[to].AppendTransfer(before))
				}
				must(t, f.dirs[to].AppendTransfer(tr))
			}
		},
		"write": func(t *rapid.T) {
			v, n, title := vm(t), name(t), f.title()
			err := f.dirs[n].PutVM(VM{ID: v, Name: title})
			legal := len(f.owners[v]) > 0 && f.owners[v][len(f.owners[v])-1] == n
			if (err == nil) != legal || err != nil && !errors.Is(err, ErrNotOwner) {
				t.Fatalf("%s writes %s: %v, legal %v", n, v, err, legal)
			}
			if legal {
				f.titles[v] = title
			}
		},
		"device": func(t *rapid.T) {
			n, title := name(t), f.title()
			must(t, f.dirs[n].PutDevice(Device{Name: title}))
			f.device[n] = title
		},
		"one record": func(t *rapid.T) {
			from, to := f.dirs[name(t)], f.dirs[name(t)]
			keys := sortedStrings(from.Digest())
			if len(keys) == 0 {
				t.Skip("empty")
			}
			k := rapid.SampledFrom(keys).Draw(t, "key")
			_ = to.Apply(from.opt.Self, from.Get([]string{k})[0]) // may come too early
		},
		"meet": func(t *rapid.T) { send(f.dirs[name(t)], f.dirs[name(t)]) },
		"restart": func(t *rapid.T) {
			n := name(t)
			before := shared(f.dirs[n])
			f.dirs[n] = open(t, f.stores[n], n)
			if !maps.Equal(before, shared(f.dirs[n])) {
				t.Fatalf("%s restarts with other records", n)
			}
		},
		"": f.check,
	}
}

// check compares every directory with the reference: each knows a beginning of
// the truth, and nothing goes backwards.
func (f *fleet) check(t *rapid.T) {
	for n, d := range f.dirs {
		digest := d.Digest()
		for k, v := range f.seen[n] {
			if digest[k] < v {
				t.Fatalf("%s: %s went from %d to %d", n, k, v, digest[k])
			}
		}
		f.seen[n] = digest
		for v, owners := range f.owners {
			chain := d.Chain(v)
			if len(chain) > len(owners) {
				t.Fatalf("%s knows %d terms of %s, there are %d", n, len(chain), v, len(owners))
			}
			for i, tr := range chain {
				if tr.To != id(owners[i]) {
					t.Fatalf("%s has %s as owner %d of %s", n, short(tr.To), i+1, v)
				}
			}
			if len(d.Forks(v)) > 0 {
				t.Fatalf("%s sees a fork", n)
			}
		}
	}
}

// TestModel lets a fleet do anything, then meet: all must know the truth.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFleet(t)
		t.Repeat(f.actions())
		for range len(f.names) {
			for _, a := range f.names {
				for _, b := range f.names {
					if a < b {
						meet(t, f.dirs[a], f.dirs[b])
					}
				}
			}
		}
		want := shared(f.dirs["a"])
		for n, d := range f.dirs {
			if !maps.Equal(shared(d), want) {
				t.Fatalf("%s and a differ:\n%v\n%v", n, d.Digest(), f.dirs["a"].Digest())
			}
			for v, owners := range f.owners {
				if term, owner, _ := d.Owner(v); term != uint64(len(owners)) || owner != id(owners[len(owners)-1]) {
					t.Fatalf("%s has term %d of %s", n, term, v)
				}
				if vm, ok := d.VM(v); ok != (f.titles[v] != "") || vm.Name != f.titles[v] {
					t.Fatalf("%s calls %s %q, its name is %q", n, v, vm.Name, f.titles[v])
				}
			}
			for _, dev := range d.Devices() {
				for m, title := range f.device {
					if dev.ID == id(m) && dev.Name != title {
						t.Fatalf("%s calls %s %q, its name is %q", n, m, dev.Name, title)
					}
				}
			}
			if len(d.Devices()) != len(f.device) {
				t.Fatalf("%s knows %d devices, there are %d", n, len(d.Devices()), len(f.device))
			}
		}
	})
}
