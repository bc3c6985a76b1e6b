package directory

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestOpenTwiceAndAgain(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(opts("a", dir))
	must(t, err)
	_, err = Open(opts("a", dir))
	wantErr(t, err, ErrInUse)

	must(t, d.AddMember(Member{ID: id("b"), Name: "b", PairedAt: time.Unix(7, 0).UTC()}))
	must(t, d.PutDevice(Device{Name: "Desk", Addrs: []string{"/ip4/192.0.2.1/udp/1"}}))
	create(t, d, "vm1")
	must(t, d.SaveBaton("vm1", []byte("state")))
	must(t, d.SetLocal("settings", []byte("x")))
	tr, err := d.Give("vm1", 2, id("b"), "try", Position{1, 9}, KindSwitch, BatonEntry("vm1", []byte("given")))
	must(t, err)
	digest, members, devices := d.Digest(), d.Members(), d.Devices()
	must(t, d.Close())
	must(t, d.Close())
	wantErr(t, d.SetLocal("settings", nil), ErrClosed)

	d, err = Open(opts("a", dir))
	must(t, err)
	defer func() { must(t, d.Close()) }()
	if got := d.Digest(); !reflect.DeepEqual(got, digest) {
		t.Fatalf("digest %v, was %v", got, digest)
	}
	if !reflect.DeepEqual(d.Members(), members) || !reflect.DeepEqual(d.Devices(), devices) {
		t.Fatalf("members %v, devices %v", d.Members(), d.Devices())
	}
	if b, err := d.LoadBaton("vm1"); err != nil || string(b) != "given" {
		t.Fatalf("baton %q, %v", b, err)
	}
	if b, err := d.Local("settings"); err != nil || string(b) != "x" {
		t.Fatalf("local %q, %v", b, err)
	}
	_, err = d.Local("nothing")
	wantErr(t, err, ErrNotFound)
	if got, ok := d.Transfer("vm1", 2); !ok || got.Hash() != tr.Hash() || len(d.Chain("vm1")) != 2 {
		t.Fatalf("transfer %v, %v", got, ok)
	}
	if vm, ok := d.VM("vm1"); !ok || vm.Owner != id("b") || vm.Term != 2 || vm.Written != 1 || vm.Name != "Work" {
		t.Fatalf("vm %+v", vm)
	}
}

func TestStoreRefusesDamage(t *testing.T) {
	s := &memory{m: map[string][]byte{}}
	d := open(t, s, "a", "b")
	create(t, d, "v")
	_, err := d.Give("v", 2, id("b"), "t", Position{}, KindSwitch)
	must(t, err)
	load := func(change func(m map[string][]byte)) error {
		m := map[string][]byte{}
		for k, v := range s.m {
			m[k] = v
		}
		change(m)
		e, err := newDirectory(opts("a", "unused"))
		must(t, err)
		return e.load(&memory{m: m})
	}
	must(t, load(func(map[string][]byte) {}))
	wantErr(t, load(func(m map[string][]byte) { m[formatKey] = []byte("3") }), ErrVersion)
	wantErr(t, load(func(m map[string][]byte) { delete(m, formatKey) }), ErrCorrupt)
	wantErr(t, load(func(m map[string][]byte) { delete(m, transferKey("v", 1)) }), ErrCorrupt)
	wantErr(t, load(func(m map[string][]byte) { m["vm/v"] = m[transferKey("v", 1)] }), ErrCorrupt)
	wantErr(t, load(func(m map[string][]byte) { m["odd/x"] = []byte("{") }), ErrCorrupt)

	sealed := seal([]byte("value"))
	sealed[len(sealed)-1] ^= 1
	_, err = unseal(sealed)
	wantErr(t, err, ErrCorrupt)
	_, err = unseal(sealed[:sumSize-1])
	wantErr(t, err, ErrCorrupt)
}

func TestGiveSignsOnce(t *testing.T) {
	s := &memory{m: map[string][]byte{}}
	d := open(t, s, "a", "b", "c")
	create(t, d, "v")
	_, err := d.Give("v", 2, id("x"), "t", Position{}, KindSwitch)
	wantErr(t, err, ErrUnknownDevice)
	_, err = d.Give("v", 3, id("b"), "t", Position{}, KindSwitch)
	wantErr(t, err, ErrChain)

	for _, stored := range []bool{true, false} {
		s.fail = func() (bool, error) { return stored, errors.New("broken") }
		_, err = d.Give("v", 2, id("b"), "t", Position{1, 4}, KindSwitch, BatonEntry("v", []byte("given")))
		wantErr(t, err, ErrUnsure)
		if term, _, _ := d.Owner("v"); term != 1 {
			t.Fatalf("term %d is known, but not durably", term)
		}
	}
	// Until it is known, nobody else can get that term.
	other, err := d.NewTransfer("v", id("c"), "u", Position{}, KindSwitch)
	must(t, err)
	wantErr(t, d.AppendTransfer(other), ErrChain)
	_, err = d.Give("v", 2, id("c"), "u", Position{}, KindSwitch)
	wantErr(t, err, ErrChain)
	before := s.m[transferKey("v", 2)]
	s.fail = nil
	first, err := d.Give("v", 2, id("b"), "t", Position{1, 4}, KindSwitch, BatonEntry("v", []byte("given")))
	must(t, err)
	if string(s.m[transferKey("v", 2)]) != string(before) {
		t.Fatal("the transfer was signed anew though the first may have been stored")
	}
	second, err := d.Give("v", 2, id("b"), "t", Position{1, 4}, KindSwitch, BatonEntry("v", []byte("more")))
	must(t, err)
	if first.Hash() != second.Hash() {
		t.Fatal("given twice")
	}
	if b, _ := d.LoadBaton("v"); string(b) != "more" {
		t.Fatalf("baton %q", b)
	}
	_, err = d.Give("v", 2, id("c"), "t", Position{}, KindSwitch)
	wantErr(t, err, ErrChain)
	_, err = d.Give("v", 3, id("c"), "t", Position{}, KindSwitch)
	wantErr(t, err, ErrNotOwner)
	wantErr(t, d.PutVM(VM{ID: "v"}), ErrNotOwner)
}

