package directory

import (
	"testing"
)

// fleetOf is a fleet whose devices have met.
func fleetOf(t *testing.T, names ...string) (map[string]*Directory, map[string]*memory) {
	t.Helper()
	fleet, stores := map[string]*Directory{}, map[string]*memory{}
	for _, n := range names {
		stores[n] = &memory{m: map[string][]byte{}}
		fleet[n] = open(t, stores[n], n, names...)
		must(t, fleet[n].PutDevice(Device{Name: n, Addrs: []string{"/at/" + n}}))
	}
	for _, a := range names {
		for _, b := range names {
			if a < b {
				meet(t, fleet[a], fleet[b])
			}
		}
	}
	return fleet, stores
}

func removal(t *testing.T, d *Directory, name string) Record {
	t.Helper()
	r, ok := d.Removal(id(name))
	if !ok {
		t.Fatalf("%s knows of no removal of %s", short(d.opt.Self), name)
	}
	return r
}

// told is what a device knows of another one that was removed.
func told(t *testing.T, d *Directory, name string) Member {
	t.Helper()
	for _, m := range d.RemovedMembers() {
		if m.ID == id(name) {
			return m
		}
	}
	t.Fatalf("%s wasn't removed", name)
	return Member{}
}

func TestARemovedDeviceSaysThatItKnows(t *testing.T) {
	fleet, stores := fleetOf(t, "desk", "laptop", "nas")
	desk, laptop, nas := fleet["desk"], fleet["laptop"], fleet["nas"]
	must(t, desk.RemoveMember(id("laptop"), true))
	if _, err := laptop.Acknowledge(false); err == nil {
		t.Error("it acknowledges what it hasn't heard")
	}
	wipe, err := laptop.AcceptRemoval(removal(t, desk, "laptop"))
	if err != nil || !wipe {
		t.Fatal(wipe, err)
	}
	if len(laptop.Members()) != 0 || laptop.IsMember(id("desk")) {
		t.Error("it still has a fleet")
	}
	check := func() {
		t.Helper()
		former := laptop.Former()
		if len(former) != 2 || former[0].Told || former[0].Addrs[0] == "" {
			t.Errorf("the fleet of before: %+v", former)
		}
	}
	check()
	laptop = open(t, stores["laptop"], "laptop")
	check()
	// That it knows isn't that it has wiped.
	word, err := laptop.Acknowledge(false)
	must(t, err)
	must(t, desk.AcceptWord(word))
	if m := told(t, desk, "laptop"); m.Told || !m.Wipe {
		t.Errorf("%+v", m)
	}
	word, err = laptop.Acknowledge(true)
	must(t, err)
	for range 2 {
		must(t, desk.AcceptWord(word))
	}
	meet(t, desk, nas)
	for _, d := range []*Directory{desk, nas} {
		if m := told(t, d, "laptop"); !m.Told || !m.Wipe {
			t.Errorf("%+v", m)
		}
	}
	if again, err := laptop.Acknowledge(false); err != nil || again.hash() != word.hash() {
		t.Errorf("it takes its word back: %v", err)
	}
	// One that comes back is a member, and may be removed again: the old word is none then.
	must(t, desk.AddMember(Member{ID: id("laptop"), Name: "laptop"}))
	must(t, laptop.AddMember(Member{ID: id("desk"), Name: "desk"}))
	meet(t, desk, laptop)
	if !desk.IsMember(id("laptop")) || len(laptop.Former()) != 0 {
		t.Error("it doesn't come back")
	}
	old := removal(t, nas, "laptop")
	if _, err := laptop.AcceptRemoval(old); err == nil {
		t.Error("an old removal is replayed")
	}
	wantErr(t, laptop.SetTold(id("desk")), ErrNotFound)
	must(t, desk.AcceptWord(word)) // says nothing any more
	if !desk.IsMember(id("laptop")) {
		t.Error("an old word removes it")
	}
	must(t, desk.RemoveMember(id("laptop"), false))
	if told(t, desk, "laptop").Told {
		t.Error("an old word counts for a new removal")
	}
	if wipe, err := laptop.AcceptRemoval(removal(t, desk, "laptop")); err != nil || wipe {
		t.Fatal(wipe, err)
	}
	if wipe, err := laptop.AcceptRemoval(old); err == nil || wipe {
		t.Error("an old removal's wish to wipe is replayed")
	}
}

func TestAWipeMayBeAskedForLater(t *testing.T) {
	fleet, _ := fleetOf(t, "desk", "laptop", "nas", "left")
	desk, laptop, nas := fleet["desk"], fleet["laptop"], fleet["nas"]
	must(t, desk.RemoveMember(id("laptop"), false))
	must(t, nas.RemoveMember(id("laptop"), true))
	first, second := removal(t, desk, "laptop"), removal(t, nas, "laptop")
	for _, r := range []Record{first, second, first} {
		wipe, err := laptop.AcceptRemoval(r)
		must(t, err)
		if want := r.Writer == nas.opt.Self; wipe != want && !(r.Writer == desk.opt.Self && wipe) {
			t.Errorf("wipe %v", wipe)
		}
	}
	if wipe, err := laptop.AcceptRemoval(first); err != nil || !wipe {
		t.Errorf("the wish to wipe is forgotten: %v, %v", wipe, err)
	}
	forged := second
	forged.Sig = append([]byte{}, forged.Sig...)
	forged.Sig[0] ^= 1
	left := fleet["left"]
	must(t, left.Leave())
	for _, c := range []struct {
		d    *Directory
		r    Record
		want error
	}{
		{left, forged, ErrInvalid},   // not of this device
		{laptop, forged, nil},        // nothing is decided by its signature any more: the record's content is known already
		{nas, second, ErrInvalid},    // not of this device
		{desk, Record{}, ErrInvalid}, // nothing
	} {
		if _, err := c.d.AcceptRemoval(c.r); c.want != nil {
			wantErr(t, err, c.want)
		}
	}
	// Who left by itself isn't wiped by those it left.
	must(t, desk.AcceptWord(removal(t, left, "left")))
	must(t, desk.RemoveMember(id("left"), true))
	if wipe, err := left.AcceptRemoval(removal(t, desk, "left")); err != nil || wipe {
		t.Errorf("wipe %v, %v", wipe, err)
	}
}

