package push

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"tagalong.org/tagalong/p2p/flow"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// Options of a Send. The zero value is good.
type Options struct {
	// Pace limits how fast it goes; nil is no limit.
	Pace Pace
	// Stats may be nil.
	Stats *Stats
}

// Open returns the work of a sender: what a receiver in this state lacks of the cut. holds are runs of whole blocks (offset, length, in bytes) that an
// unfinished copy of it brought: the Source is asked for them too, whatever its Next says, as what it was then may not be what the cut has.
type Open func(st State, holds iter.Seq2[int64, int64]) (Work, error)

// Send pushes a cut to the receiver at the other end of s: it says h, passes the receiver's state to open, and sends what the Work that open
// returns leaves to be sent. It returns nil when the receiver's disk is the cut, durably. Otherwise what came so far is of use to the
// next Send, of this cut or of a later one, also another sender's. Errors: ErrNotNewer, ErrProtocol, ErrSource, a *Refusal or *Failure
// of the receiver, ctx's cause, those of open, of the Source and of the stream. The stream is closed or reset when Send returns, and the Source
// isn't used any more; closing it is the caller's.
func Send(ctx context.Context, s Stream, h Hello, open Open, o Options) error {
	if o.Stats == nil {
		o.Stats = new(Stats)
	}
	if err := send(ctx, s, h, open, o); err != nil {
		_ = s.Reset()
		return fmt.Errorf("push: send: %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("push: close: %w", err)
	}
	return nil
}

func send(ctx context.Context, s Stream, h Hello, open Open, o Options) error {
	h.Version = Version
	if err := h.check(ErrHello); err != nil {
		return err
	}
	br := bufio.NewReaderSize(s, 4096)
	st, err := replica.Greet(ctx, s, br, h)
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal) && refusal.Code == RefuseNotNewer:
		return fmt.Errorf("%w: %w", ErrNotNewer, err)
	case err != nil:
		return err
	case st.Complete && st.Position.Compare(h.Cut) >= 0:
		return fmt.Errorf("receiver at %d/%d, cut at %d/%d: %w", st.Position.Term, st.Position.Barrier, h.Cut.Term, h.Cut.Barrier, ErrNotNewer)
	}
	frames := &reader{r: br, size: h.Size}
	done := wire.Bound(ctx, s.SetReadDeadline, stallLimit)
	holds, index, err := frames.held()
	if err = done(err); err != nil {
		return fmt.Errorf("read what the receiver holds: %w", wire.CutShort(err))
	}
	if st.Complete && !resumes(st, h.Cut) {
		holds = nil // it is dropped with the copy
	}
	work, err := open(st, holds.bytes())
	if err != nil {
		return fmt.Errorf("open source: %w", err)
	}
	b := begin{copy: copyFor(st, h.Cut), from: from(st)}
	_, _ = rand.Read(b.key[:]) // never fails
	sums, err := newSummer(b.key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reset := replica.ResetWith(ctx, s)
	x := &sender{
		link: newLink(s, o.Pace, o.Stats), stats: o.Stats, size: h.Size, work: work, holds: holds, blank: !st.Complete, sums: sums,
		asking: newAsking(index, !st.Complete), pack: flow.NewCompressor(cpuShare, MaxBatch, 1), buf: make([]byte, min(Region, h.Size)), open: map[int64]begun{},
	}
	stop := context.AfterFunc(ctx, func() { x.link.fail(context.Cause(ctx)) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := x.listen(frames); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() {
		if err := x.link.serve(ctx); err != nil {
			cancel(err)
		}
	})
	if err := x.run(b.appendTo(nil)); err != nil {
		cancel(err)
	}
	wg.Wait()
	return reset()
}

// listen takes what the receiver says until it ends the stream in order.
func (x *sender) listen(frames *reader) error {
	var f frame
	for done := false; ; {
		err := frames.read(&f)
		switch {
		case err != nil && errors.Is(err, io.EOF) && done:
			return nil
		case err != nil:
			return fmt.Errorf("read: %w", wire.CutShort(err))
		case done:
			return fmt.Errorf("frame type 0x%02x after the end: %w", byte(f.tag), ErrProtocol)
		case f.tag == tagAck:
			err = x.link.acked(f.got, f.safe)
		case f.tag == tagNeed:
			err = x.take(&f)
		case f.tag == tagFail:
			err = &f.fail
		case f.tag == tagDone:
			done, err = true, x.committed()
		default:
			err = fmt.Errorf("frame type 0x%02x from the receiver: %w", byte(f.tag), ErrProtocol)
		}
		if err != nil {
			return err
		}
	}
}