func TestTransferTravelsAsJSON(t *testing.T) {
	a, b := fresh(t, "a", "b"), fresh(t, "b", "a")
	create(t, a, "v")
	meet(t, a, b)
	given, err := a.Give("v", 2, b.opt.Self, "t", Position{1, 4}, KindSwitch)
	must(t, err)
	wire, err := json.Marshal(given)
	must(t, err)
	var got SignedTransfer
	must(t, json.Unmarshal(wire, &got))
	must(t, b.AppendTransfer(got, BatonEntry("v", []byte("owned"))))
	must(t, b.AppendTransfer(got, BatonEntry("v", []byte("owned"))))
	if term, owner, ok := b.Owner("v"); !ok || term != 2 || owner != b.opt.Self {
		t.Fatalf("owner %s of term %d", short(owner), term)
	}
	must(t, b.PutVM(VM{ID: "v", Name: "Play"}))
	meet(t, a, b)
	if vm, _ := a.VM("v"); vm.Name != "Play" || vm.Written != 2 {
		t.Fatalf("vm %+v", vm)
	}
	back, err := b.Give("v", 3, a.opt.Self, "t", Position{1, 4}, KindReturned)
	must(t, err)
	must(t, a.AppendTransfer(back))
	must(t, a.RemoveVM("v"))
	meet(t, a, b)
	if len(b.VMs()) != 0 || len(b.Chain("v")) != 3 {
		t.Fatalf("removed, but there is %v", b.VMs())
	}
}

func TestForkIsKeptAndShown(t *testing.T) {
	a, b, c := fresh(t, "a", "b", "c"), fresh(t, "b", "a", "c"), fresh(t, "c", "a", "b")
	create(t, a, "v")
	meet(t, a, b)
	meet(t, a, c)
	one, err := a.NewTransfer("v", b.opt.Self, "t1", Position{1, 1}, KindSwitch)
	must(t, err)
	two, err := a.NewTransfer("v", c.opt.Self, "t2", Position{1, 2}, KindSwitch)
	must(t, err)
	must(t, b.AppendTransfer(one))
	must(t, c.AppendTransfer(two))
	must(t, a.AppendTransfer(one))
	wantErr(t, a.AppendTransfer(two, BatonEntry("v", []byte("no"))), ErrFork)
	wantErr(t, a.AppendTransfer(two), ErrFork)
	if _, err := a.LoadBaton("v"); !errors.Is(err, ErrNotFound) {
		t.Fatal("a fork stored its entries")
	}
	for range 2 {
		meet(t, b, c)
		meet(t, a, b)
		meet(t, a, c)
	}
	for d, own := range map[*Directory]SignedTransfer{a: one, b: one, c: two} {
		forks := d.Forks("v")
		if len(forks) != 1 || forks[0].Hash() == own.Hash() {
			t.Fatalf("forks %v", forks)
		}
		if got, _ := d.Transfer("v", 2); got.Hash() != own.Hash() {
			t.Fatal("the chain was overwritten")
		}
	}
	// A record of the other history is not taken for one of ours.
	must(t, c.PutVM(VM{ID: "v", Name: "other"}))
	wantErr(t, b.Apply(c.opt.Self, c.Get([]string{"vm/v"})[0]), ErrFork)
	if s := b.Strikes(); len(s) > 0 {
		t.Fatalf("who tells what it believes has strikes: %v", s)
	}
}

func TestForksAreBounded(t *testing.T) {
	a := fresh(t, "a", "b")
	create(t, a, "v")
	var all []SignedTransfer
	for i := range 2 * maxForks {
		x, err := a.NewTransfer("v", id("b"), fmt.Sprint(i), Position{}, KindSwitch)
		must(t, err)
		all = append(all, x)
	}
	var last error
	for _, x := range all {
		last = a.AppendTransfer(x)
	}
	wantErr(t, last, ErrFull)
	if n := len(a.Forks("v")); n != maxForks-1 {
		t.Fatalf("%d forks", n)
	}
}

