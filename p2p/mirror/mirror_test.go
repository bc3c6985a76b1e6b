package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestReplicaFollows(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			src := &script{ops: []mirror.Op{begin(), write(0, 2, 'a'), checkpoint(2), zero(1, 1), write(5, 40, 'b'), barrier(3),
				write(1, 1, 'c'), barrier(4), barrier(5)}}
			sink := newReplica()
			st := [2]*mirror.Stats{{}, {}}
			sent, received := mirrored(t.Context(), a, b, src, sink, mirror.State{}, st)
			if sent != nil || received != nil {
				t.Fatalf("send: %v, receive: %v", sent, received)
			}
			want := []string{"begin 09", "write 0+8192", "checkpoint 2", "zero 4096+4096", "write 20480+163840", "barrier 3",
				"write 4096+4096", "barrier 4", "barrier 5"}
			if !reflect.DeepEqual(sink.log, want) {
				t.Errorf("the replica was told\n%q, want\n%q", sink.log, want)
			}
			if !reflect.DeepEqual(src.acked, []mirror.Position{at(2), at(3), at(4), at(5)}) {
				t.Errorf("acknowledged %v", src.acked)
			}
			if n := src.freed.Load(); n != int64(len(src.ops)) {
				t.Errorf("%d buffers released of %d", n, len(src.ops))
			}
			for i, s := range st {
				if s.Data.Load() != 43*mirror.Block || s.Zeroed.Load() != mirror.Block || s.Markers.Load() != 4 {
					t.Errorf("end %d counted %d data, %d zeroed, %d markers", i, s.Data.Load(), s.Zeroed.Load(), s.Markers.Load())
				}
			}
			if st[0].Sent.Load() != st[1].Received.Load() || st[1].Sent.Load() != st[0].Received.Load() {
				t.Errorf("sent %d, received %d; back %d, %d", st[0].Sent.Load(), st[1].Received.Load(), st[1].Sent.Load(), st[0].Received.Load())
			}
		})
	}
}

func TestLongWritesAreSplit(t *testing.T) {
	a, b := wiretest.TCP(t)
	data := make([]byte, 2*mirror.MaxWrite+mirror.Block)
	for i := range data {
		data[i] = byte(i / 1000)
	}
	src := &script{ops: []mirror.Op{{Kind: mirror.Write, Off: mirror.Block, Data: data, Len: int64(len(data))}, barrier(2)}}
	sink := newReplica()
	sink.now, sink.safe = make([]byte, 4<<20), make([]byte, 4<<20)
	done := make(chan error, 1)
	go func() {
		done <- mirror.Receive(t.Context(), b, func(mirror.Hello) (mirror.Sink, mirror.State, error) { return sink, complete, nil }, nil)
	}()
	h := hello()
	h.Size = 4 << 20
	sent := mirror.Send(t.Context(), a, h, func(mirror.State) (mirror.Source, error) { return src, nil }, nil)
	if received := <-done; sent != nil || received != nil {
		t.Fatalf("send: %v, receive: %v", sent, received)
	}
	if !bytes.Equal(sink.safe[mirror.Block:][:len(data)], data) {
		t.Error("the replica differs")
	}
	if len(sink.log) != 4 {
		t.Errorf("told %q, want three writes and a barrier", sink.log)
	}
}

