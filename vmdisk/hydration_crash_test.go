package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"tagalong.org/tagalong/vmdisk/hydrate"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const sweepSize = 1 << 20

// sweep is one course of a disk that hydrates: what has been done so far, and what that must have left.
type sweep struct {
	*lagging
	told, active, rolled bool
	// content is what must be read if the disk hasn't gone back, where the guest's last writes aren't under way; either is what the
	// blocks may be besides that were being written.
	content []byte
	either  map[int64][]byte
}

func (s *sweep) write(x int64, fill byte, fua bool) error {
	p := bytes.Repeat([]byte{fill}, Block)
	s.either[x] = bytes.Clone(s.content[x*Block : (x+1)*Block])
	copy(s.content[x*Block:], p)
	if err := s.d.WriteAt(p, x*Block, fua); err != nil {
		return err
	}
	if fua {
		clear(s.either)
	}
	return nil
}

// run goes through everything until something fails.
func (s *sweep) run(back bool) error {
	if err := s.d.SetStale(s.stale.AppendTo(nil), s.at); err != nil {
		return err
	}
	s.told = true
	if err := s.d.Activate(2); err != nil {
		return err
	}
	s.active = true
	first := s.stale.Next(0, true)
	other := s.stale.Next(0, false)
	for _, do := range []func() error{
		func() error { return s.write(first, 3, true) },
		func() error { return s.write(other, 5, false) },
		func() error { return s.d.Hydrate(context.Background(), s.fetching(2)) },
		func() error { return s.write(first, 7, false) },
		func() error { return s.write(s.stale.Next(first+1, true), 9, false) },
		s.d.Flush,
		func() error { clear(s.either); return s.d.save() },
	} {
		if err := do(); err != nil && !errors.Is(err, errEnough) {
			return err
		}
	}
	if back {
		if err := s.d.Fence(); err != nil {
			return err
		}
		_, err := s.d.Rollback()
		s.rolled = err == nil
		return err
	}
	// What is whole because of a write that no flush has followed must not become the old content again.
	for x := s.stale.Next(sweepSize/Block/2, true); x < s.stale.Next(sweepSize/Block/2, false); x++ {
		if err := s.write(x, 13, false); err != nil {
			return err
		}
	}
	if err := s.d.Hydrate(context.Background(), s.src); err != nil {
		return err
	}
	if err := s.write(first, 11, false); err != nil {
		return err
	}
	for more := true; more; {
		var err error
		if more, err = s.d.mergeBottom(context.Background()); err != nil {
			return err
		}
	}
	return s.d.Close()
}

var errEnough = fmt.Errorf("enough for now: %w", hydrate.ErrGone)

// fetching is the source, which ends after n answers.
func (s *sweep) fetching(n int64) *counted {
	c := &counted{src: s.src}
	c.left.Store(n)
	return c
}

// TestHydrationCrashes cuts the power at every call of the whole course, both ways, and loses what a power cut may lose.
func TestHydrationCrashes(t *testing.T) {
	for _, back := range []bool{false, true} {
		g := newLaggingOf(t, 11, sweepSize)
		must(t, g.d.Close())
		start := g.mem
		// Fetches run at once, so the number of calls isn't always the same.
		for n, ends := 1, 0; ends < 3; n++ {
			ends = 0
			for loss := vfs.LoseNothing; loss <= vfs.LoseSome; loss++ {
				s := &sweep{lagging: &lagging{
					mem: start.After(vfs.LoseNothing, 1), before: g.before, at: g.at, old: g.old, stale: g.stale, src: g.src,
				}, content: bytes.Clone(g.newest), either: map[int64][]byte{}}
				var err error
				s.d, err = Open("", hydraOptions(s.mem))
				must(t, err)
				s.mem.FailAt(n, vfs.ErrGone, true)
				err = s.run(back)
				if err == nil {
					ends++
				}
				s.mem = s.mem.Crash(loss, uint64(n))
				_ = s.d.Close()
				s.check(t, fmt.Sprintf("back %v, call %d, loss %d, %v", back, n, loss, err))
			}
		}
	}
}

func (s *sweep) check(t *testing.T, when string) {
	t.Helper()
	d, err := Open("", hydraOptions(s.mem))
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer func() { must(t, d.Close()) }()
	i := d.Info()
	if i.Position == s.before {
		if s.told && !s.rolled && s.active && !i.Hydrating && i.Given < 2 {
			t.Fatalf("%s: fell back: %+v", when, i)
		}
		if i.Hydrating {
			t.Fatalf("%s: %+v", when, i)
		}
		same(t, d, s.old)
		return
	}
	if s.rolled {
		t.Fatalf("%s: not rolled back: %+v", when, i)
	}
	if err := d.Activate(2); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	must(t, d.Hydrate(context.Background(), s.src))
	got := content(t, d)
	for x := int64(0); x < sweepSize/Block; x++ {
		b, want := got[x*Block:(x+1)*Block], s.content[x*Block:(x+1)*Block]
		if bytes.Equal(b, want) {
			continue
		}
		was, open := s.either[x]
		for at := 0; open && at < Block; at += hydraPiece {
			p := b[at : at+hydraPiece]
			open = bytes.Equal(p, want[at:at+hydraPiece]) || bytes.Equal(p, was[at:at+hydraPiece])
		}
		if !open {
			t.Fatalf("%s: block %d isn't what it must be (old %v, stale %v, first %d)", when, x, bytes.Equal(b, s.old[x*Block:(x+1)*Block]), s.stale.Has(x), b[0])
		}
	}
}

// counted is a source that ends after n answers.
type counted struct {
	src  *holder
	left atomic.Int64
}

func (c *counted) Room() hydrate.Room { return c.src.Room() }

func (c *counted) Fetch(ctx context.Context, w hydrate.Want) error {
	if c.left.Add(-1) < 0 {
		return errEnough
	}
	return c.src.Fetch(ctx, w)
}
