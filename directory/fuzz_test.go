package directory

import (
	"encoding/json"
	"errors"
	"maps"
	"testing"

	"github.com/zeebo/blake3"
)

// seeds is a fleet in which everything has happened, and the records that say so.
func seeds(f *testing.F) (a *Directory, records []Record) {
	a, b := fresh(f, "a", "b", "evil"), fresh(f, "b", "a", "evil")
	create(f, a, "v")
	_, err := a.Give("v", 2, id("evil"), "t", Position{1, 3}, KindSwitch)
	must(f, err)
	must(f, a.PutDevice(Device{Name: "a"}))
	must(f, a.PutNote(Note{VM: "v", Term: 1, How: "created"}))
	all(f, a, b)
	fork := head(b)
	taken, err := b.TakeOver("v", fork, Position{1, 2})
	must(f, err)
	all(f, a, b)
	kept, err := a.Keep("v", fork, Position{1, 3})
	must(f, err)
	must(f, b.PutVM(VM{ID: "v", Name: "taken"}))
	all(f, a, b)
	_, err = b.Resolve("v", kept.Hash(), []Hash{taken.Hash()}, Position{1, 3}, "both", "two")
	must(f, err)
	must(f, a.AddMember(Member{ID: id("gone"), Name: "gone"}))
	must(f, a.RemoveMember(id("gone"), true))
	all(f, a, b)
	return a, a.Get(sortedStrings(a.Digest()))
}

func feed(t *testing.T, d *Directory, records []Record) {
	t.Helper()
	for _, r := range records {
		// The device has signed its own words about members again.
		if err := d.Apply(id("a"), r); err != nil && !errors.Is(err, errSame) {
			t.Fatal(err)
		}
	}
}

// FuzzApply sends anything, properly signed by a member of the fleet where that helps: memory and history stay whole, the
// heads follow the rules, and what was stored can be loaded again and is accepted by the next.
func FuzzApply(f *testing.F) {
	a, records := seeds(f)
	for _, r := range records {
		f.Add(r.Key, r.Version, string(r.Value), true)
	}
	prev, _ := a.Transfer("v", 2)
	evil := id("evil")
	takeover := Transfer{VM: "v", From: evil, To: evil, Prev: prev.Hash(), Kind: KindTakeover, Position: Position{1, 1}}
	takeover.Term = a.trees["v"].forcedTerm(a.trees["v"].nodes[prev.Hash()], takeover)
	for _, r := range []Record{
		forgeTransfer("evil", Transfer{VM: "v", Term: 3, From: evil, To: id("a"), Prev: prev.Hash(), Kind: KindSwitch}),
		forgeTransfer("evil", Transfer{VM: "v", Term: 1, To: evil, Kind: KindCreated}),
		forgeTransfer("evil", takeover),
		forgeVM("evil", VM{ID: "v", Term: 2, Owner: evil, Head: prev.Hash(), Spec: json.RawMessage(`{"a":[1,{}]}`)}, 1),
	} {
		f.Add(r.Key, r.Version, string(r.Value), true)
		if st, err := readTransfer(r); err == nil {
			fork, err := forkRecord(st)
			must(f, err)
			f.Add(fork.Key, fork.Version, string(fork.Value), false)
		}
	}
	f.Add("device/"+evil, uint64(1)<<63, `{"schema":1,"body":{"id":"`+evil+`"}}`, true)
	f.Add(memberKey(id("b"), evil), uint64(6), `{"schema":1,"body":{"device":"`+id("b")+`","by":"`+evil+`","gen":1,"removed":true}}`, true)
	f.Add(memberKey("x", evil), uint64(4), `{"schema":1,"body":{"device":"x","by":"`+evil+`","gen":1}}`, true)
	f.Add("vm/x", uint64(1)<<32, `{"schema":1,"body":null}`, false)
	// Signing and verifying the same again would take most of the time.
	fed := open(f, &memory{m: map[string][]byte{}}, "b", "a", "evil")
	for _, r := range records {
		if err := fed.Apply(id("a"), r); err != nil && !errors.Is(err, errSame) {
			f.Fatal(err)
		}
	}
	next := fresh(f, "c", "a", "b", "evil")
	stores := map[string]map[string][]byte{"b": fed.store.(*memory).m, "c": next.store.(*memory).m}
	trusted := map[Hash]bool{}
	for _, r := range append(records, fed.Get(sortedStrings(fed.Digest()))...) {
		trusted[r.hash()] = true
	}
	quick := func(t *testing.T, name string, m map[string][]byte) *Directory {
		o := opts(name, "unused")
		o.Verify = func(id string, msg, sig []byte) error {
			if trusted[blake3.Sum256(msg)] {
				return nil
			}
			return verify(id, msg, sig)
		}
		d, err := newDirectory(o)
		must(t, err)
		must(t, d.load(&memory{m: maps.Clone(m)}))
		return d
	}
	f.Fuzz(func(t *testing.T, key string, version uint64, value string, signed bool) {
		d := quick(t, "b", stores["b"])
		r := Record{Key: key, Version: version, Writer: evil, Value: []byte(value), Sig: []byte("no")}
		if signed {
			if kindOf(key) == "transfer" {
				r.Version = transferVersion(r.Value)
			}
			r = forge("evil", r)
		}
		before, history := shared(d), d.History("v")
		if err := d.Apply(evil, r); err != nil {
			if !maps.Equal(shared(d), before) || len(d.History("v")) != len(history) {
				t.Fatalf("refused with %v, but something was stored", err)
			}
			return
		}
		now := map[Hash]bool{}
		for _, x := range d.History("v") {
			now[x.Hash()] = true
		}
		for _, x := range history {
			if !now[x.Hash()] {
				t.Fatal("the history was overwritten")
			}
		}
		whole(t, d)
		again := quick(t, "b", d.store.(*memory).m)
		if !maps.Equal(shared(again), shared(d)) {
			t.Fatal("what was stored loads otherwise")
		}
		if _, out := d.Removal(id("b")); out {
			return // it told that we were removed: a fleet of one
		}
		e := quick(t, "c", stores["c"])
		send(d, e)
		if len(e.History("v")) != len(now) {
			t.Fatalf("what was accepted is refused by the next: %v and %v", d.Digest(), e.Digest())
		}
	})
}

