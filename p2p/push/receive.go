package push

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/p2p/flow"
	"tagalong.org/tagalong/p2p/replica"
)

const readBuffer = 64 << 10

// Receive takes the cut that the sender at the other end of s pushes. open gets its Hello, already checked for sense, and returns the replica and its
// state, or an error to refuse (a *Refusal chooses what the sender is told); it may have been called also if Receive fails. Receive returns nil when
// the replica is at the cut and the sender has ended the stream, ctx's cause if ctx ended, and otherwise what went wrong, of which the sender has
// been told if it still listens. What came before that is kept, and made durable if the disk is well. The stream is closed or reset when
// Receive returns, and the Sink isn't used any more; closing it is the caller's.
func Receive(ctx context.Context, s Stream, open func(Hello) (Replica, State, error), stats *Stats) error {
	if stats == nil {
		stats = new(Stats)
	}
	in := newIntake(s, stats)
	br := bufio.NewReaderSize(in, readBuffer)
	h, rep, st, err := replica.Receive(ctx, s, br, func(h Hello) (Replica, State, error) { return consider(h, open) })
	if err != nil {
		return fmt.Errorf("push: receive hello: %w", err)
	}
	in.pace = rep.Pace
	defer in.close()
	done := replica.ResetWith(ctx, s)
	x := &receiver{expand: flow.NewExpander(MaxBatch), s: s, br: br, in: in, frames: &reader{r: br, size: h.Size}, size: h.Size, cut: h.Cut, sink: rep.Sink, index: rep.Index, stats: stats, saved: time.Now()}
	err = x.run(ctx, st)
	if cause := done(); cause != nil {
		return fmt.Errorf("push: receive: %w", cause)
	}
	if err != nil {
		in.hush() // the last words are the last
		replica.GiveUp(ctx, s, br, appendFail(nil, failureOf(err)))
		return fmt.Errorf("push: receive: %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("push: receive: close: %w", err)
	}
	return nil
}

// consider decides whether to take the cut.
func consider(h Hello, open func(Hello) (Replica, State, error)) (Replica, State, error) {
	if err := replica.Consider("push", h.Version, Version, h.Target); err != nil {
		return Replica{}, State{}, err
	}
	if err := h.check(ErrHello); err != nil {
		return Replica{}, State{}, &Refusal{Code: replica.RefuseHello, Text: err.Error()}
	}
	rep, st, err := open(h)
	switch {
	case err != nil:
		return Replica{}, State{}, err
	case st.Position.Term > h.Term:
		return Replica{}, State{}, &Refusal{Code: replica.RefuseOldTerm, Text: fmt.Sprintf("This device has term %d, the sender says %d.", st.Position.Term, h.Term)}
	case st.Complete && st.Position.Compare(h.Cut) >= 0:
		return Replica{}, State{}, &Refusal{Code: RefuseNotNewer, Text: "This device has this state already, or a newer one."}
	}
	return rep, st, nil
}

type receiver struct {
	s      Stream
	br     *bufio.Reader
	in     *intake
	frames *reader
	size   int64
	cut    Position
	sink   Sink
	index  Index
	sums   *summer
	expand *flow.Expander
	stats  *Stats
	dirty  int64 // bytes of content that aren't durable
	saved  time.Time
	broken bool // the sink failed
	buf    []byte
	out    []byte
}

// failed is an error of the sink.
func (x *receiver) failed(what string, err error) error {
	if err == nil {
		return nil
	}
	x.broken = true
	return fmt.Errorf("%s: %w", what, err)
}

func (x *receiver) run(ctx context.Context, st State) error {
	if err := x.begin(ctx, st); err != nil {
		return err
	}
	err := x.copy()
	if err != nil && !x.broken && x.dirty > 0 {
		// The stream is at its end, the disk isn't: so nothing of it comes twice, even if the power goes.
		err = errors.Join(err, x.failed("checkpoint", x.sink.Checkpoint(x.cut)))
	}
	return err
}

// begin tells what is held, and begins the copy.
func (x *receiver) begin(ctx context.Context, st State) error {
	x.out = append(x.out[:0], byte(tagHeld), 0)
	if x.index != nil {
		x.out[1] = flagIndex
	}
	var h held
	if !st.Complete || resumes(st, x.cut) {
		var err error
		if h, err = gather(x.sink.Held(), x.size/Block); err != nil {
			return err
		}
	}
	x.out = h.appendTo(x.out)
	if err := x.in.say(x.out); err != nil {
		return err
	}
	x.in.start(ctx)
	b, err := x.frames.begin()
	if err != nil {
		return fmt.Errorf("read the beginning: %w", err)
	}
	switch {
	case [4]byte(b.copy[:4]) != copyMark, resumes(st, x.cut) && b.copy != [16]byte(st.Copy):
		return fmt.Errorf("copy %x: %w", b.copy, ErrProtocol)
	case b.from != from(st):
		return fmt.Errorf("pushed onto %d/%d, the replica is at %d/%d: %w", b.from.Term, b.from.Barrier, from(st).Term, from(st).Barrier, ErrProtocol)
	}
	if x.sums, err = newSummer(b.key); err != nil {
		return err
	}
	return x.failed("begin copy", x.sink.Begin(b.copy))
}

// copy takes frames to the end.
func (x *receiver) copy() error {
	var f frame
	for ended := false; ; {
		err := x.frames.read(&f)
		switch {
		case errors.Is(err, io.EOF) && ended:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("the sender stopped: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return fmt.Errorf("read frame: %w", err)
		case ended:
			return fmt.Errorf("frame type 0x%02x after the end: %w", byte(f.tag), ErrProtocol)
		}
		switch f.tag {
		case tagData:
			err = x.data(&f)
		case tagZero:
			err = x.zero(&f)
		case tagAsk:
			err = x.answer(&f)
		case tagCommit:
			ended = true
			err = x.commit()
		default:
			err = fmt.Errorf("frame type 0x%02x from the sender: %w", byte(f.tag), ErrProtocol)
		}
		if err == nil && checkpointDue(x.dirty, time.Since(x.saved)) {
			err = x.checkpoint()
		}
		if err != nil {
			return err
		}
	}
}

func (x *receiver) data(f *frame) error {
	n := f.set.count() * Block
	content, err := x.expand.Unpack(f.codec, f.body, n)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	x.stats.Content.Add(int64(n))
	x.dirty += int64(n)
	for a, b := range f.set.runs() {
		size := (b - a) * Block
		if err := x.sink.Write(f.region*Region+int64(a)*Block, content[:size]); err != nil {
			return x.failed("write", err)
		}
		content = content[size:]
	}
	return nil
}

func (x *receiver) zero(f *frame) error {
	x.stats.Zeroed.Add(f.count * Block)
	x.dirty += Block // what counts is what it would cost to send it again
	return x.failed("zero", x.sink.Zero(f.first*Block, f.count*Block))
}

// answer answers a question: which of its blocks the receiver needs.
func (x *receiver) answer(f *frame) error {
	if x.buf == nil {
		x.buf = make([]byte, min(Region, x.size))
	}
	for a, b := range f.set.runs() {
		if err := x.sink.ReadAt(x.buf[a*Block:b*Block], f.region*Region+int64(a)*Block); err != nil {
			return x.failed("read", err)
		}
	}
	var need set
	size, sums := f.kind.size(), f.body
	var group []byte
	for rest := f.set; !rest.empty(); sums = sums[size:] {
		part := rest.take(f.kind.group())
		group = group[:0]
		for a, b := range part.runs() {
			group = append(group, x.buf[a*Block:b*Block]...)
		}
		var sum [32]byte
		if string(x.sums.appendSum(sum[:0], f.kind, group)) == string(sums[:size]) {
			continue
		}
		if f.kind == askWide {
			found, err := x.find(f.region*Region+int64(part.next(0, true))*Block, [32]byte(sums))
			if err != nil {
				return err
			}
			if found {
				continue
			}
		}
		for i := range need {
			need[i] |= part[i]
		}
	}
	x.stats.Same.Add(int64(f.set.count()-need.count()) * Block)
	x.out = appendNeed(x.out[:0], f.region, &need, blocksOf(x.size, f.region))
	return x.in.say(x.out)
}

// find looks for a block elsewhere, and puts it where it belongs.
func (x *receiver) find(off int64, sum [32]byte) (bool, error) {
	if x.index == nil {
		return false, nil
	}
	p, ok := x.index.Have(sum)
	if !ok || len(p) != Block || blake3.Sum256(p) != sum {
		return false, nil
	}
	x.stats.Elsewhere.Add(Block)
	x.dirty += Block
	return true, x.failed("write", x.sink.Write(off, p))
}

func (x *receiver) checkpoint() error {
	if err := x.failed("checkpoint", x.sink.Checkpoint(x.cut)); err != nil {
		return err
	}
	x.dirty, x.saved = 0, time.Now()
	return x.in.saved(x.br.Buffered())
}

func (x *receiver) commit() error {
	if err := x.failed("barrier", x.sink.Barrier(x.cut)); err != nil {
		return err
	}
	x.dirty = 0
	return x.in.say([]byte{byte(tagDone)})
}
