package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// behind is an owner and a replica that was whole once and lacks most blocks since.
type behind struct {
	t          *testing.T
	om, rm     *vfs.Mem
	owner, rep *Store
	f          *Feed
	a          *Applier
	old, now   []byte
	sent       int64 // bytes of blocks since connect
}

const behindSize = 256 * Block

func behindOptions(m *vfs.Mem) Options {
	o := quiet(m)
	o.attachBelow, o.checkpointEvery = 4*Block, 16*Block
	return o
}

func newBehind(t *testing.T) *behind {
	t.Helper()
	b := &behind{t: t, om: vfs.NewMem(), rm: vfs.NewMem()}
	b.owner = newDisk(t, behindSize, behindOptions(b.om))
	b.rep = newReplica(t, behindSize, behindOptions(b.rm))
	must(t, b.owner.Activate(1))
	for x := range int64(behindSize / Block) {
		must(t, b.owner.WriteAt(bytes.Repeat([]byte{byte(1 + x%200)}, Block), x*Block, false))
	}
	must(t, b.connect())
	must(t, b.pump(-1))
	b.cutOff()
	b.old = content(t, b.owner)
	for x := range int64(behindSize / Block) {
		if x%8 != 7 {
			must(t, b.owner.WriteAt(bytes.Repeat([]byte{byte(2 + x%199)}, Block), x*Block, false))
		}
	}
	must(t, b.owner.Flush())
	b.now = content(t, b.owner)
	return b
}

func (b *behind) connect() error {
	var err error
	if b.a, err = b.rep.Apply(); err != nil {
		return err
	}
	b.sent = 0
	b.f, err = b.owner.Attach("r", b.a.State())
	return err
}

func (b *behind) cutOff() {
	b.f.Close()
	_ = b.a.Close() // what a broken replica says of that doesn't matter
}

// pump moves up to n operations, or all.
func (b *behind) pump(n int) error {
	for ; n != 0; n-- {
		op, err := b.f.poll()
		if err != nil || op == nil {
			return err
		}
		if op.Kind == OpWrite || op.Kind == OpZero {
			b.sent += op.Len
		}
		ack, err := feedTo(b.a, op)
		if err != nil {
			return err
		}
		b.f.Acked(ack)
	}
	return nil
}

// isOld says that the replica is what it was, and isNew that it is what the owner is.
func (b *behind) isOld(what string) {
	b.t.Helper()
	if got := content(b.t, b.rep); !bytes.Equal(got, b.old) {
		b.t.Fatalf("%s: the replica changed before its barrier: %s", what, differ(got, b.old))
	}
}

func (b *behind) isNew(what string) {
	b.t.Helper()
	if got := content(b.t, b.rep); !bytes.Equal(got, b.now) {
		b.t.Fatalf("%s: %s", what, differ(got, b.now))
	}
}

// A catch-up goes on where it was after lost connections and crashes of both ends, and the replica stays what it was until
// all is there.
func TestCatchUpGoesOn(t *testing.T) {
	b := newBehind(t)
	must(t, b.connect())
	must(t, b.pump(30))
	first := b.sent
	if p := b.owner.Peers()[0]; p.Phase != CatchingUp || p.Acked != b.rep.Position() {
		t.Fatalf("the peer is %+v", p)
	}
	b.isOld("half-way")
	b.cutOff()
	b.isOld("cut off")
	must(t, b.owner.save())
	b.rm = b.rm.Crash(vfs.LoseUnsynced, 1)
	_ = b.rep.Close()
	b.rep = reopen(t, behindOptions(b.rm))
	b.isOld("after a power cut")
	// A power cut would bring back the region that left the activity log just now, and with it all blocks.
	b.om = b.om.Crash(vfs.LoseNothing, 1)
	_ = b.owner.Close()
	b.owner = reopen(t, behindOptions(b.om))
	must(t, b.owner.Activate(1))
	if s := b.rep.ReplicaState(); s.Checkpoint == (Position{}) || s.Copy == ([16]byte{}) || !s.Complete {
		t.Fatalf("the replica says %+v", s)
	}
	must(t, b.connect())
	must(t, b.pump(-1))
	b.isNew("caught up")
	const all = behindSize / 8 * 7
	if b.sent > all-first+17*Block {
		t.Fatalf("%d bytes were sent before and %d after, of %d", first, b.sent, all)
	}
	if p := b.f.Progress(); !p.Complete || p.Remaining != 0 {
		t.Fatalf("the peer is %+v", p)
	}
	// The next writes go through the epoch log, into a disk that has a layer.
	must(t, b.owner.WriteAt(bytes.Repeat([]byte{250}, 3*Block), 9*Block, true))
	must(t, b.pump(-1))
	b.now = content(t, b.owner)
	b.isNew("live")
	more, err := b.rep.mergeBottom(context.Background())
	if err != nil || !more {
		t.Fatalf("merged %v, %v", more, err)
	}
	b.isNew("merged")
	b.cutOff()
	b.rm = b.rm.Crash(vfs.LoseUnsynced, 1)
	_ = b.rep.Close()
	b.rep = reopen(t, behindOptions(b.rm))
	b.isNew("merged, after a power cut")
}

