package main

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// path is a way to another address that takes time, and carries as much as the processor can: what passes it is held back for half of the round
// trip each way. Unlike a link of package lab it costs the same, whatever the round trip.
type path struct {
	listener  net.Listener
	to        string
	roundTrip atomic.Int64 // nanoseconds
	wg        sync.WaitGroup

	mu    sync.Mutex
	ended bool
	conns []net.Conn
	came  chan struct{} // closed when the next connection comes
}

const (
	// portion is how much is carried at once, in bytes.
	portion = 256 << 10
	// portions is how many of them are on their way at most, whatever is in each.
	portions = 2048
	// small is how much is kept by itself rather than in a portion's memory, in bytes.
	small = 16 << 10
)

// newPath listens on loopback, for a way to an address. Close it.
func newPath(to string) (*path, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &path{listener: l, to: to, came: make(chan struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// port is where it begins.
func (p *path) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// take makes the round trip another one. Who is connected over the way has to connect anew: what is learnt of a way when a connection begins shall
// be learnt of this one. It returns when somebody has.
func (p *path) take(ctx context.Context, trip time.Duration) error {
	if time.Duration(p.roundTrip.Swap(int64(trip))) == trip {
		return nil
	}
	p.mu.Lock()
	conns, came := p.conns, p.came
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	select {
	case <-came:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *path) close() error {
	p.mu.Lock()
	p.ended = true
	err := p.listener.Close()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	return err
}

func (p *path) accept() {
	for {
		a, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		b, err := net.Dial("tcp4", p.to)
		if err != nil {
			_ = a.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, a, b)
		close(p.came)
		p.came = make(chan struct{})
		if p.ended {
			_, _ = a.Close(), b.Close()
		}
		p.mu.Unlock()
		p.wg.Go(func() { p.carry(a, b) })
		p.wg.Go(func() { p.carry(b, a) })
	}
}

// parcel is something on its way.
type parcel struct {
	due time.Time
	b   []byte
}

// carry carries from one connection to the other, until either ends.
func (p *path) carry(from, to net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	way, spare := make(chan parcel, portions), make(chan []byte, portions)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		for x := range way {
			if wait := time.Until(x.due); wait > 0 {
				time.Sleep(wait)
			}
			if _, err := to.Write(x.b); err != nil {
				_ = from.Close()
				return
			}
			if cap(x.b) < portion {
				continue
			}
			select {
			case spare <- x.b[:portion]:
			default:
			}
		}
		_ = to.Close()
	})
	for free := []byte(nil); ctx.Err() == nil; {
		if free == nil {
			select {
			case free = <-spare:
			default:
				free = make([]byte, portion)
			}
		}
		n, err := from.Read(free)
		if n > 0 {
			b := free[:n]
			if n <= small {
				b = bytes.Clone(b)
			} else {
				free = nil
			}
			select {
			case way <- parcel{time.Now().Add(time.Duration(p.roundTrip.Load() / 2)), b}:
			case <-ctx.Done():
			}
		}
		if err != nil {
			break
		}
	}
	close(way)
	wg.Wait()
}
