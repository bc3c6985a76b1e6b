package crash

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// seedSize is two regions and a half.
const seedSize = 10 << 20

// seeding is an owner and a replica that is seeded, compared and brought up to date, with every call to either's files a crash point.
type seeding struct {
	om, rm  *vfs.Mem
	o, r    *vmdisk.Store
	last    [2]*vfs.Mem
	points  [][2]*vfs.Mem
	history map[vmdisk.Position]values // what the disk was at the barriers that were sent
}

func newSeeding(t *testing.T) *seeding {
	t.Helper()
	s := &seeding{om: vfs.NewMem(), rm: vfs.NewMem(), history: map[vmdisk.Position]values{}}
	var err error
	s.o, err = vmdisk.Create("", diskID, seedSize, options(s.om))
	must(t, err)
	must(t, s.o.Activate(1))
	for x := range int64(40) {
		must(t, s.o.WriteAt(fill(make([]byte, 2*block), 60*x*block, uint64(1+x)), 60*x*block, false))
	}
	// Twice: then nothing is logged any more, which would count as missing after the owner's death.
	must(t, errors.Join(s.o.Save(), s.o.Save()))
	s.r, err = vmdisk.CreateReplica("", diskID, seedSize, options(s.rm))
	must(t, err)
	s.last = [2]*vfs.Mem{s.om.After(vfs.LoseNothing, 0), s.rm.After(vfs.LoseNothing, 0)}
	for who, m := range []*vfs.Mem{s.om, s.rm} {
		m.Trace(func(now *vfs.Mem) {
			s.last[who] = now
			s.points = append(s.points, s.last)
		})
	}
	return s
}

// image is what the replica is seeded with: the disk, but for a few blocks.
func (s *seeding) image() ([]byte, error) {
	p := make([]byte, seedSize)
	err := s.o.ReadAt(p, 0)
	for _, x := range []int64{0, 61, 5 * 60, 1024, 2400} {
		fill(p[x*block:(x+1)*block], x*block, 999)
	}
	return p, err
}

