package vmdisk

import (
	"bytes"
	"testing"
)

// At every moment of a catch-up, also with a writer beside it, the replica is the disk at Of but for the blocks of the lag; in the end,
// and before what wasn't written there is no lag.
func TestLag(t *testing.T) {
	for _, steps := range []int{0, 1, 5, 30, 60, 120, -1} {
		b := newBehind(t)
		if _, ok := b.owner.Lag("nobody"); ok {
			t.Fatal("something is known of nobody")
		}
		must(t, b.connect())
		must(t, b.pump(steps))
		must(t, b.owner.WriteAt(bytes.Repeat([]byte{222}, Block), 7*Block, false))
		before, ok := b.owner.Lag("r")
		if !ok || before.Settled || before.Of != b.owner.Position() || before.Acked != b.rep.Position() {
			t.Fatalf("after %d: %+v", steps, before)
		}
		must(t, b.owner.Flush())
		for _, cut := range []bool{false, true} {
			if cut {
				b.cutOff()
			}
			lag, _ := b.owner.Lag("r")
			if !lag.Settled || lag.Of != b.owner.Position() {
				t.Fatalf("after %d: %+v", steps, lag)
			}
			got, want := content(t, b.rep), content(t, b.owner)
			end, count := uint64(0), 0
			for first, n := range lag.Runs() {
				if first < end || n == 0 || end > 0 && first == end {
					t.Fatalf("after %d: run of %d at %d after %d", steps, n, first, end)
				}
				end, count = first+n, count+int(n)
				copy(got[first*Block:end*Block], want[first*Block:])
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("after %d: the replica lacks more than that: %s", steps, differ(got, want))
			}
			if most := behindSize / Block / 8 * 7; count > most+1 || steps == -1 && count > 1 {
				t.Fatalf("after %d: it lacks %d blocks", steps, count)
			}
			lag.Release()
		}
		before.Release()
	}
}

// A disk that isn't active any more says nothing of its peers: another owner writes, and what this one knew is old.
func TestLagOfAnOwnerOfBefore(t *testing.T) {
	b := newBehind(t)
	must(t, b.connect())
	must(t, b.owner.Fence())
	if lag, ok := b.owner.Lag("r"); !ok {
		t.Fatal("a fenced owner says nothing")
	} else {
		lag.Release()
	}
	must(t, b.owner.Give(b.owner.Info().Term))
	if _, ok := b.owner.Lag("r"); ok {
		t.Fatal("a disk whose term was given away tells what a peer lacks")
	}
}
