package push

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tagalong.org/tagalong/p2p/flow"
)

const (
	// ackEvery is after how many bytes the receiver says that it got them.
	ackEvery = flow.AckEvery
	// paceEvery is after how long it says that of what it has read and may take only now.
	paceEvery = 100 * time.Millisecond
	// maxIntake is how much may have come and not be dealt with, in bytes: some 300 ms of a home's uplink.
	maxIntake = 256 << 10
)

// intake is the receiver's stream: what comes is taken from it, as fast as it may come, and acknowledged, while what came before is dealt with. So the link
// isn't idle while the disk makes something durable, or a region is summed up. Read is for one goroutine; the other methods are for any.
type intake struct {
	s     Stream
	stats *Stats
	pace  Pace // nil is none
	stop  context.CancelFunc
	ended chan struct{} // nil: nothing is counted yet, and Read reads the stream

	mu    sync.Mutex
	cond  *sync.Cond
	came  []byte // and wasn't read
	over  bool   // nobody reads any more
	err   error  // after what came
	got   uint64 // of the stream since start, in bytes
	read  uint64 // of that by Read
	acked uint64
	safe  uint64
	told  time.Time // when it was acknowledged; kept only with a pace
	quiet bool
	note  []byte
}

func newIntake(s Stream, stats *Stats) *intake {
	m := &intake{s: s, stats: stats}
	m.cond = sync.NewCond(&m.mu)
	return m
}

// start begins to take, to count and to acknowledge, until close, or the stream's end.
func (m *intake) start(ctx context.Context) {
	ctx, m.stop = context.WithCancel(ctx)
	m.ended = make(chan struct{})
	go func() {
		defer close(m.ended)
		m.pump(ctx)
	}()
}

// close ends it. The stream must have ended, or be reset.
func (m *intake) close() {
	if m.ended == nil {
		return
	}
	m.stop()
	m.mu.Lock()
	m.over = true
	m.cond.Broadcast()
	m.mu.Unlock()
	<-m.ended
}

// pump takes what comes.
func (m *intake) pump(ctx context.Context) {
	p := make([]byte, readBuffer/4)
	for {
		n, err := m.s.Read(p)
		m.stats.Received.Add(int64(n))
		if late := m.take(ctx, n); late != nil {
			err = errors.Join(err, late)
		}
		m.mu.Lock()
		m.came = append(m.came, p[:n]...) // after its acknowledgement, as nothing may be said after the last word
		m.cond.Broadcast()
		for err == nil && !m.over && len(m.came) >= maxIntake {
			m.cond.Wait()
		}
		m.err = err
		over := m.over
		m.cond.Broadcast()
		m.mu.Unlock()
		if err != nil || over {
			return
		}
	}
}

// take counts n bytes more. With a pace it does so bit by bit: the sender goes on as it hears of them, and must hear something now and then.
func (m *intake) take(ctx context.Context, n int) error {
	for n > 0 {
		part := n
		if m.pace != nil {
			part = min(n, ackEvery)
			if err := m.pace.Wait(ctx, int64(part)); err != nil {
				return fmt.Errorf("wait for the pace: %w", err)
			}
		}
		n -= part
		if err := m.count(part, n > 0); err != nil {
			return err
		}
	}
	return nil
}

// count counts n bytes, and acknowledges them if it is time; more says that others are there already.
func (m *intake) count(n int, more bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got += uint64(n)
	if m.got-m.acked < ackEvery || m.pace != nil && more && time.Since(m.told) < paceEvery {
		return nil
	}
	if m.pace != nil {
		m.told = time.Now()
	}
	return m.acknowledge()
}

// Read implements io.Reader.
func (m *intake) Read(p []byte) (int, error) {
	if m.ended == nil {
		return m.s.Read(p)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.came) == 0 && m.err == nil {
		m.cond.Wait()
	}
	if len(m.came) == 0 {
		return 0, m.err
	}
	n := copy(p, m.came)
	m.came = m.came[:copy(m.came, m.came[n:])]
	m.read += uint64(n)
	m.cond.Broadcast()
	return n, nil
}

// saved says that all that was read is durable, but the last n bytes.
func (m *intake) saved(n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.safe = m.read - min(uint64(n), m.read)
	return m.acknowledge()
}

// acknowledge says what came and what of it is durable. The caller holds mu.
func (m *intake) acknowledge() error {
	if m.quiet {
		return nil
	}
	m.acked = m.got
	m.note = appendAck(m.note[:0], m.got, m.safe)
	return m.write(m.note)
}

// hush says that nothing more is acknowledged.
func (m *intake) hush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quiet = true
}

// say tells the sender something.
func (m *intake) say(p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.write(p)
}

func (m *intake) write(p []byte) error {
	within(m.s.SetWriteDeadline)
	n, err := m.s.Write(p)
	m.stats.Sent.Add(int64(n))
	if err != nil {
		return fmt.Errorf("write to the sender: %w", err)
	}
	return nil
}
