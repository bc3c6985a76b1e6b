package mirror

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// readBuffer holds a good many small writes, so that the Sink gets them without
// a copy and the stream is read in large pieces.
const readBuffer = 128 << 10

// workingEvery is how often the owner is told that the replica isn't ready yet.
const workingEvery = 5 * time.Second

// large holds buffers of MaxWrite bytes for the writes that outgrow readBuffer.
var large = sync.Pool{New: func() any { b := make([]byte, MaxWrite); return &b }}

// Receive takes the mirror of the owner at the other end of s. open gets the
// owner's Hello, already checked for sense, and returns the replica's disk and
// state, or an error to refuse (a *Refusal chooses what the owner is told).
// Receive returns nil when the owner ended the stream in order, ctx's cause if
// ctx ended, and otherwise what went wrong, of which the owner has been told if
// it still listens. The stream is closed or reset when Receive returns; closing
// the disk is the caller's, and writes since the last barrier are then to be
// thrown away.
func Receive(ctx context.Context, s Stream, open func(Hello) (Sink, State, error), stats *Stats) error {
	if stats == nil {
		stats = new(Stats)
	}
	br := bufio.NewReaderSize(s, readBuffer)
	h, sink, st, err := replica.Receive(ctx, s, br, func(h Hello) (Sink, State, error) { return consider(h, open) })
	if err != nil {
		return fmt.Errorf("mirror: receive hello: %w", err)
	}
	x := &receiver{s: s, br: br, sink: sink, stats: stats, rules: newRules(h, st, ErrProtocol)}
	done := replica.ResetWith(ctx, s)
	err = x.run(ctx)
	if cause := done(); cause != nil {
		return fmt.Errorf("mirror: receive: %w", cause)
	}
	if err != nil {
		replica.GiveUp(ctx, s, br, appendFail(nil, failureOf(err)))
		return fmt.Errorf("mirror: receive: %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("mirror: receive: close: %w", err)
	}
	return nil
}

// consider decides whether to be mirrored to.
func consider(h Hello, open func(Hello) (Sink, State, error)) (Sink, State, error) {
	if err := replica.Consider("mirror", h.Version, Version, h.Target); err != nil {
		return nil, State{}, err
	}
	sink, st, err := open(h)
	if err != nil {
		return nil, State{}, err
	}
	if st.Complete && st.Position.Term > h.Term {
		return nil, State{}, &Refusal{Code: replica.RefuseOldTerm, Text: fmt.Sprintf("This device has term %d, the owner says %d.", st.Position.Term, h.Term)}
	}
	return sink, st, nil
}

type receiver struct {
	s     Stream
	br    *bufio.Reader
	sink  Sink
	stats *Stats
	rules *rules
	ack   []byte
}

func (x *receiver) run(ctx context.Context) error {
	for {
		f, err := readFrame(x.br)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		if err := x.rules.check(&f, MaxWrite); err != nil {
			return err
		}
		if err := x.apply(ctx, &f); err != nil {
			return err
		}
	}
}

func (x *receiver) apply(ctx context.Context, f *frame) error {
	switch f.kind {
	case Begin:
		x.stats.Received.Add(typeLength + pairHead)
		if err := x.await(ctx); err != nil {
			return err
		}
		if err := x.sink.Begin(f.copy); err != nil {
			return fmt.Errorf("begin copy: %w", err)
		}
		return nil
	case Write:
		x.stats.Received.Add(typeLength + writeHead + f.len)
		x.stats.Data.Add(f.len)
		return x.write(f.off, int(f.len))
	case Zero:
		x.stats.Received.Add(typeLength + pairHead)
		x.stats.Zeroed.Add(f.len)
		if err := x.sink.Zero(f.off, f.len); err != nil {
			return fmt.Errorf("zero: %w", err)
		}
		return nil
	case Checkpoint:
		if err := x.sink.Checkpoint(f.pos); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		return x.acknowledge(f.pos)
	default: // Barrier: nothing else passes the rules.
		if err := x.sink.Barrier(f.pos); err != nil {
			return fmt.Errorf("barrier: %w", err)
		}
		return x.acknowledge(f.pos)
	}
}

// await waits until the Sink can begin a copy. Meanwhile nothing is read, so that the owner sends no more than the stream holds, and it is told every
// workingEvery why.
func (x *receiver) await(ctx context.Context) error {
	w, ok := x.sink.(Waiter)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Await(ctx) }()
	tick := time.NewTicker(workingEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("wait for the copy's turn: %w", err)
			}
			return nil
		case <-tick.C:
			if err := x.say([]byte{byte(kindWorking)}); err != nil {
				cancel()
				<-done
				return err
			}
		}
	}
}

// write passes n bytes of the stream to the Sink, straight from the read buffer
// if they fit there.
func (x *receiver) write(off int64, n int) error {
	if n <= readBuffer {
		p, err := x.br.Peek(n)
		if err != nil {
			return fmt.Errorf("read data: %w", wire.CutShort(err))
		}
		if err := x.sink.Write(off, p); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if _, err := x.br.Discard(n); err != nil {
			return fmt.Errorf("read data: %w", wire.CutShort(err))
		}
		return nil
	}
	b := large.Get().(*[]byte)
	defer large.Put(b)
	p := (*b)[:n]
	if _, err := io.ReadFull(x.br, p); err != nil {
		return fmt.Errorf("read data: %w", wire.CutShort(err))
	}
	if err := x.sink.Write(off, p); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (x *receiver) acknowledge(pos Position) error {
	x.stats.Received.Add(typeLength + pairHead)
	x.stats.Markers.Add(1)
	x.ack = appendPair(x.ack[:0], kindAck, pos.Term, pos.Barrier)
	return x.say(x.ack)
}

func (x *receiver) say(p []byte) error {
	if err := x.s.SetWriteDeadline(time.Now().Add(stallLimit)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	n, err := x.s.Write(p)
	x.stats.Sent.Add(int64(n))
	if err != nil {
		return fmt.Errorf("write to the owner: %w", err)
	}
	return nil
}
