package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"
)

// The limits of a Server that does not say otherwise.
const (
	DefaultMaxConns         = 16
	DefaultConnMemory       = 64 << 20
	DefaultTotalMemory      = 128 << 20
	DefaultHandshakeTimeout = 30 * time.Second
)

// Server serves disks to NBD clients. The fields are set before Serve and not changed afterwards. A
// Server must not be copied.
type Server struct {
	// Backend is the disk to serve under Name and under the empty name, unless Lookup is set.
	Backend Backend
	// Name is the export name of Backend.
	Name string
	// Lookup finds the disk of an export name, which is what a client sent, up to 4 KiB of any bytes;
	// the empty name asks for the default. It returns ErrUnknownExport, ErrHangUp (the client shall try
	// again), or another error, which tells the client that there is no such export. It is called from
	// many goroutines at once. Lookup must return equal Backends for one disk.
	Lookup func(name string) (Backend, error)
	// List names the exports for clients that ask; nil lists Name, or nothing if Lookup is set.
	List func() []string
	// Log is where to log; nil is slog.Default().
	Log *slog.Logger

	// MaxConns is how many clients there may be at once; more are hung up on. 0 is DefaultMaxConns.
	MaxConns int
	// ConnMemory and TotalMemory bound, in bytes, the data of the requests that are being worked on, for
	// one connection and for all. A connection that reaches a bound is not read from until some are
	// answered. 0 is the default; less than one request of 32 MiB is raised to that.
	ConnMemory, TotalMemory int64
	// HandshakeTimeout is how long a client may take to choose an export. 0 is the default.
	HandshakeTimeout time.Duration

	once     sync.Once
	budget   *semaphore.Weighted
	registry registry
	counters counters
}

// Serve takes connections from l until ctx ends or l fails, and closes l. When ctx ends, all connections
// are closed without an answer to what is pending, and Serve returns nil. In either case it returns when
// every connection has ended and no call to a Backend is under way: to get there soon, the owner of a
// Backend whose calls may block must see to it that they return (with ErrHangUp).
// Serve may be called for several listeners at once; the limits hold for all of them together, MaxConns
// for each.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if s.Backend == nil && s.Lookup == nil {
		return errors.Join(ErrNoBackend, l.Close())
	}
	s.once.Do(func() {
		s.budget = semaphore.NewWeighted(atLeast(s.TotalMemory, DefaultTotalMemory))
	})
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	// A second Close finds l closed, which is what it is for.
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer func() { _ = l.Close() }()

	slots := semaphore.NewWeighted(int64(s.maxConns()))
	var delay time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = nc.Close()
			}
			return nil
		case err == nil:
		case passing(err):
			// Out of descriptors or memory: the clients that are served must not suffer for it.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.logger().Warn("NBD listener cannot accept yet", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(delay):
			}
			continue
		default:
			return fmt.Errorf("nbd: accept: %w", err)
		}
		delay = 0
		if !slots.TryAcquire(1) {
			s.counters.refused.Add(1)
			s.logger().Warn("NBD client refused", "error", errTooMany, "limit", s.maxConns())
			_ = nc.Close()
			continue
		}
		s.counters.accepted.Add(1)
		s.counters.conns.Add(1)
		conns.Go(func() {
			newConn(ctx, s, nc).serve()
			s.counters.conns.Add(-1)
			slots.Release(1)
		})
	}
}

// passing reports whether Accept may succeed again by itself.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// lookup finds the Backend of an export name, and never returns nil without an error.
func (s *Server) lookup(name string) (Backend, error) {
	if s.Lookup == nil {
		if name != "" && name != s.Name {
			return nil, ErrUnknownExport
		}
		return s.Backend, nil
	}
	b, err := s.Lookup(name)
	if err != nil {
		if !errors.Is(err, ErrUnknownExport) {
			s.logger().Warn("NBD export cannot be opened", "error", err)
		}
		return nil, err
	}
	if b == nil {
		return nil, ErrUnknownExport
	}
	return b, nil
}

func (s *Server) names() []string {
	switch {
	case s.List != nil:
		return s.List()
	case s.Lookup == nil:
		return []string{s.Name}
	default:
		return nil
	}
}

func (s *Server) logger() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}

func (s *Server) maxConns() int {
	if s.MaxConns > 0 {
		return s.MaxConns
	}
	return DefaultMaxConns
}

func (s *Server) connMemory() int64 { return atLeast(s.ConnMemory, DefaultConnMemory) }

func (s *Server) handshakeTimeout() time.Duration {
	if s.HandshakeTimeout > 0 {
		return s.HandshakeTimeout
	}
	return DefaultHandshakeTimeout
}

// atLeast is n, or def for 0, and never less than the largest request.
func atLeast(n, def int64) int64 {
	if n <= 0 {
		n = def
	}
	return max(n, maxData)
}