// whole fails unless what d says of v makes sense.
func whole(t *testing.T, d *Directory) {
	t.Helper()
	heads := d.Heads("v")
	if got, want := hashes(heads), reference(d.History("v"), d.isRemoved); len(got) != len(want) || len(got) == 0 || got[0] != want[0] {
		t.Fatalf("heads %v, by the rules %v", got, want)
	}
	for _, h := range heads {
		for _, x := range d.History("v") {
			_ = d.Relation(h.Hash(), x.Position)
			_ = d.GivenUp(x.Hash())
		}
	}
	_ = d.CommonPosition("v")
	_, _ = d.VM("v")
	_ = d.Members()
	_ = d.Replicas("v")
}

// FuzzRemoval shows anything as the record that removed this device, or another: only a member's true word counts.
func FuzzRemoval(f *testing.F) {
	a, records := seeds(f)
	must(f, a.RemoveMember(id("b"), true))
	r, _ := a.Removal(id("b"))
	f.Add(r.Key, r.Version, string(r.Value), false)
	for _, r := range records {
		if kindOf(r.Key) == "member" {
			f.Add(r.Key, r.Version, string(r.Value), false)
			f.Add(r.Key, r.Version, string(r.Value), true)
		}
	}
	f.Add(memberKey(id("b"), id("evil")), uint64(6), `{"schema":1,"body":{"device":"`+id("b")+`","by":"`+id("evil")+`","gen":1,"removed":true}}`, true)
	f.Add(memberKey(id("evil"), id("evil")), uint64(6), `{"schema":1,"body":{"device":"`+id("evil")+`","by":"`+id("evil")+`","gen":1,"removed":true}}`, true)
	f.Fuzz(func(t *testing.T, key string, version uint64, value string, evil bool) {
		s := &memory{m: map[string][]byte{}}
		d := open(t, s, "b", "a", "evil")
		by := "stranger"
		if evil {
			by = "evil"
		}
		r := forge(by, Record{Key: key, Version: version, Writer: id(by), Value: []byte(value)})
		before := d.Members()
		_, err := d.AcceptRemoval(r)
		if _, out := d.Removal(id("b")); out != (err == nil) || out && len(d.Members()) != 0 || !out && len(d.Members()) != len(before) {
			t.Fatalf("%v, but members are %v", err, d.Members())
		}
		if err == nil && by != "evil" {
			t.Fatal("removed by a stranger")
		}
		if err := d.AcceptWord(r); err == nil && d.IsMember(id(by)) {
			t.Fatal("a device's word of its own removal left it in")
		}
		open(t, s, "b")
	})
}

// FuzzTransfer reads anything as a transfer that a message carries.
func FuzzTransfer(f *testing.F) {
	a, records := seeds(f)
	for _, x := range a.History("v") {
		b, err := json.Marshal(x)
		must(f, err)
		f.Add(b)
	}
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"key":"transfer/v/0000000001","value":"bnVsbA==","sig":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var x SignedTransfer
		if json.Unmarshal(b, &x) != nil {
			return
		}
		if x.check() != nil || x.Record.Writer != x.signer() || x.Record.checkSize() != nil {
			t.Fatalf("read %+v", x.Transfer)
		}
		d := fresh(t, "b", "a", "evil")
		feed(t, d, records)
		if err := d.AppendTransfer(x); err == nil {
			whole(t, d)
		}
	})
}

// FuzzLoad opens a store in which anything stands under a key: it is refused, or it is a directory that works.
func FuzzLoad(f *testing.F) {
	a, _ := seeds(f)
	stored := a.store.(*memory).m
	for k, v := range stored {
		f.Add(k, v)
	}
	f.Add(formatKey, []byte("1"))
	f.Add("local/exile", []byte(`{"schema":1,"body":{"out":{},"gen":1,"former":[{"id":"x"}]}}`))
	f.Add("local/strikes/x", []byte(`{"schema":1,"body":{"count":-1}}`))
	f.Add("local/member/x", []byte(`{"schema":1,"body":{"id":"x","removed":true}}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		m := maps.Clone(stored)
		m[key] = value
		d, err := newDirectory(opts("a", "unused"))
		must(t, err)
		if d.load(&memory{m: m}) != nil {
			return
		}
		if len(d.Heads("v")) > 0 {
			whole(t, d)
		}
		_ = d.Digest()
		_ = d.Former()
		_ = d.Strikes()
		_, _ = d.Removal(id("a"))
		must(t, d.PutDevice(Device{Name: "on"}))
	})
}