func TestChangedWakes(t *testing.T) {
	d := fresh(t, "a")
	ch, cancel := d.Changed()
	must(t, d.SetLocal("k", []byte("v")))
	select {
	case <-ch:
		t.Fatal("a local value woke")
	default:
	}
	must(t, d.PutDevice(Device{Name: "x"}))
	must(t, d.PutDevice(Device{Name: "y"}))
	<-ch
	select {
	case <-ch:
		t.Fatal("more than one wake-up is kept")
	default:
	}
	cancel()
	must(t, d.AddMember(Member{ID: id("b")}))
	select {
	case <-ch:
		t.Fatal("woken after the end")
	default:
	}
}

func TestMembersGate(t *testing.T) {
	a, b := fresh(t, "a"), fresh(t, "b", "a")
	must(t, b.PutDevice(Device{Name: "b"}))
	r := b.Get([]string{"device/" + id("b")})[0]
	wantErr(t, a.Apply(id("b"), r), ErrUnknownDevice)
	must(t, a.AddMember(Member{ID: id("c"), Name: "c"}))
	wantErr(t, a.Apply(id("c"), r), ErrUnknownDevice)
	must(t, a.AddMember(Member{ID: id("b"), Name: "b"}))
	must(t, a.Apply(id("c"), r))
	must(t, a.SetAddrs(id("b"), []string{"/ip4/192.0.2.9/tcp/1"}))
	wantErr(t, a.SetAddrs(id("x"), nil), ErrNotFound)
	if m := a.Members(); len(m) != 2 || !a.IsMember(id("b")) || !a.IsMember(id("a")) || a.IsMember(id("x")) {
		t.Fatalf("members %v", m)
	}
	must(t, a.RemoveMember(id("b"), false))
	must(t, a.RemoveMember(id("x"), false))
	if _, told := a.Digest()["device/"+id("b")]; told || len(a.Devices()) != 0 || a.IsMember(id("b")) {
		t.Fatal("a removed device is still told of")
	}
	wantErr(t, a.AddMember(Member{ID: "a/b"}), ErrInvalid)
}

// TestOwnRecordsComeBack: a device that lost its directory goes on after the
// versions that others have of it.
func TestOwnRecordsComeBack(t *testing.T) {
	a, b := fresh(t, "a", "b"), fresh(t, "b", "a")
	for range 3 {
		must(t, a.PutDevice(Device{Name: "old"}))
	}
	meet(t, a, b)
	a = fresh(t, "a", "b")
	meet(t, a, b)
	must(t, a.PutDevice(Device{Name: "new"}))
	meet(t, a, b)
	if got := b.Devices(); len(got) != 1 || got[0].Name != "new" {
		t.Fatalf("devices %v", got)
	}
}

// TestRoomIsBounded: a member that floods the others fills its part only.
func TestRoomIsBounded(t *testing.T) {
	a := fresh(t, "a", "evil")
	create(t, a, "mine")
	spec := json.RawMessage(`"` + strings.Repeat("x", MaxValue-2000) + `"`)
	var last error
	for i := 0; last == nil && i < 1000; i++ {
		vm := fmt.Sprint("vm-", i)
		c := forgeTransfer("evil", Transfer{VM: vm, Term: 1, To: id("evil"), Kind: KindCreated})
		if last = a.Apply(id("evil"), c); last == nil {
			head, _ := a.Transfer(vm, 1)
			last = a.Apply(id("evil"), forgeVM("evil", VM{ID: vm, Term: 1, Owner: id("evil"), Head: head.Hash(), Spec: spec}, 1))
		}
	}
	wantErr(t, last, ErrFull)
	if a.bytes > maxBytes {
		t.Fatalf("%d bytes", a.bytes)
	}
	must(t, a.PutVM(VM{ID: "mine", Name: "still"}))
}

// TestDeviceSite: what a device says of where it is is carried as it is, also where nothing of it is understood, within a limit.
func TestDeviceSite(t *testing.T) {
	d := open(t, &memory{m: map[string][]byte{}}, "a")
	site := json.RawMessage(`{"v":7,"new":["thing"]}`)
	must(t, d.PutDevice(Device{Name: "a", Site: site}))
	must(t, d.PutDevice(Device{Name: "a", Site: site}))
	got := d.Devices()
	if len(got) != 1 || string(got[0].Site) != string(site) {
		t.Errorf("devices %+v", got)
	}
	got[0].Site[0] = 'x' // it is the caller's
	if string(d.Devices()[0].Site) != string(site) {
		t.Error("the directory's own was changed")
	}
	big := json.RawMessage(`"` + strings.Repeat("x", maxSite) + `"`)
	wantErr(t, d.PutDevice(Device{Name: "a", Site: big}), ErrInvalid)
	wantErr(t, d.PutDevice(Device{Name: "a", Site: json.RawMessage(`{`)}), ErrInvalid)
	must(t, d.PutDevice(Device{Name: "a"}))
	if d.Devices()[0].Site != nil {
		t.Error("a record without it has one")
	}
}
