package directory

import (
	"crypto/ed25519"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

func sortedStrings[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// forge signs what an honest device never would.
func forge(name string, r Record) Record {
	_, k := key(name)
	r.Sig = ed25519.Sign(k, r.message())
	return r
}

func forgeTransfer(name string, tr Transfer) Record {
	value, _ := encodeValue(tr)
	return forge(name, Record{Key: transferKey(tr.VM, tr.Term), Version: transferVersion(value), Writer: id(name), Value: value})
}

func forgeVM(name string, vm VM, n uint64) Record {
	value, _ := encodeValue(vm)
	return forge(name, Record{Key: "vm/" + vm.ID, Version: vm.Term<<32 | n, Writer: id(name), Value: value})
}

// TestHostileRecords: a member of the fleet that lies gets nothing stored.
func TestHostileRecords(t *testing.T) {
	a, b := fresh(t, "a", "b", "evil"), fresh(t, "b", "a", "evil")
	create(t, a, "v")
	_, err := a.Give("v", 2, id("b"), "t", Position{1, 3}, KindSwitch)
	must(t, err)
	must(t, a.PutDevice(Device{Name: "a"}))
	meet(t, a, b)
	must(t, b.PutVM(VM{ID: "v", Name: "Work"}))
	chain, head := b.Chain("v"), b.Chain("v")[1].Hash()
	before := shared(b)
	device := a.Get([]string{"device/" + id("a")})[0]
	vm := b.Get([]string{"vm/v"})[0]
	change := func(r Record, f func(*Record)) Record {
		f(&r)
		return r
	}
	mustValue := func(v any) []byte {
		x, err := json.Marshal(v)
		must(t, err)
		return x
	}
	for name, c := range map[string]struct {
		r    Record
		want error
	}{
		"nothing":         {Record{}, ErrInvalid},
		"version 0":       {change(device, func(r *Record) { r.Version = 0 }), ErrInvalid},
		"long key":        {change(device, func(r *Record) { r.Key = "device/" + strings.Repeat("x", MaxKey) }), ErrInvalid},
		"long value":      {change(device, func(r *Record) { r.Value = make([]byte, MaxValue+1) }), ErrInvalid},
		"long signature":  {change(device, func(r *Record) { r.Sig = make([]byte, MaxSig+1) }), ErrInvalid},
		"local":           {change(device, func(r *Record) { r.Key = "local/kv/x" }), ErrInvalid},
		"meta":            {change(device, func(r *Record) { r.Key = formatKey }), ErrInvalid},
		"no kind":         {change(device, func(r *Record) { r.Key = "device" }), ErrInvalid},
		"higher version":  {change(device, func(r *Record) { r.Version = 99 }), ErrSignature},
		"other's device":  {change(device, func(r *Record) { r.Version, r.Writer = 99, id("evil") }), ErrInvalid},
		"a stranger's":    {forge("stranger", Record{Key: "device/" + id("stranger"), Version: 1, Writer: id("stranger"), Value: mustValue(versioned[Device]{1, Device{ID: id("stranger")}})}), ErrUnknownDevice},
		"newer schema":    {forge("evil", Record{Key: "device/" + id("evil"), Version: 1, Writer: id("evil"), Value: mustValue(versioned[Device]{2, Device{ID: id("evil")}})}), ErrVersion},
		"no JSON":         {forge("evil", Record{Key: "device/" + id("evil"), Version: 1, Writer: id("evil"), Value: []byte("{")}), ErrInvalid},
		"same version":    {forgeVM("b", VM{ID: "v", Name: "Evil", Term: 2, Owner: id("b"), Head: head}, vm.Version&0xffff), ErrInvalid},
		"not the owner":   {forgeVM("evil", VM{ID: "v", Term: 2, Owner: id("evil"), Head: head}, 9), ErrNotOwner},
		"for the owner":   {forgeVM("evil", VM{ID: "v", Term: 2, Owner: id("b"), Head: head}, 9), ErrNotOwner},
		"a later term":    {forgeVM("evil", VM{ID: "v", Term: 3, Owner: id("evil"), Head: head}, 9), ErrGap},
		"wrong head":      {forgeVM("b", VM{ID: "v", Term: 2, Owner: id("b")}, 9), ErrFork},
		"wrong term":      {change(forgeVM("b", VM{ID: "v", Term: 2, Owner: id("b"), Head: head}, 9), func(r *Record) { r.Version += 1 << 32 }), ErrInvalid},
		"stolen":          {forgeTransfer("evil", Transfer{VM: "v", Term: 3, From: id("evil"), To: id("a"), Prev: head, Kind: KindSwitch}), ErrNotOwner},
		"signed by other": {change(forgeTransfer("evil", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: head, Kind: KindSwitch}), func(r *Record) { r.Writer = id("b") }), ErrSignature},
		"of another past": {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: chain[0].Hash(), Kind: KindSwitch}), ErrNotOwner},
		"a leap":          {forgeTransfer("b", Transfer{VM: "v", Term: 4, From: id("b"), To: id("evil"), Prev: head, Kind: KindSwitch}), ErrChain},
		"back to another": {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: head, Kind: KindReturned}), ErrChain},
		"to itself":       {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("b"), Prev: head, Kind: KindSwitch}), ErrInvalid},
		"created again":   {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: head, Kind: KindCreated}), ErrInvalid},
		"unknown kind":    {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: head, Kind: "stolen"}), ErrInvalid},
		"slash in a name": {forgeTransfer("evil", Transfer{VM: "v/w", Term: 1, To: id("evil"), Kind: KindCreated}), ErrInvalid},
		"false fork":      {Record{Key: "fork/v/0000000001/00", Version: 1, Writer: id("evil"), Value: []byte("{}")}, ErrInvalid},
	} {
		if err := b.Apply(id("evil"), c.r); err == nil || !isErr(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if !maps.Equal(shared(b), before) {
			t.Fatalf("%s was stored", name)
		}
	}
	wantErr(t, b.Apply("nobody", device), ErrUnknownDevice)
	// An older value is nothing new, and no error.
	must(t, b.Apply(id("evil"), forgeVM("a", VM{ID: "v", Term: 1, Owner: id("a"), Head: chain[0].Hash()}, 7)))
	if !maps.Equal(shared(b), before) {
		t.Fatal("an older term replaced a newer one")
	}
}