func TestLeavingIsAWordOfItsOwn(t *testing.T) {
	fleet, stores := fleetOf(t, "desk", "laptop", "nas")
	desk, laptop, nas := fleet["desk"], fleet["laptop"], fleet["nas"]
	must(t, laptop.Leave())
	word := removal(t, laptop, "laptop")
	if again, err := laptop.Acknowledge(false); err != nil || again.hash() != word.hash() {
		t.Errorf("two words for one: %v", err)
	}
	must(t, desk.AcceptWord(word))
	meet(t, desk, nas)
	for _, d := range []*Directory{desk, nas} {
		if m := told(t, d, "laptop"); !m.Told || m.By != m.ID || m.Wipe {
			t.Errorf("%+v", m)
		}
	}
	must(t, laptop.SetTold(id("desk")))
	laptop = open(t, stores["laptop"], "laptop")
	for _, m := range laptop.Former() {
		if m.Told != (m.ID == id("desk")) {
			t.Errorf("%+v", m)
		}
	}
}

func TestAWordIsOnlyOfOneself(t *testing.T) {
	fleet, _ := fleetOf(t, "desk", "laptop", "nas")
	desk, laptop, nas := fleet["desk"], fleet["laptop"], fleet["nas"]
	must(t, laptop.RemoveMember(id("nas"), true))
	must(t, desk.RemoveMember(id("laptop"), false))
	for what, r := range map[string]Record{
		"of another":       removal(t, laptop, "nas"),
		"of the listener":  removal(t, desk, "laptop"),
		"nothing":          {},
		"an admission":     desk.records[memberKey(id("nas"), id("laptop"))],
		"of a stranger":    strangersWord(t),
		"not its own hand": {Key: memberKey(id("nas"), id("nas")), Version: 1<<2 | 2, Writer: id("nas"), Value: word(t, "nas").Value, Sig: []byte("x")},
	} {
		if err := desk.AcceptWord(r); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if !desk.IsMember(id("nas")) {
		t.Error("nas is gone")
	}
	// What a removed device says of others is nothing, whoever shows it.
	if _, err := nas.AcceptRemoval(removal(t, laptop, "nas")); err != nil {
		t.Log("before it heard of the laptop's own removal, that is a member's word:", err)
	}
	fleet, _ = fleetOf(t, "desk", "laptop", "nas")
	must(t, fleet["laptop"].RemoveMember(id("nas"), true))
	must(t, fleet["desk"].RemoveMember(id("laptop"), false))
	meet(t, fleet["desk"], fleet["nas"])
	_, err := fleet["nas"].AcceptRemoval(removal(t, fleet["laptop"], "nas"))
	wantErr(t, err, ErrUnknownDevice)
}

// word is what a device would sign when it leaves.
func word(t *testing.T, name string) Record {
	t.Helper()
	d := fresh(t, name, "somebody")
	must(t, d.Leave())
	return removal(t, d, name)
}

func strangersWord(t *testing.T) Record { return word(t, "stranger") }

func TestForgettingAVM(t *testing.T) {
	fleet, stores := fleetOf(t, "desk", "laptop")
	desk, laptop := fleet["desk"], fleet["laptop"]
	for _, vm := range []string{"work", "home"} {
		create(t, desk, vm)
		must(t, desk.PutReplica(vm, id("laptop"), ReplicaInfo{Position: Position{1, 3}, Of: Position{1, 3}}, nil))
		must(t, desk.PutNote(Note{VM: vm, Term: 1, How: "start"}))
	}
	meet(t, desk, laptop)
	must(t, laptop.SaveBaton("work", []byte("state")))
	must(t, laptop.ForgetVM("work"))
	check := func() {
		t.Helper()
		if _, ok := laptop.VM("work"); ok || len(laptop.History("work")) > 0 || len(laptop.Replicas("work")) > 0 {
			t.Error("it is still known")
		}
		if _, ok := laptop.Note("work", 1); ok {
			t.Error("its note is still known")
		}
		if _, err := laptop.LoadBaton("work"); err == nil {
			t.Error("its hand-off's state is still known")
		}
		for key := range laptop.records {
			if vmOf(key) == "work" {
				t.Errorf("%s is left", key)
			}
		}
		if _, ok := laptop.VM("home"); !ok || len(laptop.Replicas("home")) != 1 {
			t.Error("the other is gone")
		}
	}
	check()
	laptop = open(t, stores["laptop"], "laptop")
	check()
	must(t, laptop.ForgetVM("work"))
	must(t, laptop.AddMember(Member{ID: id("desk"), Name: "desk"}))
	meet(t, desk, laptop)
	if _, ok := laptop.VM("work"); !ok {
		t.Error("who knows it can't tell of it again")
	}
}
