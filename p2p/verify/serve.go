package verify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// Serve answers the owner at the other end of s. open gets its Hello, already checked for sense, and returns the replica and its state; or an
// error to refuse (a *Refusal chooses what the owner is told). The replica's Reader sets the pace. Serve returns nil when the owner ended the
// stream, ctx's cause if ctx ended, and otherwise what went wrong, of which the owner has been told if it still listens. The stream is closed
// or reset when Serve returns; the disk is the caller's.
func Serve(ctx context.Context, s Stream, open func(Hello) (Replica, State, error)) error {
	br := bufio.NewReader(s)
	h, disk, _, err := replica.Receive(ctx, s, br, func(h Hello) (Replica, State, error) {
		ours := Version
		if h.Version == 1 {
			ours = 1
		}
		if err := replica.Consider("verify", h.Version, ours, h.Target); err != nil {
			return nil, State{}, err
		}
		return open(h)
	})
	if err != nil {
		return fmt.Errorf("verify: serve hello: %w", err)
	}
	done := replica.ResetWith(ctx, s)
	x := &server{ctx: ctx, s: s, br: br, version: h.Version, disk: disk, size: h.Size, loaded: -1}
	if x.sums, err = newSummer(disk, h.Size, h.Key); err == nil {
		x.sums.each = x.working
		err = x.run()
	}
	if cause := done(); cause != nil {
		return fmt.Errorf("verify: serve: %w", cause)
	}
	if err != nil {
		replica.GiveUp(ctx, s, br, replica.AppendFail(nil, err.Error()))
		return fmt.Errorf("verify: serve: %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("verify: serve: close: %w", err)
	}
	return nil
}

type server struct {
	ctx     context.Context
	s       Stream
	br      *bufio.Reader
	version int
	disk    Replica
	size    int64
	sums    *summer
	loaded  int64 // the span that tree has, or -1
	tree    *tree
	out     []byte
	sent    time.Time // when the owner was last told anything, or began to wait
}

func (x *server) run() error {
	for {
		a, err := readAsk(x.br, x.size, x.version)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read question: %w", err)
		}
		x.sent = time.Now()
		if x.out, err = x.answer(x.out[:0], a); err == nil {
			err = x.send(x.out)
		}
		if err != nil {
			return err
		}
	}
}

// answer appends the answer to a question.
func (x *server) answer(b []byte, a ask) ([]byte, error) {
	switch a.kind {
	case kindSpan:
		x.loaded = -1
		t, err := x.sums.span(x.ctx, a.index)
		if err != nil {
			return b, err
		}
		x.tree, x.loaded = t, a.index
		return appendSums(b, t.root), nil
	case kindLeaf:
		pos := x.disk.Position()
		sum, record, err := x.sums.state(x.disk, a.index, false)
		return appendState(b, LeafState{pos, record, sum}), err
	case kindMasked:
		sums, err := x.sums.maskedRegion(x.ctx, a.index, a.masks)
		return appendSums(b, sums...), err
	case kindPatch:
		if err := x.disk.Patch(a.patch); err != nil && !errors.Is(err, ErrKept) {
			return b, fmt.Errorf("patch: %w", err)
		}
		return x.part(b, a)
	case kindPart:
		return x.part(b, a)
	}
	// The rest is about the span that was read.
	if unit, _ := a.kind.unit(); a.index*unit/SpanSize != x.loaded {
		return b, fmt.Errorf("question 0x%02x for number %d, read is span %d: %w", byte(a.kind), a.index, x.loaded, ErrProtocol)
	}
	if a.kind == kindRegions {
		return appendSums(b, x.tree.regions...), nil
	}
	first := a.index % fan * fan
	return appendSums(b, x.tree.leaves[first:min(first+fan, int64(len(x.tree.leaves)))]...), nil
}

// part appends the state of a leaf at one position.
func (x *server) part(b []byte, a ask) ([]byte, error) {
	pin, err := x.disk.Pin(x.ctx)
	if err != nil {
		return b, fmt.Errorf("hold the replica: %w", err)
	}
	sum, record, err := x.sums.masked(pin, x.disk, a.index, a.masks[0])
	b = appendState(b, LeafState{pin.Position(), record, sum})
	return b, errors.Join(err, pin.Close())
}

// working tells the owner that its answer takes a while, if it does.
func (x *server) working() error {
	if time.Since(x.sent) < workingEvery {
		return nil
	}
	x.sent = time.Now()
	return x.send([]byte{byte(kindWorking)})
}

func (x *server) send(b []byte) error {
	done := wire.Bound(x.ctx, x.s.SetWriteDeadline, stallLimit)
	_, err := x.s.Write(b)
	if err = done(err); err != nil {
		return fmt.Errorf("write to the owner: %w", err)
	}
	return nil
}
