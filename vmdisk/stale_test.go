package vmdisk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// A lost or damaged set of stale blocks stands for all blocks.
func TestStaleSetDamaged(t *testing.T) {
	for _, how := range []string{"gone", "torn"} {
		g := newLagging(t, 7)
		g.lack(t)
		must(t, g.d.Activate(2))
		must(t, g.d.WriteAt(bytes.Repeat([]byte{3}, Block), 0, true))
		copy(g.newest, bytes.Repeat([]byte{3}, Block))
		must(t, g.d.Close())
		name := g.d.j.snapshot().stale.name()
		if how == "gone" {
			must(t, g.mem.Remove(name))
		} else {
			f, err := g.mem.Open(name)
			must(t, err)
			must(t, errors.Join(f.Truncate(60), f.Close()))
		}
		r, err := Check(t.Context(), "", CheckOptions{FS: g.mem})
		must(t, err)
		if len(r.Findings) != 1 || r.Findings[0].File != name {
			t.Errorf("%s: %+v", how, r.Findings)
		}
		g.d = reopen(t, hydraOptions(g.mem))
		if i := g.d.Info(); i.Stale != hydraSize-Block {
			t.Errorf("%s: %d bytes are stale", how, i.Stale)
		}
		must(t, g.d.Activate(2))
		must(t, g.d.Hydrate(t.Context(), g.src))
		same(t, g.d, g.newest)
	}
}

// A replica takes over in the middle of a catch-up: what it lacks comes with the hand-off.
func TestStaleIn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	owner := newDisk(t, hydraSize, quiet(vfs.NewMem()))
	must(t, owner.Activate(1))
	o := hydraOptions(vfs.NewMem())
	d := newReplica(t, hydraSize, o)
	write := func(n int) {
		for range n {
			p := make([]byte, Block*(1+r.IntN(3)))
			fillRandom(r, p)
			must(t, owner.WriteAt(p, r.Int64N(hydraSize-int64(len(p))), false))
		}
		must(t, owner.Flush())
	}
	write(30)
	f, err := owner.Attach("d", d.ReplicaState())
	must(t, err)
	a, err := d.Apply()
	must(t, err)
	pump(t, f, a)
	must(t, owner.Flush())
	pump(t, f, a)
	must(t, a.Close())
	f.Close()
	old := content(t, d)
	write(30)
	// Of a catch-up that was interrupted the owner knows that it is here, but what becomes the owner gives it up.
	f, err = owner.Attach("d", d.ReplicaState())
	must(t, err)
	a, err = d.Apply()
	must(t, err)
	for acks := 0; acks == 0; {
		op, err := f.poll()
		must(t, err)
		if op == nil {
			break
		}
		ack, err := feedTo(a, op)
		must(t, err)
		if ack != (Position{}) {
			f.Acked(ack)
			acks++
		}
	}
	must(t, a.Close())
	f.Close()
	write(10)
	must(t, owner.Fence())
	must(t, owner.Give(1))
	sets, err := owner.ExportDirty()
	must(t, err)
	set, at, err := d.StaleIn(sets, "d")
	must(t, err)
	if at != owner.Position() {
		t.Errorf("at %s", at)
	}
	before := d.Position()
	must(t, d.SetStale(set, at))
	if i := d.Info(); i.Stale == 0 || i.Stale > 30*4*Block || i.Before != before {
		t.Errorf("%+v", i)
	}
	must(t, d.ImportDirty(sets, "d"))
	must(t, d.Activate(2))
	must(t, d.SetClean("o", at))
	must(t, d.Hydrate(t.Context(), &holder{content: content(t, owner)}))
	same(t, d, content(t, owner))
	mergeAll(t, d)
	// An ordinary owner now: the one before follows, and has all.
	f, err = d.Attach("o", owner.ReplicaState())
	must(t, err)
	must(t, d.WriteAt([]byte{1}, 77, true))
	a, err = owner.Apply()
	must(t, err)
	pump(t, f, a)
	must(t, a.Close())
	same(t, owner, content(t, d))
	f.Close()

	// Who isn't known lacks everything, and so does who is older than it said.
	for _, c := range []struct {
		self string
		at   Position
		want error
		all  bool
	}{
		{"x", before, nil, true}, {"d", Position{1, before.Barrier - 1}, nil, true}, {"d", Position{3, 1}, ErrDiverged, false},
		{"d", Position{1, at.Barrier + 1}, ErrDiverged, false},
	} {
		e := newReplica(t, hydraSize, quiet(vfs.NewMem()))
		e.complete, e.position = true, c.at
		set, _, err := e.StaleIn(sets, c.self)
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		if got, err := blockset.Decode(set, hydraSize/Block); c.all && (err != nil || got.Count() != hydraSize/Block) {
			t.Errorf("%+v: %d blocks, %v", c, got.Count(), err)
		}
	}
	if bytes.Equal(old, content(t, d)) {
		t.Error("nothing was stale")
	}
}
