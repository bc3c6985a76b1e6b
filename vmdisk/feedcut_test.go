package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// overwhelmed is a replica whose owner's guest writes as much as the replica gets, wherever: until what it gets comes from a cut, and
// further. atCut is the disk at that cut.
func overwhelmed(t *testing.T, ops int) (b *behind, r *rand.Rand, atCut []byte) {
	t.Helper()
	b, r = newBehind(t), rand.New(rand.NewPCG(1, 2))
	must(t, b.connect())
	for range 1000 {
		must(t, b.pump(1))
		if b.f.cut != nil {
			atCut = content(t, b.owner)
			break
		}
		b.scribble(r, 40)
	}
	if atCut == nil {
		t.Fatal("no cut was taken")
	}
	for range ops {
		b.scribble(r, 40)
		must(t, b.pump(1))
		b.isOld("before the cut has come")
	}
	if b.f.cut == nil {
		t.Fatal("the cut is over already")
	}
	b.now = content(t, b.owner)
	return b, r, atCut
}

// scribble writes n blocks anywhere, some of them zeros.
func (b *behind) scribble(r *rand.Rand, n int) {
	b.t.Helper()
	for range n {
		x := r.Int64N(behindSize/Block) * Block
		if r.IntN(4) == 0 {
			must(b.t, b.owner.Trim(x, Block, false))
		} else {
			must(b.t, b.owner.WriteAt(blockOf(byte(1+r.IntN(250))), x, false))
		}
	}
}

// A replica that never gets to the end of what changes is at the barrier of a cut, and of the next, and no mixture of them; it is live
// when the guest rests.
func TestCutAfterCut(t *testing.T) {
	b, r, atCut := overwhelmed(t, 3)
	for cuts := 0; cuts < 3; {
		was, at := b.f.cut, b.rep.Position()
		b.scribble(r, 40)
		must(t, b.pump(1))
		switch pos := b.rep.Position(); {
		case pos == at:
			b.isOld("before the cut has come")
		case was == nil || pos != was.Position():
			t.Fatalf("the replica is at %s, which isn't a cut", pos)
		default:
			b.old = atCut
			b.isOld("at the cut")
			cuts++
			for {
				if more, err := b.rep.mergeBottom(context.Background()); err != nil || !more {
					must(t, err)
					break
				}
			}
		}
		if b.f.cut != nil && b.f.cut != was {
			atCut = content(t, b.owner)
		}
	}
	must(t, b.pump(-1))
	b.now = content(t, b.owner)
	must(t, b.owner.Flush())
	must(t, b.pump(-1))
	b.isNew("at rest")
	if g := b.f.Progress(); g.Phase != Live || !g.Complete || g.Remaining != 0 || b.f.cut != nil {
		t.Fatalf("%+v", g)
	}
}

// Whatever ends a cut before all of it has come, nothing is forgotten of what was to come from it, and what was made durable isn't sent again
// unless it was written again.
func TestCutCutShort(t *testing.T) {
	for how, end := range map[string]func(t *testing.T, b *behind){
		"lost": func(t *testing.T, b *behind) {
			b.owner.loseCuts(errors.New("no room"), false)
		},
		"cut off": func(t *testing.T, b *behind) {
			b.cutOff()
			must(t, b.connect())
		},
		"drained": func(t *testing.T, b *behind) {
			must(t, b.owner.Fence())
			done := make(chan error, 1)
			go func() {
				_, err := b.owner.Drain(t.Context(), "r")
				done <- err
			}()
			for begun := false; !begun; {
				b.owner.mu.Lock()
				begun = b.f.draining > 0
				b.owner.mu.Unlock()
				runtime.Gosched()
			}
			for running := true; running; {
				must(t, b.pump(-1))
				select {
				case err := <-done:
					must(t, err)
					running = false
				default:
				}
			}
			must(t, b.owner.Unfence())
		},
		"forgotten": func(t *testing.T, b *behind) {
			must(t, b.owner.Forget("r"))
			_ = b.a.Close()
			must(t, b.connect())
		},
		"the owner dies": func(t *testing.T, b *behind) {
			must(t, b.owner.save())
			b.cutOff()
			b.om = b.om.Crash(vfs.LoseNothing, 1)
			_ = b.owner.Close()
			b.owner = reopen(t, behindOptions(b.om))
			must(t, b.owner.Activate(1))
			must(t, b.connect())
		},
		"the owner's power fails while the cut is open": func(t *testing.T, b *behind) {
			must(t, b.owner.save())
			b.om = b.om.Crash(vfs.LoseUnsynced, 1)
			b.cutOff()
			_ = b.owner.Close()
			b.owner = reopen(t, behindOptions(b.om))
			must(t, b.owner.Activate(1))
			b.now = content(t, b.owner)
			must(t, b.connect())
		},
		"the owner closes": func(t *testing.T, b *behind) {
			must(t, b.owner.Close())
			b.cutOff()
			b.owner = reopen(t, behindOptions(b.om))
			must(t, b.owner.Activate(1))
			must(t, b.connect())
		},
	} {
		t.Run(how, func(t *testing.T) {
			b, _, _ := overwhelmed(t, 9)
			b.t = t
			if b.f.p.mark == (Position{}) {
				t.Fatal("nothing was made durable so far")
			}
			left := b.f.Progress().Remaining
			b.sent = 0
			end(t, b)
			must(t, b.pump(-1))
			must(t, b.owner.Flush())
			must(t, b.pump(-1))
			b.isNew(how)
			if g := b.f.Progress(); !g.Complete || g.Phase != Live || g.Remaining != 0 {
				t.Fatalf("%+v", g)
			}
			// Forgotten, or after a power cut, all has to be sent that might be lacking.
			if how == "lost" || how == "cut off" || how == "drained" {
				// An epoch that turns out to be too long is begun again as a copy.
				if b.sent > left+17*Block {
					t.Errorf("%d bytes were sent, %d were left", b.sent, left)
				}
			}
			must(t, b.owner.Close()) // which waits for what closes cuts
			names, err := b.om.List()
			must(t, err)
			for _, n := range names {
				if bytes.HasSuffix([]byte(n), []byte(vfs.TempSuffix)) {
					t.Errorf("%s is left", n)
				}
			}
		})
	}
}