// run does all of it. If twice the seed is done twice, the second time over a first copy that the owner began.
func (s *seeding) run(twice bool) error {
	p, err := s.image()
	if err != nil {
		return err
	}
	for round := range 2 {
		if round == 1 {
			if !twice {
				break
			}
			if err := s.feed(3); err != nil {
				return err
			}
		}
		f, err := s.r.Seed()
		if err != nil {
			return err
		}
		for off := int64(0); off < seedSize; off += 1 << 20 {
			err = errors.Join(err, f.WriteAt(p[off:off+1<<20], off, off == 4<<20))
		}
		if round == 0 && twice {
			err = errors.Join(err, f.Flush())
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if err := compareSeed(s.o, s.r, 1<<20); err != nil { // cut short
		return err
	}
	if err := s.o.WriteAt(fill(make([]byte, block), 500*block, 777), 500*block, true); err != nil {
		return err
	}
	if err := compareSeed(s.o, s.r, seedSize); err != nil {
		return err
	}
	if err := s.o.WriteAt(fill(make([]byte, block), 501*block, 778), 501*block, false); err != nil {
		return err
	}
	if err := s.feed(2); err != nil { // cut short
		return err
	}
	return s.feed(-1)
}

// feed sends n operations, or all.
func (s *seeding) feed(n int) error {
	a, err := s.r.Apply()
	if err != nil {
		return err
	}
	f, err := s.o.Attach(peerName, a.State())
	if err != nil {
		return errors.Join(err, a.Close())
	}
	for ; n != 0 && err == nil; n-- {
		var op *vmdisk.Op
		if op, err = poll(f); op == nil {
			break
		}
		if op.Kind == vmdisk.OpBarrier {
			s.history[op.Pos], err = scan(s.o)
		}
		var ack vmdisk.Position
		if err == nil {
			ack, err = feedTo(a, op)
		}
		op.Release()
		f.Acked(ack)
	}
	f.Close()
	return errors.Join(err, a.Close())
}

// compareSeed compares an owner's disk with what a replica offers, up to an offset; what comes after isn't looked at, and the comparison is finished
// only if there is nothing.
func compareSeed(o, r *vmdisk.Store, until int64) error {
	off, err := r.Offer()
	if err != nil {
		return err
	}
	c, err := o.Compare(peerName, off.State())
	if err == nil {
		err = compareUntil(c, off, until)
		if err == nil && until == o.Size() {
			err = c.Finish()
		}
		c.Close()
	}
	return errors.Join(err, off.Close())
}

func compareUntil(c *vmdisk.Comparison, r vmdisk.Reader, until int64) error {
	const part = 64 << 10
	mine, theirs := make([]byte, part), make([]byte, part)
	for at, n := c.Next(0); n > 0 && at < until; at, n = c.Next(at) {
		end := min(at+n, until)
		for at < end {
			n := min(part, end-at)
			if err := errors.Join(c.ReadAt(mine[:n], at), r.ReadAt(theirs[:n], at)); err != nil {
				return err
			}
			for x := int64(0); x < n; x += block {
				if bytes.Equal(mine[x:x+block], theirs[x:x+block]) {
					if err := c.Equal(at+x, block); err != nil {
						return err
					}
				}
			}
			at += n
		}
	}
	return nil
}

// survives opens what a crash left of both. A replica is the disk at a barrier, or nobody takes it for one; and whatever either knows of the other, both
// are equal in the end.
func (s *seeding) survives(mems [2]*vfs.Mem, compare bool) (err error) {
	o, err := vmdisk.Open("", options(mems[0]))
	if err != nil {
		return fmt.Errorf("owner: %w", err)
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	r, err := vmdisk.Open("", options(mems[1]))
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	st := r.ReplicaState()
	if st.Complete {
		v, err := scan(r)
		if want, ok := s.history[st.Position]; err != nil || !ok || !maps.Equal(v, want) {
			return fmt.Errorf("whole, but not what the disk was at %s (known %v): %s, %w", st.Position, ok, differ(v, want), err)
		}
	} else {
		if err := r.Activate(9); !errors.Is(err, vmdisk.ErrIncomplete) {
			return fmt.Errorf("what isn't whole was activated: %w", err)
		}
		if err := r.ReadAt(make([]byte, block), 0); !errors.Is(err, vmdisk.ErrIncomplete) {
			return fmt.Errorf("what isn't whole was read: %w", err)
		}
	}
	if err := o.Activate(1); err != nil {
		return err
	}
	if compare && !st.Complete && o.WorthComparing(peerName, st) {
		if err := compareSeed(o, r, seedSize); err != nil {
			return fmt.Errorf("compare: %w", err)
		}
	}
	return follow(o, r)
}

// A crash of either device at any moment of a seed's way leaves something that is compared and brought up to date, or a replica, and never a wrong one.
func TestSeedCrashes(t *testing.T) {
	for _, twice := range []bool{false, true} {
		t.Run(fmt.Sprint(twice), func(t *testing.T) {
			t.Parallel()
			s := newSeeding(t)
			err := s.run(twice)
			s.om.Trace(nil)
			s.rm.Trace(nil)
			must(t, err)
			if !s.r.ReplicaState().Complete {
				t.Fatal("the replica isn't whole in the end")
			}
			must(t, errors.Join(s.r.Close(), s.o.Close()))
			rnd, crashes := rand.New(rand.NewPCG(1, 1)), 0
			kinds := []vfs.Loss{vfs.LoseNothing, vfs.LoseUnsynced, vfs.LoseSome}
			for i, p := range s.points {
				for range *some {
					// Each kind in turn; the other device dies in the same way, or only its program does.
					kind := kinds[crashes%len(kinds)]
					losses := [2]vfs.Loss{kind, []vfs.Loss{kind, vfs.LoseNothing}[rnd.IntN(2)]}
					if rnd.IntN(2) == 0 {
						losses[0], losses[1] = losses[1], losses[0]
					}
					mems := [2]*vfs.Mem{p[0].After(losses[0], rnd.Uint64()), p[1].After(losses[1], rnd.Uint64())}
					if err := s.survives(mems, rnd.IntN(3) > 0); err != nil {
						t.Fatalf("crash point %d of %d, losses %d: %v", i+1, len(s.points), losses, err)
					}
					crashes++
				}
			}
			t.Logf("%d crashes at %d points", crashes, len(s.points))
		})
	}
}