// When what a replica had of a copy is lost, it gets that again, and nothing that it has from before.
func TestCatchUpLost(t *testing.T) {
	for _, name := range []string{".map", ".data"} {
		b := newBehind(t)
		must(t, b.connect())
		must(t, b.pump(30))
		b.cutOff()
		layer := b.rep.incoming.Name()
		must(t, b.rep.Close())
		f, err := b.rm.Open(layer + name)
		must(t, err)
		must(t, f.Truncate(50))
		b.rep = reopen(t, behindOptions(b.rm))
		b.isOld("without the layer")
		must(t, b.connect())
		must(t, b.pump(-1))
		b.isNew("caught up")
		if b.sent != behindSize/8*7 {
			t.Fatalf("%d bytes were sent, of %d", b.sent, behindSize/8*7)
		}
		b.cutOff()
	}
}

// Who becomes the owner, or follows one that doesn't know the copy, drops what it had of it, with the files.
func TestCatchUpDropped(t *testing.T) {
	for _, how := range []string{"owner", "epoch", "another copy"} {
		b := newBehind(t)
		must(t, b.connect())
		must(t, b.pump(30))
		b.cutOff()
		name := b.rep.incoming.Name()
		pos := b.rep.Position()
		switch how {
		case "owner":
			must(t, b.rep.Activate(2))
		case "epoch":
			a, err := b.rep.Apply()
			must(t, err)
			must(t, a.Barrier(Position{1, pos.Barrier + 1000}))
			must(t, a.Close())
		case "another copy":
			a, err := b.rep.Apply()
			must(t, err)
			must(t, a.Begin([16]byte{9}))
			if s := a.State(); s.Copy != [16]byte{9} || s.Checkpoint != (Position{}) {
				t.Fatalf("the replica says %+v", s)
			}
			must(t, a.Close())
		}
		if s := b.rep.ReplicaState(); how != "another copy" && (s.Copy != [16]byte{} || s.Checkpoint != (Position{})) {
			t.Fatalf("%s: the replica says %+v", how, s)
		}
		if _, err := b.rm.Open(name + ".map"); err == nil {
			t.Fatalf("%s: the layer's files are left", how)
		}
		b.isOld(how)
		must(t, b.rep.Close())
	}
}

// Whichever call of a catch-up fails at the replica or at the owner, with an error or a full disk, and whatever a crash then
// takes: the replica is what it was or what it becomes, and catches up afterwards.
func TestEveryCallOfACatchUpFails(t *testing.T) {
	for _, why := range []error{syscall.ENOSPC, syscall.EIO} {
		for _, atOwner := range []bool{false, true} {
			for n := 1; ; n += 3 {
				b := newBehind(t)
				mem := b.rm
				if atOwner {
					mem = b.om
				}
				mem.FailAt(n, why, n%2 == 1)
				err := b.connect()
				if err == nil {
					err = b.pump(-1)
				}
				if err == nil {
					_, err = b.rep.mergeBottom(context.Background())
				}
				reached := mem.Calls() >= n
				what := fmt.Sprintf("call %d, owner %v: %v", n, atOwner, err)
				if err != nil && !errors.Is(err, why) && !errors.Is(err, ErrFailed) {
					t.Fatal(what)
				}
				if b.f != nil {
					b.cutOff()
				}
				mem.FailAt(0, nil, false)
				loss := vfs.Loss(n / 3 % 3)
				b.rm = b.rm.Crash(loss, uint64(n))
				_ = b.rep.Close()
				b.rep = reopen(t, behindOptions(b.rm))
				if got := content(t, b.rep); !bytes.Equal(got, b.old) && !bytes.Equal(got, b.now) {
					t.Fatalf("%s: the replica is a mixture: %s", what, differ(got, b.old))
				}
				if atOwner {
					b.om = b.om.Crash(loss, uint64(n))
					_ = b.owner.Close()
					b.owner = reopen(t, behindOptions(b.om))
					must(t, b.owner.Activate(1))
				}
				must(t, b.connect())
				must(t, b.pump(-1))
				b.isNew(what)
				b.cutOff()
				must(t, b.owner.Close())
				must(t, b.rep.Close())
				if !reached {
					break
				}
			}
		}
	}
}

// rewrite changes seven of eight blocks while the replica follows, so much that its feed turns to a copy.
func (b *behind) rewrite(fill byte) {
	b.t.Helper()
	for x := range int64(behindSize / Block) {
		if x%8 != 7 {
			must(b.t, b.owner.WriteAt(bytes.Repeat([]byte{fill}, Block), x*Block, false))
		}
	}
	must(b.t, b.owner.Flush())
}

