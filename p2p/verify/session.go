package verify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

const (
	// stallLimit is how long either end waits for one frame of the other's answer.
	stallLimit = 2 * time.Minute
	// workingEvery is how long an answer may take before the replica says that it is working; it looks once a region. maxWorking is how often it may,
	// before one answer; version 1 did once a region.
	workingEvery = 5 * time.Second
	maxWorking   = 4 * fan
)

// Session asks one replica. It is used by one goroutine at a time, and must be closed. After an error it is of no more use.
type Session struct {
	s       Stream
	br      *bufio.Reader
	version int
	size    int64
	out     []byte
}

var _ Copy = (*Session)(nil)

// Open says h to the replica at the other end of s, and returns what it has. A *Refusal of the replica is in the error's chain. If it fails the
// stream is reset.
func Open(ctx context.Context, s Stream, h Hello) (*Session, State, error) {
	if h.Version != 1 {
		h.Version = Version
	}
	err := h.Check(ErrHello)
	br := bufio.NewReader(s)
	var st State
	if err == nil {
		st, err = replica.Greet(ctx, s, br, h)
	}
	if err != nil {
		_ = s.Reset()
		return nil, st, fmt.Errorf("verify: hello: %w", err)
	}
	return &Session{s: s, br: br, version: h.Version, size: h.Size}, st, nil
}

// Close ends the session.
func (x *Session) Close() error {
	if err := x.s.Close(); err != nil {
		return fmt.Errorf("verify: close: %w", err)
	}
	return nil
}

// ask puts a question and has read take the answer.
func (x *Session) ask(ctx context.Context, a ask, read func() error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if x.version == 1 && a.kind > kindLeaf {
		return ErrVersion
	}
	done := wire.Bound(ctx, x.s.SetWriteDeadline, stallLimit)
	x.out = a.appendTo(x.out[:0])
	_, err := x.s.Write(x.out)
	if err = done(err); err != nil {
		return fmt.Errorf("verify: ask: %w", err)
	}
	err = errWorking
	for n := 0; errors.Is(err, errWorking) && n <= maxWorking; n++ {
		done := wire.Bound(ctx, x.s.SetReadDeadline, stallLimit)
		err = done(read())
	}
	if errors.Is(err, errWorking) {
		err = ErrProtocol
	}
	if err != nil {
		return fmt.Errorf("verify: read answer: %w", err)
	}
	return nil
}

func (x *Session) sums(ctx context.Context, a ask, want int64) (sums []Sum, err error) {
	err = x.ask(ctx, a, func() (err error) {
		sums, err = readSums(x.br, want)
		return err
	})
	return sums, err
}

// Span implements Copy.
func (x *Session) Span(ctx context.Context, i int64) (Sum, error) {
	sums, err := x.sums(ctx, ask{kind: kindSpan, index: i}, 1)
	if err != nil {
		return Sum{}, err
	}
	return sums[0], nil
}

// Regions implements Copy.
func (x *Session) Regions(ctx context.Context, i int64) ([]Sum, error) {
	return x.sums(ctx, ask{kind: kindRegions, index: i}, count(min(SpanSize, x.size-i*SpanSize), RegionSize))
}

// Leaves implements Copy.
func (x *Session) Leaves(ctx context.Context, region int64) ([]Sum, error) {
	return x.sums(ctx, ask{kind: kindLeaves, index: region}, x.leaves(region))
}

// Masked implements Copy.
func (x *Session) Masked(ctx context.Context, region int64, masks []Mask) ([]Sum, error) {
	full := make([]Mask, fan)
	copy(full, masks)
	return x.sums(ctx, ask{kind: kindMasked, index: region, masks: full}, x.leaves(region))
}

// leaves is how many a region has.
func (x *Session) leaves(region int64) int64 {
	return count(min(RegionSize, x.size-region*RegionSize), LeafSize)
}

// Leaf implements Copy.
func (x *Session) Leaf(ctx context.Context, leaf int64) (LeafState, error) {
	return x.state(ctx, ask{kind: kindLeaf, index: leaf})
}

// Part implements Copy.
func (x *Session) Part(ctx context.Context, leaf int64, without Mask) (LeafState, error) {
	return x.state(ctx, ask{kind: kindPart, index: leaf, masks: []Mask{without}})
}

// Patch implements Copy.
func (x *Session) Patch(ctx context.Context, p Patch) (LeafState, error) {
	return x.state(ctx, ask{kind: kindPatch, index: p.Leaf, masks: []Mask{p.Without}, patch: p})
}

func (x *Session) state(ctx context.Context, a ask) (st LeafState, err error) {
	err = x.ask(ctx, a, func() (err error) {
		st, err = readState(x.br)
		return err
	})
	return st, err
}
