package directory

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

func names(list []Member) string {
	var out []string
	for _, m := range list {
		out = append(out, m.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// pair lets two devices in at each other, as pairing does.
func pair(t fataler, a, b *Directory, nameA, nameB string) {
	t.Helper()
	must(t, a.AddMember(Member{ID: b.opt.Self, Name: nameB}))
	must(t, b.AddMember(Member{ID: a.opt.Self, Name: nameA}))
}

// TestMembersAreTheFleets: who one device lets in or removes, all do.
func TestMembersAreTheFleets(t *testing.T) {
	a, b, c, d := fresh(t, "a"), fresh(t, "b"), fresh(t, "c"), fresh(t, "d")
	pair(t, a, b, "a", "b")
	pair(t, b, c, "b", "c")
	must(t, a.SetAddrs(id("b"), []string{"/ip4/192.0.2.9/tcp/1"}))
	pair(t, d, c, "d", "c")
	for range 3 {
		meet(t, a, b)
		meet(t, b, c)
		meet(t, c, d)
	}
	for d, want := range map[*Directory]string{a: "b c d", b: "a c d", c: "a b d", d: "a b c"} {
		if got := names(d.Members()); got != want {
			t.Fatalf("%s has members %s", short(d.opt.Self), got)
		}
	}
	if addrs := b.Members(); len(addrs[0].Addrs)+len(addrs[1].Addrs)+len(addrs[2].Addrs) != 0 {
		t.Fatal("addresses travelled")
	}
	must(t, d.PutDevice(Device{Name: "Lap"}))
	meet(t, a, d)
	must(t, a.RemoveMember(id("d"), false))
	meet(t, a, b)
	meet(t, b, c)
	for _, x := range []*Directory{a, b, c} {
		if x.IsMember(id("d")) || names(x.RemovedMembers()) != "d" || len(x.Devices()) != 0 {
			t.Fatalf("members %v, devices %v", x.Members(), x.Devices())
		}
		_, err := x.AcceptRemoval(Record{})
		wantErr(t, err, ErrInvalid)
	}
	// The removed one is refused, and asked to wipe on second thoughts.
	wantErr(t, c.Apply(id("d"), d.Get([]string{"device/" + id("d")})[0]), ErrUnknownDevice)
	must(t, b.RemoveMember(id("d"), false))
	must(t, c.RemoveMember(id("d"), true))
	all(t, a, b, c)
	for _, x := range []*Directory{a, b, c} {
		if m := x.RemovedMembers(); !m[0].Wipe || m[0].By != id("c") || m[0].Told {
			t.Fatalf("removed %+v", m)
		}
	}
	wantErr(t, a.SetAddrs(id("d"), nil), ErrNotFound)

	// Shown its removal, it is a fleet of one, and remembers nobody.
	r, ok := a.Removal(id("d"))
	if _, known := a.Removal(id("b")); !ok || known {
		t.Fatalf("removal %v %v", r, ok)
	}
	wipe, err := d.AcceptRemoval(r)
	must(t, err)
	again, err := d.AcceptRemoval(r)
	must(t, err)
	if !wipe || !again || len(d.Members()) != 0 || d.IsMember(id("a")) || len(d.Devices()) != 1 || len(d.RemovedMembers()) != 0 {
		t.Fatalf("wipe %v, members %v, devices %v", wipe, d.Members(), d.Devices())
	}
	word, err := d.Acknowledge(true)
	must(t, err)
	must(t, a.AcceptWord(word))
	all(t, a, b, c)
	for _, x := range []*Directory{a, b, c} {
		if m := x.RemovedMembers(); !m[0].Told || !m[0].Wipe {
			t.Fatalf("removed %+v", m)
		}
	}
	for k := range d.Digest() {
		if k != "device/"+id("d") {
			t.Fatalf("still there: %s", k)
		}
	}
	d = open(t, d.store.(*memory), "d")
	if got, ok := d.Removal(id("d")); !ok || got.hash() != r.hash() {
		t.Fatal("forgot its removal")
	}
	// Let in again, by anybody, it is back everywhere; the old removal is no news any more.
	pair(t, b, d, "b", "d")
	all(t, a, b, c)
	all(t, a, b, c, d)
	for x, want := range map[*Directory]string{a: "b c d", b: "a c d", c: "a b d", d: "a b c"} {
		if got := names(x.Members()); got != want || len(x.RemovedMembers()) != 0 {
			t.Fatalf("%s has members %s", short(x.opt.Self), got)
		}
	}
	_, err = d.AcceptRemoval(r)
	wantErr(t, err, ErrInvalid)
	if _, out := d.Removal(id("d")); out {
		t.Fatal("still removed")
	}
	// A second removal, and it has to be told again.
	must(t, c.RemoveMember(id("d"), false))
	all(t, a, b, c)
	if m := a.RemovedMembers(); len(m) != 1 || m[0].Told || m[0].Wipe {
		t.Fatalf("removed %+v", m)
	}
}

// TestRemovalByExchange: a device that hears of its removal among other records takes it as if it had been shown.
func TestRemovalByExchange(t *testing.T) {
	a, b, c := fresh(t, "a", "b", "c"), fresh(t, "b", "a", "c"), fresh(t, "c", "a", "b")
	all(t, a, b, c)
	must(t, a.RemoveMember(id("c"), true))
	r, _ := a.Removal(id("c"))
	must(t, c.Apply(id("b"), r))
	out, ok := c.Removal(id("c"))
	if !ok || out.hash() != r.hash() || len(c.Members()) != 0 {
		t.Fatalf("members %v", c.Members())
	}
	wipe, err := c.AcceptRemoval(r)
	if err != nil || !wipe {
		t.Fatalf("wipe %v, %v", wipe, err)
	}
	_ = b
}

func TestLeave(t *testing.T) {
	a, b := fresh(t, "a", "b"), fresh(t, "b", "a")
	create(t, b, "v")
	all(t, a, b)
	create(t, a, "w")
	all(t, a, b)
	wantErr(t, a.RemoveMember(id("a"), false), ErrInvalid)
	wantErr(t, a.AddMember(Member{ID: id("a")}), ErrInvalid)
	must(t, b.Leave())
	must(t, b.Leave())
	r, ok := b.Removal(id("b"))
	if !ok || len(b.Members()) != 0 || len(b.VMs()) != 2 {
		t.Fatalf("members %v, vms %v", b.Members(), b.VMs())
	}
	must(t, a.Apply(id("b"), r))
	if a.IsMember(id("b")) || names(a.RemovedMembers()) != "b" || !a.Orphan("v") || a.Orphan("w") {
		t.Fatalf("members %v", a.Members())
	}
	// A fleet of one works: its own VM goes on, the other's copy can be taken over.
	must(t, b.PutVM(VM{ID: "v", Name: "Mine"}))
	_, err := b.TakeOver("w", b.Heads("w")[0].Hash(), Position{})
	must(t, err)
	must(t, b.PutVM(VM{ID: "w", Name: "Mine too"}))
	if vm, ok := b.VM("w"); !ok || vm.Owner != id("b") {
		t.Fatalf("vm %+v", vm)
	}
}

// TestRemovalIsRefused: what doesn't prove that this device was removed.
func TestRemovalIsRefused(t *testing.T) {
	a, b := fresh(t, "a", "b", "c", "x"), fresh(t, "b", "a", "c", "x")
	all(t, a, b)
	must(t, b.RemoveMember(id("x"), false))
	word := func(by string, m membership) Record {
		m.By = id(by)
		value, err := encodeValue(m)
		must(t, err)
		return forge(by, Record{Key: memberKey(m.Device, m.By), Version: m.version(), Writer: m.By, Value: value})
	}
	out := membership{Device: id("b"), Gen: 1, Removed: true}
	bad := word("a", out)
	bad.Sig = []byte("no")
	for name, c := range map[string]struct {
		r    Record
		want error
	}{
		"a stranger's":      {word("stranger", out), ErrUnknownDevice},
		"a removed one's":   {word("x", out), ErrUnknownDevice},
		"unsigned":          {bad, ErrSignature},
		"another device's":  {word("a", membership{Device: id("c"), Gen: 1, Removed: true}), ErrInvalid},
		"no removal":        {word("a", membership{Device: id("b"), Gen: 2}), ErrInvalid},
		"wiped, not out":    {word("a", membership{Device: id("b"), Gen: 2, Wipe: true}), ErrInvalid},
		"generation 0":      {word("a", membership{Device: id("b"), Removed: true}), ErrInvalid},
		"no member record":  {a.Get(sortedStrings(a.Digest())[:1])[0], ErrInvalid},
		"nothing":           {Record{}, ErrInvalid},
		"long before again": {word("a", membership{Device: id("b"), Gen: 1, Removed: true, Name: strings.Repeat("x", maxName+1)}), ErrInvalid},
	} {
		if _, err := b.AcceptRemoval(c.r); !isErr(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if len(b.Members()) != 2 {
		t.Fatalf("members %v", b.Members())
	}
}

// TestWordsOfTheRemoved: what a device had said before others knew of its removal comes to all, what it says
// afterwards to nobody.
func TestWordsOfTheRemoved(t *testing.T) {
	a, b, c, x := fresh(t, "a", "b", "c", "x"), fresh(t, "b", "a", "c", "x"), fresh(t, "c", "a", "b", "x"), fresh(t, "x", "a", "b", "c")
	all(t, a, b, c, x)
	create(t, x, "v")
	must(t, a.RemoveMember(id("x"), false))
	must(t, x.AddMember(Member{ID: id("late"), Name: "late"}))
	meet(t, x, b) // b doesn't know yet
	all(t, a, b, c)
	for _, d := range []*Directory{a, b, c} {
		if _, ok := d.VM("v"); !ok || !d.IsMember(id("late")) || d.IsMember(id("x")) || !d.Orphan("v") {
			t.Fatalf("members %v, vms %v", d.Members(), d.VMs())
		}
	}
	must(t, x.AddMember(Member{ID: id("later"), Name: "later"}))
	meet(t, x, b)
	all(t, a, b, c)
	if a.IsMember(id("later")) || b.IsMember(id("later")) {
		t.Fatal("a removed device lets others in")
	}
}

// TestNewDeviceLearnsOldFleet: also one whose members have all let each other in again.
func TestNewDeviceLearnsOldFleet(t *testing.T) {
	dirs := map[string]*Directory{}
	for _, n := range []string{"a", "b", "c"} {
		dirs[n] = fresh(t, n, "a", "b", "c")
	}
	a, b, c := dirs["a"], dirs["b"], dirs["c"]
	all(t, a, b, c)
	for range 3 {
		pair(t, a, b, "a", "b")
		pair(t, b, c, "b", "c")
		pair(t, c, a, "c", "a")
		all(t, a, b, c)
	}
	d := fresh(t, "d")
	pair(t, b, d, "b", "d")
	meet(t, b, d)
	meet(t, a, b)
	meet(t, c, b)
	if names(d.Members()) != "a b c" || names(a.Members()) != "b c d" {
		t.Fatalf("members %v", d.Members())
	}
	meet(t, a, d)
}

func TestFleetIsBounded(t *testing.T) {
	a, b := fresh(t, "a"), fresh(t, "b", "a")
	must(t, a.AddMember(Member{ID: id("b")}))
	for i := range maxMembers - 1 {
		must(t, a.AddMember(Member{ID: fmt.Sprint("device-", i)}))
	}
	wantErr(t, a.AddMember(Member{ID: "one-more"}), ErrFull)
	must(t, a.AddMember(Member{ID: "device-7", Name: "again"}))
	must(t, b.AddMember(Member{ID: "one-more"}))
	wantErr(t, a.Apply(id("b"), b.Get([]string{memberKey("one-more", id("b"))})[0]), ErrFull)
	must(t, a.RemoveMember("device-7", false))
	must(t, a.Apply(id("b"), b.Get([]string{memberKey("one-more", id("b"))})[0]))
	if a.Strikes()[id("b")] != 0 {
		t.Fatal("a full fleet is nobody's lie")
	}
}

// TestStrikes: a liar is remembered, across restarts, and its kinds of lies are logged once each.
func TestStrikes(t *testing.T) {
	var log bytes.Buffer
	s := &memory{m: map[string][]byte{}}
	d := open(t, s, "a", "b", "evil")
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	create(t, d, "v")
	head, value := d.Chain("v")[0].Hash(), func(v any) []byte {
		b, err := encodeValue(v)
		must(t, err)
		return b
	}
	future := membership{Device: id("b"), By: id("evil"), Gen: maxGen + 1, Removed: true}
	lies := []Record{
		{Key: "device/" + id("evil"), Version: 1, Writer: id("evil"), Value: value(Device{ID: id("evil")}), Sig: []byte("no")},
		forgeTransfer("evil", Transfer{VM: "v", Term: 2, From: id("evil"), To: id("b"), Prev: head, Kind: KindSwitch}),
		forgeTransfer("evil", Transfer{VM: "v", Term: 900, From: id("a"), To: id("evil"), Prev: head, Kind: KindTakeover}),
		forge("evil", Record{Key: memberKey(future.Device, future.By), Version: future.version(), Writer: future.By, Value: value(future)}),
		forge("evil", Record{Key: "device/" + id("evil"), Version: 1, Writer: id("evil"), Value: []byte("{")}),
	}
	for range 3 {
		for _, r := range lies {
			if err := d.Apply(id("evil"), r); err == nil {
				t.Fatalf("%s was believed", r.Key)
			}
		}
	}
	if n := d.Strikes(); n[id("evil")] != len(lies) || len(n) != 1 {
		t.Fatalf("strikes %v", n)
	}
	// What comes too early, from a newer program, or from nobody, is no lie.
	for _, r := range []Record{
		forgeTransfer("evil", Transfer{VM: "v", Term: 900, From: id("a"), To: id("evil"), Prev: Hash{1}, Kind: KindTakeover}),
		forgeVM("evil", VM{ID: "v", Term: 7, Owner: id("evil"), Head: head}, 1),
		forge("evil", Record{Key: "device/" + id("evil"), Version: 1, Writer: id("evil"), Value: []byte(`{"schema":7}`)}),
		forge("evil", Record{Key: "novelty/x", Version: 1, Writer: id("evil"), Value: []byte("{}")}),
	} {
		if err := d.Apply(id("evil"), r); err == nil {
			t.Fatalf("%s was believed", r.Key)
		}
	}
	_ = d.Apply(id("stranger"), lies[0])
	d.Strike(id("stranger"), "anything", nil)
	for range 3 {
		d.Strike(id("evil"), "a stale set larger than the disk", ErrInvalid)
	}
	if n := d.Strikes(); n[id("evil")] != len(lies)+3 || len(n) != 1 {
		t.Fatalf("strikes %v", n)
	}
	if n := strings.Count(log.String(), "made up"); n != len(lies)+1 {
		t.Fatalf("logged %d times:\n%s", n, log.String())
	}
	d = open(t, s, "a")
	if n := d.Strikes()[id("evil")]; n < (len(lies)+3)/2 || n > len(lies)+3 {
		t.Fatalf("%d strikes after a restart", n)
	}
	for i := range 10 * maxLies {
		d.Strike(id("evil"), fmt.Sprint("lie ", i), nil)
	}
	if st := d.strikes[id("evil")]; len(st.Lies) > maxLies+1 {
		t.Fatalf("%d kinds of lies", len(st.Lies))
	}
}

func TestNotes(t *testing.T) {
	a, b, c := trio(t)
	note := Note{VM: "v", Term: 2, How: "teleport", Pause: 80 * time.Millisecond, Memory: 1 << 30, Disk: 5 << 20, Began: time.Unix(1700000000, 0).UTC(), Ended: time.Unix(1700000009, 0).UTC()}
	wantErr(t, a.PutNote(note), ErrNotOwner)
	must(t, b.PutNote(note))
	note.Disk = 6 << 20
	must(t, b.PutNote(note))
	must(t, a.PutNote(Note{VM: "v", Term: 1, How: "created"}))
	wantErr(t, b.PutNote(Note{VM: "v", Term: 3}), ErrGap)
	wantErr(t, b.PutNote(Note{VM: "w", Term: 1}), ErrGap)
	wantErr(t, b.PutNote(Note{VM: "v", Term: 2, Memory: -1}), ErrInvalid)
	wantErr(t, b.PutNote(Note{VM: "v", Term: 2, How: strings.Repeat("x", maxNoteHow+1)}), ErrInvalid)
	all(t, a, b, c)
	note.Head = b.Chain("v")[1].Hash()
	for _, d := range []*Directory{a, b, c, open(t, b.store.(*memory), "b")} {
		if got, ok := d.Note("v", 2); !ok || got != note {
			t.Fatalf("note %+v", got)
		}
		if got, ok := d.Note("v", 1); !ok || got.How != "created" {
			t.Fatalf("note %+v", got)
		}
		if _, ok := d.Note("v", 3); ok {
			t.Fatal("a note of nothing")
		}
	}
	value, err := encodeValue(Note{VM: "v", Term: 2, Head: note.Head, How: "no"})
	must(t, err)
	wantErr(t, a.Apply(id("c"), forge("c", Record{Key: noteKey("v", 2), Version: 9, Writer: id("c"), Value: value})), ErrNotOwner)
	value, err = encodeValue(Note{VM: "v", Term: 2, How: "no"})
	must(t, err)
	wantErr(t, a.Apply(id("c"), forge("c", Record{Key: noteKey("v", 2), Version: 9, Writer: id("c"), Value: value})), ErrFork)
	must(t, a.Apply(id("c"), forge("b", Record{Key: noteKey("v", 2), Version: 9, Writer: id("b"), Value: value}))) // an older program's
	wantErr(t, a.Apply(id("c"), forge("b", Record{Key: noteKey("v", 1), Version: 9, Writer: id("b"), Value: value})), ErrInvalid)
}

// TestOldRemovalIsNoNews: a device that was let in again isn't thrown out by the record of its first removal, neither shown to
// it before it has heard more, nor handed on to one that has lost its directory.
func TestOldRemovalIsNoNews(t *testing.T) {
	a, b, c := fresh(t, "a", "b", "c"), fresh(t, "b", "a", "c"), fresh(t, "c", "a", "b")
	all(t, a, b, c)
	must(t, c.RemoveMember(id("b"), true))
	all(t, a, c)
	must(t, a.RemoveMember(id("b"), true))
	must(t, c.RemoveMember(id("b"), true))
	r, ok := a.Removal(id("b"))
	if !ok {
		t.Fatal("not removed")
	}
	if _, err := b.AcceptRemoval(r); err != nil {
		t.Fatal(err)
	}
	own := forge("a", Record{Key: r.Key, Version: r.Version, Writer: r.Writer, Value: r.Value})
	pair(t, a, b, "a", "b")
	if r.Writer != id("a") {
		m, err := readMember(r)
		must(t, err)
		m.By = id("a")
		value, err := encodeValue(m)
		must(t, err)
		own = forge("a", Record{Key: memberKey(m.Device, m.By), Version: m.version(), Writer: m.By, Value: value})
	}
	_, err := b.AcceptRemoval(own)
	wantErr(t, err, ErrInvalid)
	all(t, a, c)
	b = fresh(t, "b")
	pair(t, a, b, "a", "b")
	all(t, a, b)
	all(t, b, c)
	if _, out := b.Removal(id("b")); out || names(b.Members()) != "a c" {
		t.Fatalf("members %v", b.Members())
	}
}
