//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxFlying bounds how many packets are under way in one direction; more are dropped.
const maxFlying = 8192

// port is one end of a link: a network device whose cable ends in this process.
type port = os.File

// openPort makes a network device in a namespace. It exists as long as the port is open.
func openPort(netns, device string) (*port, error) {
	request, err := unix.NewIfreq(device)
	if err != nil {
		return nil, fmt.Errorf("make device %s: %w", device, err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	var p *port
	err = inNamespace(netns, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return errors.Join(ErrPrivilege, err)
		}
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		// Only now: before it has its device, the file can't be waited for.
		p = os.NewFile(uintptr(fd), device)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make device %s: %w", device, err)
	}
	return p, nil
}

// inNamespace calls f in a network namespace and returns what it returns.
func inNamespace(netns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Not unlocked: the thread ends with this goroutine, and nothing else
		// of this process ever runs there.
		runtime.LockOSThread()
		done <- enterNamespace(netns, f)
	}()
	return <-done
}

func enterNamespace(netns string, f func() error) error {
	ns, err := os.Open(filepath.Join(netnsDir, netns))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	return f()
}

// pipe is one direction of a link.
type pipe struct {
	from, to *port
	delay    atomic.Int64 // nanoseconds, one way
	carried  atomic.Int64
	flying   chan packet
	free     sync.Pool // of *[mtu]byte

	mu  sync.Mutex // held while a packet is delivered
	cut bool
}

// packet is one that is under way.
type packet struct {
	data *[mtu]byte
	size int
	due  time.Time
}

func newPipe(from, to *port) *pipe {
	return &pipe{from: from, to: to, flying: make(chan packet, maxFlying), free: sync.Pool{New: func() any { return new([mtu]byte) }}}
}

// relay lets packets pass until stop is called, which closes both ports and waits.
func relay(ports [2]*port, pipes [2]*pipe) (stop func()) {
	var running sync.WaitGroup
	for _, p := range pipes {
		running.Go(p.take)
		running.Go(p.give)
	}
	return func() {
		for _, p := range ports {
			// Whatever it says, reads and writes end.
			_ = p.Close()
		}
		running.Wait()
	}
}

// take reads packets until the port is closed.
func (p *pipe) take() {
	defer close(p.flying)
	for {
		data := p.free.Get().(*[mtu]byte)
		n, err := p.from.Read(data[:])
		if errors.Is(err, os.ErrClosed) {
			return
		}
		// A device that is down, or a packet that is too long for a link, is the network's everyday life.
		if err == nil {
			select {
			case p.flying <- packet{data: data, size: n, due: time.Now().Add(time.Duration(p.delay.Load()))}:
				continue
			default:
			}
		}
		p.free.Put(data)
	}
}

// give delivers packets when they are due, in order.
func (p *pipe) give() {
	for k := range p.flying {
		if wait := time.Until(k.due); wait > 0 {
			time.Sleep(wait)
		}
		p.deliver(k.data[:k.size])
		p.free.Put(k.data)
	}
}

func (p *pipe) deliver(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return
	}
	if _, err := p.to.Write(b); err == nil {
		p.carried.Add(int64(len(b)))
	}
}

// setCut loses everything from its return on, or nothing any more.
func (p *pipe) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
}
