package vmdisk

import (
	"testing"

	"go.uber.org/goleak"
	"tagalong.org/tagalong/vmdisk/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet has no housekeeping: tests do it when they want.
func quiet(m *vfs.Mem) Options {
	return Options{FS: m, BarrierEvery: -1, MirrorEvery: -1, SaveEvery: -1, QueueBytes: 1 << 20, EpochLogBytes: 64 << 10, attachBelow: 64 << 10, checkpointEvery: 128 << 10, cutMemory: 32 << 10, mergeByHand: true}
}

func newDisk(t *testing.T, size int64, o Options) *Store {
	t.Helper()
	d, err := Create("", ID{1}, size, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func newReplica(t *testing.T, size int64, o Options) *Store {
	t.Helper()
	d, err := CreateReplica("", ID{1}, size, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func reopen(t *testing.T, o Options) *Store {
	t.Helper()
	d, err := Open("", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is all that the disk reads as.
func content(t *testing.T, d *Store) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	must(t, d.ReadAt(b, 0))
	return b
}

// poll is Next that doesn't wait: nil says that there is nothing now.
func (f *Feed) poll() (*Op, error) {
	copied := false
	for {
		op, do, wait, err := f.decide(copied)
		switch {
		case err != nil || op != nil:
			return op, err
		case do != nil:
			if op, err := do(); err != nil || op != nil {
				return op, err
			}
			copied = true
		case wait != nil:
			<-wait
		default:
			return nil, nil
		}
	}
}

// feedTo applies one operation, and returns the position that it makes the replica acknowledge.
func feedTo(a *Applier, op *Op) (ack Position, err error) {
	defer op.Release()
	switch op.Kind {
	case OpBegin:
		return ack, a.Begin(op.Copy)
	case OpWrite:
		return ack, a.Write(op.Off, op.Data)
	case OpZero:
		return ack, a.Zero(op.Off, op.Len)
	case OpCheckpoint:
		return op.Pos, a.Checkpoint(op.Pos)
	default:
		return op.Pos, a.Barrier(op.Pos)
	}
}

// pump moves all that there is.
func pump(t *testing.T, f *Feed, a *Applier) {
	t.Helper()
	for {
		op, err := f.poll()
		must(t, err)
		if op == nil {
			return
		}
		ack, err := feedTo(a, op)
		must(t, err)
		f.Acked(ack)
	}
}