// An acknowledgement must not exist before the replica's barrier has returned.
func TestAckFollowsDurability(t *testing.T) {
	for _, marker := range []mirror.Op{barrier(2), checkpoint(2)} {
		a, b := wiretest.TCP(t)
		src := &script{ops: []mirror.Op{write(0, 1, 'a'), marker}, hang: true, ackCh: make(chan mirror.Position, 1)}
		sink := newReplica()
		entered, release := make(chan struct{}), make(chan struct{})
		var durable atomic.Bool
		sink.hook = func(what string) error {
			if !strings.HasPrefix(what, "write") {
				close(entered)
				<-release
				durable.Store(true)
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		stats := &mirror.Stats{}
		done := make(chan struct{})
		go func() {
			_, _ = mirrored(ctx, a, b, src, sink, complete, [2]*mirror.Stats{nil, stats})
			close(done)
		}()
		soon(t, entered, "barrier")
		if n := stats.Sent.Load(); n != 0 || len(src.ackCh) != 0 {
			t.Errorf("%d bytes left the replica before it was durable", n)
		}
		close(release)
		if p := soon(t, src.ackCh, "acknowledgement"); p != at(2) || !durable.Load() {
			t.Errorf("acknowledged %v, durable: %v", p, durable.Load())
		}
		cancel()
		soon(t, done, "end")
	}
}

// Each write must reach the replica although the source then has nothing more.
func TestSmallWritesAreNotDelayed(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			ctx, cancel := context.WithCancel(t.Context())
			src := &fed{ops: make(chan mirror.Op)}
			sink := newReplica()
			sink.event = make(chan string, 1)
			done := make(chan struct{})
			go func() {
				_, _ = mirrored(ctx, a, b, src, sink, complete, [2]*mirror.Stats{})
				close(done)
			}()
			for i := range 50 {
				src.ops <- write(i, 1, byte(i))
				if got := soon(t, sink.event, "write"); got != fmt.Sprintf("write %d+4096", i*mirror.Block) {
					t.Fatalf("got %q", got)
				}
			}
			cancel()
			soon(t, done, "end")
		})
	}
}

// fed is a Source that hands on what it is given.
type fed struct{ ops chan mirror.Op }

func (f *fed) Next(ctx context.Context) (mirror.Op, error) {
	select {
	case op := <-f.ops:
		return op, nil
	case <-ctx.Done():
		return mirror.Op{}, ctx.Err()
	}
}

func (f *fed) Acked(mirror.Position) {}

// cutter resets its stream after a number of bytes were written to it.
type cutter struct {
	mirror.Stream
	left atomic.Int64
}

func (c *cutter) Write(p []byte) (int, error) {
	room := c.left.Add(-int64(len(p)))
	if room >= 0 {
		return c.Stream.Write(p)
	}
	n, _ := c.Stream.Write(p[:max(0, room+int64(len(p)))])
	_ = c.Reset()
	return n, errors.New("cut")
}

// Wherever the connection breaks, in either direction, the replica is the disk
// at exactly the barrier it names, and nothing is acknowledged beyond that.
func TestCutAnywhere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var ops []mirror.Op
		disk := make([]byte, diskSize)
		states := map[mirror.Position][]byte{at(1): bytes.Clone(disk)}
		n := rapid.IntRange(1, 30).Draw(rt, "operations")
		for i := range n {
			count := rapid.SampledFrom([]int{1, 1, 1, 2, 4, 31, 32, 33, 60}).Draw(rt, "blocks") // from 32 on it is lent
			block := rapid.IntRange(0, 63-count).Draw(rt, "block")
			off, end := block*mirror.Block, (block+count)*mirror.Block
			switch rapid.IntRange(0, 3).Draw(rt, "kind") {
			case 0:
				ops = append(ops, zero(block, count))
				clear(disk[off:end])
			case 1:
				ops = append(ops, barrier(uint64(i+2)))
				states[at(uint64(i+2))] = bytes.Clone(disk)
			default:
				op := write(block, count, byte(i+1))
				ops = append(ops, op)
				copy(disk[off:end], op.Data)
			}
		}
		a, b := wiretest.TCP(t)
		ca, cb := &cutter{Stream: a}, &cutter{Stream: b}
		ca.left.Store(rapid.Int64Range(0, 600_000).Draw(rt, "owner's bytes"))
		cb.left.Store(rapid.Int64Range(0, 400).Draw(rt, "replica's bytes"))
		src, sink := &script{ops: ops}, newReplica()
		sink.pos = at(1)
		sent, received := mirrored(t.Context(), ca, cb, src, sink, complete, [2]*mirror.Stats{})
		if sent == nil && received == nil && !bytes.Equal(sink.now, disk) {
			rt.Fatal("both ends are content, and the replica differs")
		}
		want, ok := states[sink.pos]
		if !ok || !bytes.Equal(sink.safe, want) {
			rt.Fatalf("the replica is not the disk at %v", sink.pos)
		}
		if src.lastAck().Compare(sink.pos) > 0 {
			rt.Fatalf("acknowledged %v, durable %v", src.lastAck(), sink.pos)
		}
		if src.freed.Load() != int64(src.taken()) {
			rt.Fatalf("%d buffers released of %d", src.freed.Load(), src.taken())
		}
	})
}

