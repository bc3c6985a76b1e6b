package compare

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"tagalong.org/tagalong/p2p/replica"
)

const (
	// maxAsked is how many questions may be open.
	maxAsked = 256
	// readBuffer holds the tags of some regions.
	readBuffer = 64 << 10
)

// Run compares a disk with the replica at the other end of s: it says h, passes the replica's state to open, and tells the disk that open
// returns what is equal. When it returns nil, all of Disk.Next was compared, but for what was written meanwhile. Otherwise it returns ctx's cause
// if ctx ended, or what went wrong; a *Refusal of the replica, or ErrReplica, is in the error's chain. The stream is closed or reset when Run returns,
// and none of the disk's methods is called afterwards.
func Run(ctx context.Context, s Stream, h Hello, open func(State) (Disk, error), stats *Stats) error {
	if h.Version != 1 {
		h.Version = Version
	}
	_, _ = rand.Read(h.Key[:]) // never fails
	if stats == nil {
		stats = new(Stats)
	}
	if err := h.Check(ErrHello); err != nil {
		_ = s.Reset()
		return fmt.Errorf("compare: %w", err)
	}
	br := bufio.NewReaderSize(s, readBuffer)
	st, err := replica.Greet(ctx, s, br, h)
	if err != nil {
		_ = s.Reset()
		return fmt.Errorf("compare: hello: %w", err)
	}
	disk, err := open(st)
	if err != nil {
		_ = s.Reset()
		return fmt.Errorf("compare: open: %w", err)
	}
	x := &runner{s: s, br: br, version: h.Version, disk: disk, size: h.Size, stats: stats, unequal: make([]uint64, (regionsOf(h.Size)+63)/64)}
	if x.sums, err = newSummer(disk, h.Size, h.Key, stats); err != nil {
		_ = s.Reset()
		return fmt.Errorf("compare: %w", err)
	}
	if err := x.run(ctx); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	return nil
}

// runner is one running Run.
type runner struct {
	s       Stream
	br      *bufio.Reader
	version int
	disk    Disk
	size    int64
	sums    *summer
	stats   *Stats

	unequal []uint64 // a bit for each region whose blocks must be compared
	parts   []part   // of the window
	got     answer
}

func (x *runner) run(ctx context.Context) error {
	done := replica.ResetWith(ctx, x.s)
	err := x.pass(ctx, x.unknown)
	if err == nil {
		err = x.refine(ctx)
	}
	if err == nil {
		err = x.end()
	}
	if cause := done(); cause != nil {
		return cause
	}
	if err != nil {
		_ = x.s.Reset()
		return err
	}
	if err := x.s.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// within bounds the next call of a stream. One that can't take a deadline is closed or broken, and the call says so itself: it may still have
// the other end's last words.
func within(set func(time.Time) error) { _ = set(time.Now().Add(stallLimit)) }

// end waits for the replica's end.
func (x *runner) end() error {
	if err := x.s.CloseWrite(); err != nil {
		return fmt.Errorf("close write side: %w", err)
	}
	within(x.s.SetReadDeadline)
	if _, err := x.br.Peek(1); errors.Is(err, io.EOF) {
		return nil
	}
	t, err := replica.ReadType(x.br, ErrReplica, ErrProtocol)
	if err != nil {
		return fmt.Errorf("wait for the end: %w", err)
	}
	return fmt.Errorf("frame type 0x%02x after the end: %w", t, ErrProtocol)
}

// pass asks all questions that next tells, from a region on, until one for no regions, and takes the answers.
func (x *runner) pass(ctx context.Context, next func(from int64) ask) error {
	ctx, cancel := context.WithCancelCause(ctx)
	asked := make(chan ask, maxAsked)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(asked)
		if err := x.ask(ctx, next, asked); err != nil {
			cancel(err)
			_ = x.s.Reset() // whoever reads must not wait
		}
	})
	err := x.take(asked)
	if err != nil {
		cancel(err)
		_ = x.s.Reset()
		for range asked { // so that a question that waits for room ends
		}
	}
	wg.Wait()
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx) // the first of the two
	}
	cancel(nil)
	return err
}

