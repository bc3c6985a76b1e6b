package app

import (
	"math/rand/v2"
	"testing"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// To a copy at another site that was filled from an old image only what differs travels, also if that was cut short by a kill or a power cut; and the copy is
// nothing to anybody before.
func TestPushToASeededCopy(t *testing.T) {
	const blocks = pushDisk / vmdisk.Block
	for name, c := range map[string]struct {
		seeded int64 // blocks from the first on
		loss   vfs.Loss
	}{
		"whole":               {blocks, vfs.LoseNothing},
		"half, killed":        {blocks / 2, vfs.LoseNothing},
		"half, the power off": {blocks / 2, vfs.LoseUnsynced},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPushTest(t, rand.NewPCG(2, 6))
			content := make([]byte, pushDisk)
			r := rand.NewChaCha8([32]byte{7})
			_, _ = r.Read(content)
			clear(content[300*vmdisk.Block : 400*vmdisk.Block])
			p.must(p.owner.WriteAt(content, 0, true))
			differ := blocks - c.seeded
			for x := int64(40); x < c.seeded; x += 100 {
				if x < 300 || x >= 400 {
					content[x*vmdisk.Block]++
					differ++
				}
			}
			s, err := p.replica.Seed()
			p.must(err)
			p.must(s.WriteAt(content[:c.seeded*vmdisk.Block], 0, false))
			p.must(s.Flush())
			if c.seeded < blocks {
				fs := p.fs.Crash(c.loss, 3)
				_, _ = s.Close(), p.replica.Close() // the dead one
				p.fs = fs
				p.replica, err = vmdisk.Open("replica", pushOptions(p.fs))
				p.must(err)
			}
			p.must(s.Close())
			if p.replica.Info().Complete {
				t.Fatal("what is seeded counts as a copy")
			}
			p.must(p.push(p.cut(), 0))
			p.check()
			floor := differ * vmdisk.Block
			t.Logf("%d bytes differ, %d of content were sent, %d bytes in all: %.3f times what differs", floor, p.content, p.bytes, float64(p.bytes)/float64(floor))
			if p.content != floor {
				t.Errorf("%d bytes of content were sent, %d differ", p.content, floor)
			}
			if p.bytes > floor+floor/10 {
				t.Errorf("%d bytes travelled, %d differ", p.bytes, floor)
			}
		})
	}
}
