package vmdisk

import (
	"errors"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// A seed whose program is killed, or whose power fails, stays what it was: half of a seed, of which only what differs is sent; and seeded again it is
// as if nothing had happened.
func TestSeedKilled(t *testing.T) {
	const half, synced = seedSize / 2 / Block * Block, seedSize / 4 / Block * Block
	for name, c := range map[string]struct {
		loss  vfs.Loss
		again bool
		most  int64 // from which byte on nothing of the seed need be left
	}{
		"killed":                  {vfs.LoseNothing, false, half},
		"killed, and seeded":      {vfs.LoseNothing, true, seedSize},
		"a power cut":             {vfs.LoseUnsynced, false, synced},
		"a power cut, and seeded": {vfs.LoseUnsynced, true, seedSize},
	} {
		t.Run(name, func(t *testing.T) {
			k := &seeded{t: t, om: vfs.NewMem(), rm: vfs.NewMem()}
			k.o = newDisk(t, seedSize, quiet(k.om))
			must(t, k.o.Activate(3))
			must(t, k.o.WriteAt(seedContent(), 0, true))
			k.r = newReplica(t, seedSize, quiet(k.rm))
			p := seedContent()
			for _, x := range seedDiffer {
				p[x*Block+100]++
			}
			s, err := k.r.Seed()
			must(t, err)
			for off := int64(0); off < half; off += 10 * Block {
				must(t, s.WriteAt(p[off:min(half, off+10*Block)], off, false))
				if off <= synced && synced < off+10*Block {
					must(t, s.Flush())
				}
			}
			k.rm = k.rm.Crash(c.loss, 1)
			if err := errors.Join(s.Close(), k.r.Close()); err != nil {
				t.Logf("the dead one: %v", err)
			}
			k.r = reopen(t, quiet(k.rm))
			if st := k.r.ReplicaState(); st.Complete || st.Position.Term != 0 {
				t.Fatalf("half seeded, it says %+v", st)
			}
			if c.again {
				k.seed(k.r)
			}
			least := int64(len(seedDiffer)) * Block
			if !c.again {
				least += seedSize - c.most
			}
			must(t, k.compare().Finish())
			data, whole := k.sent()
			if !whole || data > least {
				t.Errorf("%d bytes were sent, whole: %v; %d differ", data, whole, least)
			}
			k.equal()
		})
	}
}
