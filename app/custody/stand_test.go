package custody_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"testing"
	"time"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const vmID, blocks = "00112233445566778899aabbccddeeff", 64

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func key(name string) (string, ed25519.PrivateKey) {
	seed := sha256.Sum256([]byte(name))
	k := ed25519.NewKeyFromSeed(seed[:])
	return hex.EncodeToString(k.Public().(ed25519.PublicKey)), k
}

// open returns a device's directory, in one fleet with the other.
func open(t *testing.T, name, other string) *directory.Directory {
	t.Helper()
	return openIn(t, name, other, nil)
}

// openIn is open, with a store of its own if that is nil.
func openIn(t *testing.T, name, other string, store directory.Store) *directory.Directory {
	t.Helper()
	self, k := key(name)
	d, err := directory.Open(directory.Options{
		Dir: t.TempDir(), Store: store, Self: self, Log: slog.New(slog.DiscardHandler),
		Sign: func(msg []byte) ([]byte, error) { return ed25519.Sign(k, msg), nil },
		Verify: func(id string, msg, sig []byte) error {
			if b, err := hex.DecodeString(id); err != nil || len(b) != ed25519.PublicKeySize || !ed25519.Verify(b, msg, sig) {
				return errors.New("wrong signature")
			}
			return nil
		},
	})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	id, _ := key(other)
	must(t, d.AddMember(directory.Member{ID: id, Name: other, PairedAt: time.Unix(1, 0).UTC()}))
	return d
}

// three are a, which has created the VM, and two that know of it: b, and d, which knows a only.
func three(t *testing.T) (a, b, d *directory.Directory, created directory.SignedTransfer) {
	t.Helper()
	a, b, d = open(t, "a", "b"), open(t, "b", "a"), open(t, "d", "a")
	aID, _ := key("a")
	dID, _ := key("d")
	must(t, a.AddMember(directory.Member{ID: dID, Name: "d", PairedAt: time.Unix(1, 0).UTC()}))
	created, err := a.NewCreated(vmID)
	must(t, err)
	must(t, a.AppendTransfer(created))
	meet(a, b, aID)
	meet(a, d, aID)
	return a, b, d, created
}

// meet gives one directory all that the other has.
func meet(from, to *directory.Directory, fromID string) {
	var keys []string
	for k := range from.Digest() {
		keys = append(keys, k)
	}
	for range keys {
		for _, r := range from.Get(keys) {
			_ = to.Apply(fromID, r) // what comes too early comes again
		}
	}
}

// TestAKeptDiskIsKnownAgain kills the process of an owner that was taken over from and had something newer. Its disk is known again as the
// side that was kept: untouchable while nobody has chosen, and free to be written over when the person has given it up.
func TestAKeptDiskIsKnownAgain(t *testing.T) {
	a, b := open(t, "a", "b"), open(t, "b", "a")
	aID, _ := key("a")
	bID, _ := key("b")
	created, err := a.NewCreated(vmID)
	must(t, err)
	must(t, a.AppendTransfer(created))
	mem := vfs.NewMem()
	options := func() vmdisk.Options { return vmdisk.Options{FS: mem, BarrierEvery: -1, SaveEvery: -1} }
	disk, err := vmdisk.Create("", vmdisk.NewID(), blocks*vmdisk.Block, options())
	must(t, err)
	must(t, disk.Activate(1))
	write := func(n byte) {
		must(t, disk.WriteAt(append([]byte{n}, make([]byte, vmdisk.Block-1)...), int64(n)*vmdisk.Block, false))
		must(t, disk.Flush())
	}
	write(1)
	common := directory.Position(disk.Info().Position)
	write(2)
	meet(a, b, aID)
	taken, err := b.TakeOver(vmID, created.Hash(), common)
	must(t, err)
	meet(b, a, bID)

	c := custody.Custody{VM: vmID, Self: aID, Dir: a, Disk: disk, Log: slog.New(slog.DiscardHandler)}
	must(t, disk.Fence())
	if newer, known := c.Judge(1, false); !newer || !known {
		t.Fatalf("judged newer %v, known %v", newer, known)
	}
	_, err = c.Kept([]byte("state"))
	must(t, err)
	signed := a.Heads(vmID)[1].Position

	mem = mem.Crash(vfs.LoseNothing, 1)
	_ = disk.Close() // its files are gone with the process
	c.Disk, err = vmdisk.Open("", options())
	must(t, err)
	defer func() { must(t, c.Disk.Close()) }()
	if got := directory.Position(c.Disk.Info().Position); got != signed {
		t.Fatalf("signed at %v, it opened at %v", signed, got)
	}
	if got := c.Stand(); got != custody.Own {
		t.Fatalf("before the choice it is %q", got)
	}
	if c.MayReceive() {
		t.Fatal("what nobody has given up may be written over")
	}

	heads := b.Heads(vmID)
	if len(heads) != 1 {
		t.Fatal("b knows of the kept side before it was told")
	}
	meet(a, b, aID)
	heads = b.Heads(vmID)
	_, err = b.Resolve(vmID, taken.Hash(), []directory.Hash{heads[1].Hash()}, directory.Position{Term: taken.Term, Barrier: 1}, "keep", "")
	must(t, err)
	meet(b, a, bID)
	if got := c.Stand(); got != custody.GivenUp {
		t.Fatalf("after the choice it is %q", got)
	}
	must(t, c.Yield(a.Heads(vmID)[0].Term))
	if !c.MayReceive() {
		t.Fatal("what the person gave up may not be written over")
	}
}

