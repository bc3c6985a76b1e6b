package vmdisk

import (
	"context"
	"time"
)

// A feed that has much to copy reads as fast as its peer takes it, which guests of this device feel: they share its drives and processors. So it asks
// Options.Copy before each read. It isn't asked for the little that is left when writes are queued, since the queue would grow meanwhile; nor while somebody
// waits until the peer has everything.

// yield says whether Next may do now what it is about to. If not it has waited a little, and it is to be decided anew what to do.
func (f *Feed) yield(ctx context.Context) bool {
	turns := f.d.o.Copy
	if !f.bulk || turns == nil {
		return true
	}
	rest := turns.Delay()
	if rest <= 0 {
		return true
	}
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-f.done:
	case <-t.C:
	}
	return false
}

// toCopy has Next do run, which reads a part of much. The caller holds d.mu.
func (f *Feed) toCopy(run func() (*Op, error)) func() (*Op, error) {
	f.bulk = f.draining == 0
	return run
}

// took tells that n bytes were read for a peer since began.
func (d *Store) took(n int64, began time.Time) {
	if d.o.Copy != nil {
		d.o.Copy.Took(n, time.Since(began))
	}
}
