package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// stallLimit is how long one write to the stream, or the last acknowledgements,
// may take. A replica that accepts nothing for so long, and doesn't say that it
// is working, is better off detached: it then catches up by itself later.
const stallLimit = 60 * time.Second

// Send mirrors a disk to the replica at the other end of s: it says h, passes
// the replica's state to open, and pumps the Source that open returns until it
// ends (nil), ctx ends (its cause), or anything fails. A *Refusal or *Failure
// of the replica is in the error's chain. The stream is closed or reset when
// Send returns, and none of the Source's methods is called afterwards; closing
// the Source is the caller's.
func Send(ctx context.Context, s Stream, h Hello, open func(State) (Source, error), stats *Stats) error {
	h.Version = Version
	if err := h.Check(ErrHello); err != nil {
		_ = s.Reset()
		return fmt.Errorf("mirror: send: %w", err)
	}
	if stats == nil {
		stats = new(Stats)
	}
	br := bufio.NewReaderSize(s, 4096)
	st, err := sendHello(ctx, s, br, h)
	if err != nil {
		_ = s.Reset()
		return fmt.Errorf("mirror: send hello: %w", err)
	}
	src, err := open(st)
	if err != nil {
		_ = s.Reset()
		return fmt.Errorf("mirror: open source: %w", err)
	}
	x := &sender{s: s, br: br, src: src, stats: stats, rules: newRules(h, st, ErrSource), out: newBatch(), term: h.Term}
	if st.Complete {
		x.sent, x.acked = st.Position, st.Position
	}
	if err := x.run(ctx); err != nil {
		return fmt.Errorf("mirror: send: %w", err)
	}
	return nil
}

func sendHello(ctx context.Context, s Stream, br *bufio.Reader, h Hello) (State, error) {
	st, err := replica.Greet(ctx, s, br, h)
	if err == nil && st.Complete && st.Position.Term > h.Term {
		err = &Refusal{Code: replica.RefuseOldTerm, Text: "The replica has a newer term."}
	}
	return st, err
}

// sender is one running Send: pump fills the batch from the Source, write
// empties it into the stream, read takes the acknowledgements.
type sender struct {
	s     Stream
	br    *bufio.Reader
	src   Source
	stats *Stats
	rules *rules // pump's
	out   *batch
	term  uint64
	acked Position // read's

	mu    sync.Mutex
	sent  Position // last marker that may be acknowledged
	ended bool     // the own direction was closed in order
}

