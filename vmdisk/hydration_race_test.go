package vmdisk

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
)

// The thesis's race (§4.3.2): a block is asked for, the guest writes it, and then its old content arrives. The guest's write counts, also for
// who comes while it is stored, after it was merged, and after a restart.
func TestAFetchedBlockArrivesAfterAWrite(t *testing.T) {
	for name, late := range map[string]bool{
		"while it is on its way":              false,
		"when it was looked at and is stored": true, // between the Hydrator's look at what is still stale and the sink
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { arrivesAfterAWrite(t, late) })
		})
	}
}

func arrivesAfterAWrite(t *testing.T, late bool) {
	g := newLagging(t, 3)
	g.lack(t)
	must(t, g.d.Activate(2))
	x := g.stale.Next(0, true)
	old := bytes.Clone(g.newest[x*Block : (x+1)*Block])
	p := bytes.Repeat([]byte{9}, Block)
	arrive := make(chan struct{})
	g.src.fetch = func(ctx context.Context, _ int64, _ int) error {
		select {
		case <-arrive:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	y := g.d.hydration.Load()
	end := make(chan error, 1)
	go func() { end <- g.d.Hydrate(t.Context(), g.src) }()
	synctest.Wait() // all that can be is asked for
	must(t, g.d.WriteAt(p, x*Block, true))
	copy(g.newest[x*Block:], p)
	if late {
		must(t, sink{g.d, y}.Put(x*Block, old))
	}
	got := make([]byte, Block)
	must(t, g.d.ReadAt(got, x*Block))
	if !bytes.Equal(got, p) {
		t.Error("the guest doesn't read what it wrote")
	}
	close(arrive)
	must(t, <-end)
	same(t, g.d, g.newest)
	if has := y.fetched.Blocks().Has(x); has != late {
		t.Errorf("what came too late was stored: %v", has)
	}
	mergeAll(t, g.d)
	same(t, g.d, g.newest)
	must(t, g.d.Close())
	g.d = reopen(t, hydraOptions(g.mem))
	same(t, g.d, g.newest)
	must(t, g.d.Close())
}
