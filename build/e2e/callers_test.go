//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// caller sends numbered packets at a steady rate and notes when they come back.
type caller struct {
	conn   net.Conn
	sentN  atomic.Int64
	group  sync.WaitGroup
	cancel context.CancelFunc

	mu   sync.Mutex
	last time.Time // guarded by mu, as what follows: when the newest answer came
	cut  time.Duration
	back map[int64]bool
}

func (c *caller) begin(ctx context.Context) {
	ctx, c.cancel = context.WithCancel(ctx)
	c.back = map[int64]bool{}
	c.group.Go(func() {
		tick := time.NewTicker(packetEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// An error is an answer of the network's to an earlier packet.
				_, _ = c.conn.Write(binary.BigEndian.AppendUint64(nil, uint64(c.sentN.Add(1))))
			}
		}
	})
	c.group.Go(func() {
		b := make([]byte, 64)
		for ctx.Err() == nil {
			_ = c.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			n, err := c.conn.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || n != 8 {
				continue
			}
			now := time.Now()
			c.mu.Lock()
			if !c.last.IsZero() {
				c.cut = max(c.cut, now.Sub(c.last))
			}
			c.last = now
			c.back[int64(binary.BigEndian.Uint64(b))] = true
			c.mu.Unlock()
		}
	})
}

// answered waits until a packet that is sent from now on has come back.
func (c *caller) answered(ctx context.Context) error {
	for after := c.sentN.Load(); ; {
		c.mu.Lock()
		newest := int64(0)
		for n := range c.back {
			newest = max(newest, n)
		}
		c.mu.Unlock()
		if newest > after {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no packet comes back any more: %w", ctx.Err())
		case <-time.After(packetEvery):
		}
	}
}

// interrupted is for how long nothing came back at most since it was asked last.
func (c *caller) interrupted() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	cut := c.cut
	c.cut = 0
	return cut
}

// lost is how many packets after the given one haven't come back although a later one has.
func (c *caller) lost(after int64) (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	newest := after
	for k := range c.back {
		newest = max(newest, k)
	}
	for k := after + 1; k < newest; k++ {
		if !c.back[k] {
			n++
		}
	}
	return n
}

// end hangs up.
func (c *caller) end() {
	c.cancel()
	c.group.Wait()
}

func (c *caller) wait() { c.group.Wait() }

// streamer sends a stream of its own making and checks what comes back of it, byte by byte.
type streamer struct {
	conn  net.Conn
	group sync.WaitGroup
	out   atomic.Int64
	in    atomic.Int64
	done  atomic.Bool
	began time.Time

	mu    sync.Mutex
	stall time.Duration // guarded by mu, as what follows
	err   error
}

// pattern is what byte at stands in a stream: it doesn't come again within 64 KiB and a bit.
func pattern(b []byte, at int64) {
	for i := range b {
		n := at + int64(i)
		b[i] = byte(n) ^ byte(n>>8) ^ byte(n>>16)
	}
}

// streamRate is how many bytes a second are sent: an emulated guest does little else otherwise.
const streamRate = 256 << 10

func (s *streamer) begin(ctx context.Context) {
	s.began = time.Now()
	s.group.Go(func() {
		b := make([]byte, 8<<10)
		tick := time.NewTicker(time.Second * time.Duration(len(b)) / streamRate)
		defer tick.Stop()
		for ctx.Err() == nil && !s.done.Load() {
			pattern(b, s.out.Load())
			if _, err := s.conn.Write(b); err != nil {
				s.fail(ctx, fmt.Errorf("send: %w", err))
				return
			}
			s.out.Add(int64(len(b)))
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
		if tcp, ok := s.conn.(*net.TCPConn); ok && ctx.Err() == nil {
			s.fail(ctx, tcp.CloseWrite())
		}
	})
	s.group.Go(func() {
		b, want, last := make([]byte, 8<<10), make([]byte, 8<<10), time.Now()
		for {
			n, err := s.conn.Read(b)
			now := time.Now()
			pattern(want[:n], s.in.Load())
			if !bytes.Equal(b[:n], want[:n]) {
				s.fail(ctx, fmt.Errorf("byte %d and what follows came back as something else", s.in.Load()))
				return
			}
			s.in.Add(int64(n))
			s.mu.Lock()
			s.stall = max(s.stall, now.Sub(last))
			s.mu.Unlock()
			last = now
			if err != nil {
				if !errors.Is(err, io.EOF) {
					s.fail(ctx, fmt.Errorf("receive: %w", err))
				}
				return
			}
		}
	})
}

func (s *streamer) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *streamer) sent() int64 { return s.out.Load() }

func (s *streamer) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// further waits until more came back than had been sent at some moment.
func (s *streamer) further(ctx context.Context, than int64) error {
	for s.in.Load() <= than {
		if err := s.failed(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the stream stands still at %d bytes: %w", s.in.Load(), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return s.failed()
}

// end lets the stream end, and says how much came back, for how long nothing did at most, and how long all of it took.
func (s *streamer) end() (bytes int64, stall, took time.Duration, err error) {
	s.done.Store(true)
	s.group.Wait()
	took = time.Since(s.began)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.in.Load() != s.out.Load() {
		s.err = fmt.Errorf("of %d bytes %d came back", s.out.Load(), s.in.Load())
	}
	return s.in.Load(), s.stall, took, s.err
}

func (s *streamer) wait() { s.group.Wait() }
