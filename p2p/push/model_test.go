package push_test

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// An owner writes and takes cuts; senders that know exactly, by regions, or nothing push them; lines are cut anywhere, the receiver's disk
// fails or loses its power anywhere, and the next sender goes on, with the same cut or a later one. The receiver's disk is always at one of the cuts,
// and never at a mixture.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 11))
		size := push.Region + rapid.Int64Range(1, 40).Draw(rt, "blocks more")*block
		blocks := size / block
		disk := newContent(size, nil)
		cuts := map[push.Position]*content{}
		written := map[int64]uint64{} // block → barrier of its last write
		barrier, ids := uint64(1), uint64(1)
		write := func(n int) {
			barrier++
			// Most writes go to few places.
			for range n {
				x := r.Int64N(20) * 3
				if r.IntN(3) == 0 {
					x = r.Int64N(blocks)
				}
				for ; n > 0 && x < blocks; x++ {
					ids++
					if disk.here[x] = noise(ids % 50); r.IntN(4) == 0 {
						disk.here[x] = nil
					}
					written[x] = barrier
					if r.IntN(3) == 0 {
						break
					}
				}
			}
			cuts[at(barrier)] = disk.clone()
		}
		write(10)
		d := newReplica(newContent(size, nil), push.Position{})
		if rapid.Bool().Draw(rt, "whole") {
			d = newReplica(disk.clone(), at(barrier))
		}
		index := index{}
		for id := range uint64(25) {
			index.add(noise(id))
		}
		write(5)
		cut := at(barrier)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			if rapid.Bool().Draw(rt, "write") {
				write(rapid.IntRange(1, 8).Draw(rt, "writes"))
			}
			if rapid.Bool().Draw(rt, "later cut") {
				cut = at(barrier)
			}
			src := &source{content: cuts[cut], lacks: []int64{}}
			work := push.Work{Source: src, Exact: true}
			knows := rapid.IntRange(0, 2).Draw(rt, "knows")
			for x := range blocks {
				near := false
				for y := x / 16 * 16; y < min(blocks, x/16*16+16) && knows == 1; y++ {
					near = near || written[y] > d.pos.Barrier
				}
				if knows == 0 || near || written[x] > d.pos.Barrier {
					src.lacks = append(src.lacks, x)
				}
			}
			work.Exact = knows == 2 && rapid.Bool().Draw(rt, "says so")
			var elsewhere push.Index
			if rapid.Bool().Draw(rt, "index") {
				elsewhere = index
			}
			before, was := d.content.clone(), d.pos
			left, calls := rapid.IntRange(0, 150000).Draw(rt, "bytes"), rapid.IntRange(0, 40).Draw(rt, "calls")
			a, b := wiretest.Pipe(t)
			d.failAt = 0
			if calls > 0 && rapid.Bool().Draw(rt, "disk fails") {
				d.failAt = d.calls + calls
			}
			var stream wire.Stream = a
			if rapid.Bool().Draw(rt, "line fails") {
				stream = &shortened{Stream: a, left: left, other: b}
			}
			sent, _ := pushed(t, stream, b, hello(size, cut), work, d, elsewhere, nil)
			switch {
			case d.pos == cut:
				d.equals(t, cuts[cut], cut)
			case sent == nil:
				rt.Fatalf("pushed %v, the replica is at %v", cut, d.pos)
			case d.pos != was:
				rt.Fatalf("from %v to %v by pushing %v", was, d.pos, cut)
			case d.complete:
				d.equals(t, before, was)
			}
			d.failAt = 0
			if rapid.Bool().Draw(rt, "power cut") {
				d.crash(r)
			}
		}
		if d.pos.Compare(cut) >= 0 {
			return
		}
		src := &source{content: cuts[cut]}
		a, b := wiretest.Pipe(t)
		if sent, received := pushed(t, a, b, hello(size, cut), push.Work{Source: src}, d, nil, nil); sent != nil || received != nil {
			rt.Fatalf("the last push: %v, %v", sent, received)
		}
		d.equals(t, cuts[cut], cut)
	})
}