func isErr(err, want error) bool {
	for _, e := range []error{ErrInvalid, ErrSignature, ErrUnknownDevice, ErrVersion, ErrNotOwner, ErrGap, ErrFork, ErrChain} {
		if e == want {
			return strings.Contains(err.Error(), e.Error())
		}
	}
	return false
}

// FuzzApply sends anything, properly signed by a member of the fleet where that
// helps: memory and chain stay whole, and what it stored can be loaded again.
func FuzzApply(f *testing.F) {
	a := fresh(f, "a", "b", "evil")
	create(f, a, "v")
	_, err := a.Give("v", 2, id("evil"), "t", Position{1, 3}, KindSwitch)
	must(f, err)
	must(f, a.PutDevice(Device{Name: "a"}))
	records := a.Get(sortedStrings(a.Digest()))
	for _, r := range records {
		f.Add(r.Key, r.Version, string(r.Value), true)
	}
	prev, _ := a.Transfer("v", 2)
	for _, r := range []Record{
		forgeTransfer("evil", Transfer{VM: "v", Term: 3, From: id("evil"), To: id("a"), Prev: prev.Hash(), Kind: KindSwitch}),
		forgeTransfer("evil", Transfer{VM: "v", Term: 1, To: id("evil"), Kind: KindCreated}),
		forgeVM("evil", VM{ID: "v", Term: 2, Owner: id("evil"), Head: prev.Hash(), Spec: json.RawMessage(`{"a":[1,{}]}`)}, 1),
	} {
		f.Add(r.Key, r.Version, string(r.Value), true)
		st, err := readTransfer(r)
		if err == nil {
			fork, err := forkRecord(st)
			must(f, err)
			f.Add(fork.Key, fork.Version, string(fork.Value), false)
		}
	}
	f.Add("device/"+id("evil"), uint64(1)<<63, `{"schema":1,"body":{"id":"`+id("evil")+`"}}`, true)
	f.Add("vm/x", uint64(1)<<32, `{"schema":1,"body":null}`, false)
	f.Fuzz(func(t *testing.T, key string, version uint64, value string, signed bool) {
		s := &memory{m: map[string][]byte{}}
		d := open(t, s, "b", "a", "evil")
		for _, r := range records {
			must(t, d.Apply(id("a"), r))
		}
		r := Record{Key: key, Version: version, Writer: id("evil"), Value: []byte(value), Sig: []byte("no")}
		if signed {
			if kindOf(key) == "transfer" {
				r.Version = transferVersion(r.Value)
			}
			r = forge("evil", r)
		}
		before, chain := shared(d), d.Chain("v")
		if err := d.Apply(id("evil"), r); err != nil && !maps.Equal(shared(d), before) {
			t.Fatalf("refused with %v, but something was stored", err)
		}
		now := d.Chain("v")
		for i := range chain {
			if now[i].Hash() != chain[i].Hash() {
				t.Fatal("the chain was overwritten")
			}
		}
		again := open(t, s, "b")
		if !maps.Equal(shared(again), shared(d)) {
			t.Fatal("what was stored loads otherwise")
		}
		e := fresh(t, "c", "a", "b", "evil")
		send(d, e)
		if len(e.Chain("v")) != len(now) {
			t.Fatalf("what was accepted is refused by the next: %v and %v", d.Digest(), e.Digest())
		}
	})
}