// A peer that follows and can't keep up gets a copy too. It goes on after a lost connection, whatever is acknowledged
// late, and loses nothing of the epochs before.
func TestCatchUpInTheMiddle(t *testing.T) {
	for _, how := range []string{"cut off", "acknowledged late", "unbroken"} {
		late := how == "acknowledged late"
		b := newBehind(t)
		b.owner.o.QueueBytes = 64 * Block
		must(t, b.connect())
		must(t, b.pump(-1))
		for {
			if more, err := b.rep.mergeBottom(t.Context()); err != nil || !more {
				must(t, err)
				break
			}
		}
		// An epoch that only the log has durably, in a block that the copy doesn't bring.
		must(t, b.owner.WriteAt(bytes.Repeat([]byte{251}, Block), 7*Block, true))
		var acks []Position
		for {
			op, err := b.f.poll()
			must(t, err)
			if op == nil {
				break
			}
			ack, err := feedTo(b.a, op)
			must(t, err)
			acks = append(acks, ack)
		}
		if !late {
			b.f.Acked(acks[len(acks)-1])
		}
		b.old = content(t, b.owner)
		b.rewrite(252)
		b.now = content(t, b.owner)
		must(t, b.pump(1)) // Begin
		if late {
			b.f.Acked(acks[len(acks)-1])
		}
		b.sent = 0
		must(t, b.pump(40))
		first := b.sent
		b.isOld("half-way")
		if s := b.rep.ReplicaState(); s.Checkpoint == (Position{}) {
			t.Fatalf("the replica says %+v", s)
		}
		if p := b.owner.Peers()[0]; p.Acked != b.rep.Position() {
			t.Fatalf("the peer is %+v, the replica at %s", p, b.rep.Position())
		}
		if how != "unbroken" {
			b.cutOff()
			must(t, b.connect())
		}
		must(t, b.pump(-1))
		if limit := behindSize/8*7 - first + 17*Block; how != "unbroken" && b.sent > limit {
			t.Fatalf("%s: %d bytes were sent again, at most %d are due", how, b.sent, limit)
		}
		b.isNew(how + ", caught up")
		b.rm = b.rm.Crash(vfs.LoseUnsynced, 1)
		b.f.Close()
		_ = b.rep.Close()
		b.rep = reopen(t, behindOptions(b.rm))
		b.isNew(how + ", after a power cut")
	}
}

// A copy that begins drops the epoch in the making: also when it is never ended.
func TestCatchUpDropsAnEpoch(t *testing.T) {
	b := newBehind(t)
	a, err := b.rep.Apply()
	must(t, err)
	pos := b.rep.Position()
	must(t, a.Write(0, bytes.Repeat([]byte{99}, Block)))
	must(t, a.Begin([16]byte{5}))
	must(t, a.Write(8*Block, bytes.Repeat([]byte{98}, Block)))
	must(t, a.Barrier(Position{1, pos.Barrier + 1000}))
	want := bytes.Clone(b.old)
	copy(want[8*Block:], bytes.Repeat([]byte{98}, Block))
	if got := content(t, b.rep); !bytes.Equal(got, want) {
		t.Fatal(differ(got, want))
	}
	must(t, a.Write(16*Block, bytes.Repeat([]byte{97}, Block)))
	must(t, a.Barrier(Position{1, pos.Barrier + 1001}))
	copy(want[16*Block:], bytes.Repeat([]byte{97}, Block))
	if got := content(t, b.rep); !bytes.Equal(got, want) {
		t.Fatal(differ(got, want))
	}
	if err := a.Checkpoint(Position{1, pos.Barrier + 1002}); !errors.Is(err, ErrComplete) {
		t.Fatalf("checkpoint without a copy: %v", err)
	}
	must(t, a.Close())
}

// What an owner acknowledged of a copy counts also after it was restarted: a replica that lost it, or that was set back to
// an older state of it, gets it again.
func TestCatchUpSetBack(t *testing.T) {
	for _, lost := range []bool{false, true} {
		b := newBehind(t)
		must(t, b.connect())
		must(t, b.pump(8))
		early, state := b.rm.After(vfs.LoseNothing, 0), b.rep.ReplicaState()
		must(t, b.pump(30))
		if now := b.rep.ReplicaState(); state.Checkpoint == (Position{}) || now.Checkpoint == state.Checkpoint || now.Copy != state.Copy {
			t.Fatalf("the copy was at %s and is at %s", state.Checkpoint, now.Checkpoint)
		}
		b.cutOff()
		name := b.rep.incoming.Name()
		must(t, b.owner.Close())
		b.owner = reopen(t, behindOptions(b.om))
		must(t, b.owner.Activate(1))
		must(t, b.rep.Close())
		if !lost {
			b.rm = early
		} else {
			must(t, b.rm.Remove(name+".map"))
		}
		b.rep = reopen(t, behindOptions(b.rm))
		b.isOld("set back")
		must(t, b.connect())
		must(t, b.pump(-1))
		b.isNew("caught up")
		b.cutOff()
	}
}