func TestCancelEndsBothEnds(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			ctx, cancel := context.WithCancel(t.Context())
			src := &script{ops: []mirror.Op{write(0, 1, 'a'), barrier(2)}, hang: true, ackCh: make(chan mirror.Position, 1)}
			ends := make(chan [2]error, 1)
			go func() {
				x, y := mirrored(ctx, a, b, src, newReplica(), complete, [2]*mirror.Stats{})
				ends <- [2]error{x, y}
			}()
			soon(t, src.ackCh, "acknowledgement")
			cancel()
			for _, err := range soon(t, ends, "end") {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
			}
		})
	}
}

func TestOwnerLearnsWhyTheReplicaFailed(t *testing.T) {
	for _, c := range []struct {
		err  error
		code uint16
	}{
		{errors.New("bad sector"), mirror.FailDisk},
		{fmt.Errorf("pwrite: %w", syscall.ENOSPC), mirror.FailSpace},
		{fmt.Errorf("wrapped: %w", &mirror.Failure{Code: mirror.FailTerm, Text: "newer"}), mirror.FailTerm},
		{errors.New(strings.Repeat("long ", 1000)), mirror.FailDisk},
	} {
		for name, pair := range wiretest.Kinds {
			a, b := pair(t)
			sink := newReplica()
			sink.hook = func(what string) error {
				if what == "barrier 2" {
					return c.err
				}
				return nil
			}
			// More data behind the failing barrier than any buffer holds.
			src := &script{ops: []mirror.Op{write(0, 1, 'a'), barrier(2)}, hang: true}
			for range 100 {
				src.ops = append(src.ops, write(0, 64, 'b'))
			}
			sent, received := mirrored(t.Context(), a, b, src, sink, complete, [2]*mirror.Stats{})
			var f *mirror.Failure
			if !errors.As(sent, &f) || f.Code != c.code || f.Text == "" {
				t.Errorf("%s: the owner learned %v, want code %d", name, sent, c.code)
			}
			if !errors.Is(received, c.err) {
				t.Errorf("%s: the replica returned %v, want %v", name, received, c.err)
			}
			if len(src.acked) != 0 {
				t.Errorf("%s: acknowledged %v", name, src.acked)
			}
			if src.freed.Load() != int64(src.taken()) {
				t.Errorf("%s: %d buffers released of %d", name, src.freed.Load(), src.taken())
			}
		}
	}
}

func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		name  string
		state mirror.State
		err   error
		code  string
	}{
		{"chosen", mirror.State{}, fmt.Errorf("wrapped: %w", &mirror.Refusal{Code: replica.RefuseBusy, Text: "in use"}), replica.RefuseBusy},
		{"plain error", mirror.State{}, errors.New("no"), replica.RefuseOther},
		{"older term", mirror.State{Complete: true, Position: mirror.Position{Term: 4}}, nil, replica.RefuseOldTerm},
	} {
		a, b := wiretest.Pipe(t)
		done := make(chan error, 1)
		go func() {
			done <- mirror.Receive(t.Context(), b, func(mirror.Hello) (mirror.Sink, mirror.State, error) { return newReplica(), c.state, c.err }, nil)
		}()
		err := mirror.Send(t.Context(), a, hello(), func(mirror.State) (mirror.Source, error) {
			t.Errorf("%s: the source was opened", c.name)
			return nil, errors.New("unreachable")
		}, nil)
		for _, err := range []error{err, <-done} {
			var r *mirror.Refusal
			if !errors.As(err, &r) || r.Code != c.code {
				t.Errorf("%s: %v, want code %s", c.name, err, c.code)
			}
		}
	}
}

func TestSourceThatFailsToOpen(t *testing.T) {
	a, b := wiretest.TCP(t)
	done := make(chan error, 1)
	go func() {
		done <- mirror.Receive(t.Context(), b, func(mirror.Hello) (mirror.Sink, mirror.State, error) { return newReplica(), complete, nil }, nil)
	}()
	diverged := errors.New("diverged")
	err := mirror.Send(t.Context(), a, hello(), func(mirror.State) (mirror.Source, error) { return nil, diverged }, nil)
	if !errors.Is(err, diverged) {
		t.Errorf("send: %v", err)
	}
	if err := <-done; err == nil {
		t.Error("the replica took a reset for an orderly end")
	}
}