// TestAChoiceIsHeeded: what was chosen against a device's side counts there only when the device whose side it keeps can't choose the
// opposite any more.
func TestAChoiceIsHeeded(t *testing.T) {
	for name, show := range map[string]func(t *testing.T, b *directory.Directory, a *directory.Directory, chosen directory.SignedTransfer){
		"it went on": func(t *testing.T, b, _ *directory.Directory, _ directory.SignedTransfer) {
			must(t, b.PutVM(directory.VM{ID: vmID, Name: "Work", Disk: vmdisk.NewID().String(), DiskBytes: blocks * vmdisk.Block}))
		},
		"it gave it on": func(t *testing.T, b, a *directory.Directory, chosen directory.SignedTransfer) {
			aID, _ := key("a")
			next, err := b.NewTransfer(vmID, aID, "attempt", directory.Position{Term: chosen.Term, Barrier: 1}, directory.KindSwitch)
			must(t, err)
			must(t, b.AppendTransfer(next))
		},
		"it is no member any more": func(t *testing.T, _, a *directory.Directory, _ directory.SignedTransfer) {
			bID, _ := key("b")
			must(t, a.RemoveMember(bID, false))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := open(t, "a", "b"), open(t, "b", "a")
			aID, _ := key("a")
			bID, _ := key("b")
			created, err := a.NewCreated(vmID)
			must(t, err)
			must(t, a.AppendTransfer(created))
			meet(a, b, aID)
			at := directory.Position{Term: 1, Barrier: 1}
			taken, err := b.TakeOver(vmID, created.Hash(), at)
			must(t, err)
			meet(b, a, bID)
			kept, err := a.Keep(vmID, created.Hash(), directory.Position{Term: 1, Barrier: 2})
			must(t, err)
			meet(a, b, aID)
			c := custody.Custody{VM: vmID, Self: aID, Dir: a}
			chosen, err := a.Resolve(vmID, taken.Hash(), []directory.Hash{kept.Hash()}, at, "keep", "")
			must(t, err)
			if c.Heeded(chosen) {
				t.Fatal("b may still choose a's side, apart")
			}
			if other := (custody.Custody{VM: vmID, Self: bID, Dir: b}); len(b.Heads(vmID)) != 2 || other.Heeded(chosen) {
				t.Fatal("b doesn't know of it yet")
			}
			meet(a, b, aID)
			meet(b, a, bID)
			if c.Heeded(chosen) {
				t.Fatal("that b has the record is no word of b's")
			}
			show(t, b, a, chosen)
			meet(b, a, bID)
			if !c.Heeded(chosen) {
				t.Fatal("b can't choose otherwise any more")
			}
		})
	}
}

// TestGivenBackAndChosen: what a device gave, and was given back without hearing of it, is what it holds. If the person chooses that, the
// device goes on with it.
func TestGivenBackAndChosen(t *testing.T) {
	a, b, d, created := three(t)
	aID, _ := key("a")
	bID, _ := key("b")
	dID, _ := key("d")
	given, err := a.NewTransfer(vmID, bID, "attempt", directory.Position{Term: 1, Barrier: 2}, directory.KindSwitch)
	must(t, err)
	must(t, a.AppendTransfer(given))
	meet(a, b, aID)
	returned, err := b.NewTransfer(vmID, aID, "attempt", directory.Position{Term: 1, Barrier: 2}, directory.KindReturned)
	must(t, err)
	must(t, b.AppendTransfer(returned))
	taken, err := d.TakeOver(vmID, created.Hash(), directory.Position{Term: 1, Barrier: 1})
	must(t, err)
	meet(b, a, bID)
	meet(a, d, aID)
	if len(d.Heads(vmID)) != 2 {
		t.Fatalf("%d heads", len(d.Heads(vmID)))
	}
	chosen, err := d.Resolve(vmID, returned.Hash(), []directory.Hash{taken.Hash()}, directory.Position{}, "keep", "")
	must(t, err)
	meet(d, a, dID)

	// The machine of a device that gave the VM and was then told of the takeover.
	m, err := baton.NewOwner(baton.Config{}, 1)
	must(t, err)
	for _, ev := range []baton.Event{
		{Kind: baton.EvPeerAsk, Peer: bID, Ask: "ask", Attempt: "attempt"},
		{Kind: baton.EvPeerReady, Peer: bID, Attempt: "attempt"},
		{Kind: baton.EvPrepared, Attempt: "attempt", Position: baton.Position{Term: 1, Barrier: 2}},
		{Kind: baton.EvPeerLoaded, Peer: bID, Attempt: "attempt"},
		{Kind: baton.EvPersisted, Term: 2},
		{Kind: baton.EvSuperseded, Peer: dID, Term: taken.Term},
	} {
		if _, err := m.Step(ev); err != nil {
			t.Fatalf("%s: %v", ev.Kind, err)
		}
	}
	if m.State() != baton.Ousted || m.Term() != 2 {
		t.Fatalf("it is %s of term %d", m.State(), m.Term())
	}
	ev, news := custody.Custody{VM: vmID, Self: aID, Dir: a}.News(m)
	if !news || ev.Kind != baton.EvChosen || !ev.Mine || ev.Term != chosen.Term {
		t.Fatalf("it is told %+v, %v", ev, news)
	}
}