func (x *runner) ask(ctx context.Context, next func(from int64) ask, asked chan<- ask) error {
	var out []byte
	for at := int64(0); ; {
		a := next(at)
		if a.count == 0 {
			return nil
		}
		select {
		case asked <- a:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		within(x.s.SetWriteDeadline)
		out = a.appendTo(out[:0])
		n, err := x.s.Write(out)
		x.stats.Sent.Add(int64(n))
		if err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		at = a.first + a.count
	}
}

// unknown asks for the first run of regions, from one on, in which there is something that the replica may lack.
func (x *runner) unknown(from int64) ask {
	all := regionsOf(x.size)
	if from >= all {
		return ask{}
	}
	off, n := x.disk.Next(from * Region)
	if n <= 0 {
		return ask{}
	}
	first := max(from, off/Region)
	end := (off + n + Region - 1) / Region
	for end < all {
		// Neighbours go into the same question.
		off, n = x.disk.Next(end * Region)
		if n <= 0 || off >= (end+1)*Region {
			break
		}
		end = (off + n + Region - 1) / Region
	}
	return ask{kind: kindRegions, first: first, count: min(end, all) - first}
}

// take takes the answers to all questions, in order.
func (x *runner) take(asked <-chan ask) error {
	for a := range asked {
		for at, end := a.first, a.first+a.count; at < end; {
			within(x.s.SetReadDeadline)
			blocks := int(min(Region, x.size-at*Region) / Block)
			if err := x.got.read(x.br, a, end-at, blocks); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			var err error
			n := max(1, x.got.count)
			switch {
			case x.got.count > 0:
				x.stats.Received.Add(1 + 4)
				err = x.theirZeros(at, n)
			case a.kind == kindRegions:
				x.stats.Received.Add(1 + replica.SumSize)
				err = x.region(at)
			case a.kind == kindLeaves:
				x.stats.Received.Add(1 + 8 + replica.SumSize*int64(len(x.got.tags)))
				err = x.leaves(at)
			default:
				x.stats.Received.Add(1 + int64(len(x.got.data)) + replica.SumSize*int64(len(x.got.tags)))
				err = x.blocks(at, a.leaves)
			}
			if err != nil {
				return err
			}
			at += n
		}
	}
	return nil
}

// bytes are the range of n regions from first on.
func (x *runner) bytes(first, n int64) (off, length int64) {
	off = first * Region
	return off, min(x.size, (first+n)*Region) - off
}

func (x *runner) equal(off, n int64) error {
	if err := x.disk.Equal(off, n); err != nil {
		return fmt.Errorf("note what is equal: %w", err)
	}
	return nil
}

// theirZeros compares regions that are all zeros at the replica.
func (x *runner) theirZeros(at, n int64) error {
	for end := at + n; at < end; {
		n, err := x.sums.zeros(at, end-at)
		if err != nil {
			return fmt.Errorf("look for holes: %w", err)
		}
		if n > 0 {
			off, length := x.bytes(at, n)
			if err := x.equal(off, length); err != nil {
				return err
			}
			x.stats.Compared.Add(length)
			at += n
			continue
		}
		x.got.data, x.got.tags = bitmap{}, x.got.tags[:0]
		if err := x.blocks(at, allLeaves); err != nil {
			return err
		}
		at++
	}
	return nil
}

// region compares a region by its sum.
func (x *runner) region(at int64) error {
	if err := x.sums.read(at, allLeaves); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if x.sums.zero() || x.sums.sum() != x.got.sum {
		x.unequal[at/64] |= 1 << (at % 64)
		return nil
	}
	off, n := x.bytes(at, 1)
	x.stats.Compared.Add(n)
	return x.equal(off, n)
}