func (x *sender) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := replica.ResetWith(ctx, x.s)
	var wg sync.WaitGroup
	for _, part := range []func(context.Context) error{x.pump, x.write, x.read} {
		wg.Go(func() {
			if err := part(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	x.out.release()
	if err := done(); err != nil {
		return err
	}
	if err := x.s.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

func (x *sender) pump(ctx context.Context) error {
	for {
		op, err := x.src.Next(ctx)
		if errors.Is(err, io.EOF) {
			x.out.close()
			return nil
		}
		if err != nil {
			return fmt.Errorf("next operation: %w", err)
		}
		lent, err := x.encode(ctx, &op)
		if op.Done != nil && !lent {
			op.Done()
		}
		if err != nil {
			return err
		}
	}
}

// encode checks op and puts its frames into the batch. lent says that op.Done is called by those who send the data, from where it lies.
func (x *sender) encode(ctx context.Context, op *Op) (lent bool, err error) {
	f := frame{kind: op.Kind, off: op.Off, len: op.Len, pos: op.Pos, copy: op.Copy}
	if op.Kind == Write {
		if op.Len != 0 && op.Len != int64(len(op.Data)) {
			return false, fmt.Errorf("write of %d bytes with %d bytes of data: %w", op.Len, len(op.Data), ErrSource)
		}
		f.len = int64(len(op.Data))
	}
	if err := x.rules.check(&f, x.rules.size); err != nil {
		return false, err
	}
	switch op.Kind {
	case Write:
		x.stats.Data.Add(f.len)
		return x.encodeWrite(ctx, op)
	case Zero:
		x.stats.Zeroed.Add(op.Len)
		return false, x.out.add(ctx, func(b []byte) []byte { return appendPair(b, Zero, uint64(op.Off), uint64(op.Len)) })
	case Begin:
		return false, x.out.add(ctx, func(b []byte) []byte { return appendBegin(b, op.Copy) })
	default: // Checkpoint and Barrier: nothing else passes the rules.
		x.stats.Markers.Add(1)
		x.mu.Lock()
		x.sent = op.Pos
		x.mu.Unlock()
		return false, x.out.add(ctx, func(b []byte) []byte { return appendPair(b, op.Kind, op.Pos.Term, op.Pos.Barrier) })
	}
}

func (x *sender) encodeWrite(ctx context.Context, op *Op) (lent bool, err error) {
	if n := len(op.Data); n >= lendFrom && n <= MaxWrite && op.Done != nil {
		err := x.out.lend(ctx, func(b []byte) []byte { return appendWriteHead(b, op.Off, n) }, op.Data, op.Done)
		return err == nil, err
	}
	for off, p := op.Off, op.Data; len(p) > 0; {
		n := min(len(p), MaxWrite)
		if err := x.out.add(ctx, func(b []byte) []byte { return appendWrite(b, off, p[:n]) }); err != nil {
			return false, err
		}
		off, p = off+int64(n), p[n:]
	}
	return false, nil
}

func (x *sender) write(ctx context.Context) error {
	var spare load
	for {
		l, err := x.out.take(ctx, spare)
		if err != nil {
			return err
		}
		if l.size == 0 {
			break
		}
		if err := x.writeLoad(&l); err != nil {
			return err
		}
		spare = l
	}
	x.mu.Lock()
	x.ended = true
	x.mu.Unlock()
	if err := x.s.CloseWrite(); err != nil {
		return fmt.Errorf("close write side: %w", err)
	}
	if err := x.s.SetReadDeadline(time.Now().Add(stallLimit)); err != nil {
		return fmt.Errorf("set read deadline: %w", err)
	}
	return nil
}

// writeLoad writes l to the stream, and releases what was lent for it.
func (x *sender) writeLoad(l *load) error {
	defer l.release()
	from := 0
	for _, p := range l.lent {
		if err := x.writeBytes(l.buf[from:p.at]); err != nil {
			return err
		}
		if err := x.writeBytes(p.data); err != nil {
			return err
		}
		from = p.at
	}
	return x.writeBytes(l.buf[from:])
}

func (x *sender) writeBytes(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := x.s.SetWriteDeadline(time.Now().Add(stallLimit)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	n, err := x.s.Write(p)
	x.stats.Sent.Add(int64(n))
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// patience gives the replica as much time again as it has for one write. The last acknowledgements have theirs: who ends the stream waits for them.
func (x *sender) patience() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return nil
	}
	if err := x.s.SetWriteDeadline(time.Now().Add(stallLimit)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	return nil
}

func (x *sender) read(context.Context) error {
	for {
		f, err := readFrame(x.br)
		x.mu.Lock()
		sent, ended := x.sent, x.ended
		x.mu.Unlock()
		if err == io.EOF && ended && x.acked == sent {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read acknowledgement: %w", wire.CutShort(err))
		}
		switch f.kind {
		case kindAck:
			x.stats.Received.Add(typeLength + pairHead)
			if f.pos.Term != x.term || f.pos.Compare(sent) > 0 || f.pos.Compare(x.acked) < 0 {
				return fmt.Errorf("acknowledgement of %d/%d, sent %d/%d, acknowledged %d/%d: %w", f.pos.Term, f.pos.Barrier,
					sent.Term, sent.Barrier, x.acked.Term, x.acked.Barrier, ErrProtocol)
			}
			x.acked = f.pos
			x.src.Acked(f.pos)
		case kindWorking:
			x.stats.Received.Add(typeLength)
			if err := x.patience(); err != nil {
				return err
			}
		case kindFail:
			return &f.fail
		default:
			return fmt.Errorf("frame type 0x%02x from the replica: %w", byte(f.kind), ErrProtocol)
		}
	}
}