func TestSenderRefusesItsOwnMistakes(t *testing.T) {
	at4 := mirror.Op{Kind: mirror.Barrier, Pos: mirror.Position{Term: 4, Barrier: 9}}
	for name, c := range map[string]struct {
		st  mirror.State
		ops []mirror.Op
	}{
		"beyond the end":            {complete, []mirror.Op{write(63, 2, 'a')}},
		"negative offset":           {complete, []mirror.Op{{Kind: mirror.Zero, Off: -mirror.Block, Len: mirror.Block}}},
		"overflow":                  {complete, []mirror.Op{{Kind: mirror.Zero, Off: mirror.Block, Len: 1<<63 - mirror.Block}}},
		"unaligned offset":          {complete, []mirror.Op{{Kind: mirror.Zero, Off: 512, Len: mirror.Block}}},
		"unaligned length":          {complete, []mirror.Op{{Kind: mirror.Write, Data: make([]byte, 100)}}},
		"empty write":               {complete, []mirror.Op{{Kind: mirror.Write}}},
		"length and data differ":    {complete, []mirror.Op{{Kind: mirror.Write, Len: 1, Data: make([]byte, mirror.Block)}}},
		"empty zero":                {complete, []mirror.Op{zero(0, 0)}},
		"same position twice":       {complete, []mirror.Op{barrier(2), write(0, 1, 'a'), barrier(2)}},
		"position runs back":        {complete, []mirror.Op{barrier(3), barrier(2)}},
		"behind the replica":        {complete, []mirror.Op{barrier(0)}},
		"another term":              {complete, []mirror.Op{at4}},
		"copy ends where it began":  {complete, []mirror.Op{begin(), barrier(1)}},
		"copy not begun":            {mirror.State{}, []mirror.Op{write(0, 1, 'a')}},
		"barrier before the copy":   {mirror.State{}, []mirror.Op{barrier(2)}},
		"copy begun twice":          {mirror.State{}, []mirror.Op{begin(), begin()}},
		"copy without an ID":        {mirror.State{}, []mirror.Op{{Kind: mirror.Begin}}},
		"an unknown kind":           {complete, []mirror.Op{{Kind: 99}}},
		"an acknowledgement, sent":  {complete, []mirror.Op{{Kind: 0x81, Pos: at(2)}}},
		"checkpoint not in advance": {complete, []mirror.Op{write(0, 1, 'a'), checkpoint(1)}},
	} {
		a, b := wiretest.TCP(t)
		src, sink := &script{ops: c.ops}, newReplica()
		sent, received := mirrored(t.Context(), a, b, src, sink, c.st, [2]*mirror.Stats{})
		if !errors.Is(sent, mirror.ErrSource) {
			t.Errorf("%s: %v, want ErrSource", name, sent)
		}
		if received == nil {
			t.Errorf("%s: the replica took it for an orderly end", name)
		}
		if src.freed.Load() != int64(src.taken()) {
			t.Errorf("%s: %d buffers released of %d", name, src.freed.Load(), src.taken())
		}
	}
}

func TestBadHelloIsNotSent(t *testing.T) {
	for name, change := range map[string]func(*mirror.Hello){
		"no VM":    func(h *mirror.Hello) { h.VM = "" },
		"no disk":  func(h *mirror.Hello) { h.Disk = mirror.ID{} },
		"no term":  func(h *mirror.Hello) { h.Term = 0 },
		"odd size": func(h *mirror.Hello) { h.Size = 100 },
		"negative": func(h *mirror.Hello) { h.Size = -mirror.Block },
		"too much": func(h *mirror.Hello) { h.Size = mirror.MaxSize + mirror.Block },
	} {
		h := hello()
		change(&h)
		var written bytes.Buffer
		err := mirror.Send(t.Context(), recorder{wiretest.Input{Reader: strings.NewReader("")}, &written}, h, nil, nil)
		if !errors.Is(err, mirror.ErrHello) || written.Len() != 0 {
			t.Errorf("%s: %v, %d bytes written", name, err, written.Len())
		}
	}
}

// recorder keeps what is written to a stream.
type recorder struct {
	wiretest.Input
	w io.Writer
}

func (r recorder) Write(p []byte) (int, error) { return r.w.Write(p) }
