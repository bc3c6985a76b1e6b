package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/mirror"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const diskSize = 64 * mirror.Block

func hello() mirror.Hello {
	return mirror.Hello{Target: mirror.Target{VM: "work", Disk: mirror.ID{1}, Size: diskSize, Term: 3}}
}

func at(barrier uint64) mirror.Position { return mirror.Position{Term: 3, Barrier: barrier} }

// complete is the state of a replica that is the disk at barrier 1.
var complete = mirror.State{Complete: true, Position: at(1)}

// script is a Source that plays fixed operations, then waits or ends.
type script struct {
	ops  []mirror.Op
	hang bool // wait after the last operation instead of ending

	mu    sync.Mutex
	next  int
	acked []mirror.Position
	ackCh chan mirror.Position // if not nil, gets every acknowledgement
	freed atomic.Int64
}

func (s *script) Next(ctx context.Context) (mirror.Op, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == len(s.ops) {
		if !s.hang {
			return mirror.Op{}, io.EOF
		}
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return mirror.Op{}, ctx.Err()
	}
	op := s.ops[s.next]
	s.next++
	// What was released is used for something else.
	data := bytes.Clone(op.Data)
	op.Data, op.Done = data, func() {
		clear(data)
		s.freed.Add(1)
	}
	return op, nil
}

func (s *script) Acked(p mirror.Position) {
	s.mu.Lock()
	s.acked = append(s.acked, p)
	s.mu.Unlock()
	if s.ackCh != nil {
		s.ackCh <- p
	}
}

func (s *script) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

func (s *script) lastAck() (p mirror.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.acked); n > 0 {
		p = s.acked[n-1]
	}
	return p
}

// follower is a Sink that keeps the disk as of now, and as of the last barrier,
// and a log of what it was told.
type follower struct {
	mu    sync.Mutex
	now   []byte
	safe  []byte
	pos   mirror.Position
	log   []string
	hook  func(what string) error // if not nil, called before each operation
	event chan string             // if not nil, gets each operation after it was done
}

func newReplica() *follower {
	return &follower{now: make([]byte, diskSize), safe: make([]byte, diskSize)}
}

func (r *follower) do(what string, f func()) error {
	if r.hook != nil {
		if err := r.hook(what); err != nil {
			return err
		}
	}
	r.mu.Lock()
	f()
	r.log = append(r.log, what)
	r.mu.Unlock()
	if r.event != nil {
		r.event <- what
	}
	return nil
}

func (r *follower) Begin(c [16]byte) error {
	return r.do(fmt.Sprintf("begin %x", c[:1]), func() {})
}

func (r *follower) Write(off int64, p []byte) error {
	return r.do(fmt.Sprintf("write %d+%d", off, len(p)), func() { copy(r.now[off:], p) })
}

func (r *follower) Zero(off, n int64) error {
	return r.do(fmt.Sprintf("zero %d+%d", off, n), func() { clear(r.now[off : off+n]) })
}

func (r *follower) Checkpoint(p mirror.Position) error {
	return r.do(fmt.Sprintf("checkpoint %d", p.Barrier), func() {})
}

func (r *follower) Barrier(p mirror.Position) error {
	return r.do(fmt.Sprintf("barrier %d", p.Barrier), func() { copy(r.safe, r.now); r.pos = p })
}

// write is an operation that fills n blocks at block with b.
func write(block, n int, b byte) mirror.Op {
	return mirror.Op{Kind: mirror.Write, Off: int64(block) * mirror.Block, Data: bytes.Repeat([]byte{b}, n*mirror.Block)}
}

func zero(block, n int) mirror.Op {
	return mirror.Op{Kind: mirror.Zero, Off: int64(block) * mirror.Block, Len: int64(n) * mirror.Block}
}

func barrier(n uint64) mirror.Op { return mirror.Op{Kind: mirror.Barrier, Pos: at(n)} }

func checkpoint(n uint64) mirror.Op { return mirror.Op{Kind: mirror.Checkpoint, Pos: at(n)} }

func begin() mirror.Op { return mirror.Op{Kind: mirror.Begin, Copy: [16]byte{9}} }

// mirrored runs both ends over a pair of streams and returns what they returned.
func mirrored(ctx context.Context, a, b mirror.Stream, src mirror.Source, sink mirror.Sink, st mirror.State, stats [2]*mirror.Stats) (sent, received error) {
	done := make(chan error, 1)
	go func() {
		done <- mirror.Receive(ctx, b, func(mirror.Hello) (mirror.Sink, mirror.State, error) { return sink, st, nil }, stats[1])
	}()
	sent = mirror.Send(ctx, a, hello(), func(mirror.State) (mirror.Source, error) { return src, nil }, stats[0])
	return sent, <-done
}

// soon fails the test if c gives nothing for far longer than it may take.
func soon[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s: nothing came", what)
	}
	return v
}
