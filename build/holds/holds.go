// Package holds keeps engines at the steps of a switch that a test has chosen, until it lets them go on: it is what the engines of one PC ask that were
// built with the tag tagalonghold (app/holdpoint).
//
// It guarantees that an engine that comes to an armed step says so and waits there, every time, until the step is let go; at any other step it goes
// on at once. It doesn't know what a step is about. The tests that use it test it: build/matrix, build/e2e.
package holds

import (
	"bufio"
	"net"
	"strings"
	"sync"
)

// Holds is where the engines of one PC ask for leave at each step.
type Holds struct {
	l  net.Listener
	wg sync.WaitGroup

	// guarded by mu
	mu    sync.Mutex
	armed map[string]*Hold
}

// Hold keeps an engine at a step, whenever it comes there.
type Hold struct {
	Reached chan struct{} // closed when it stands there
	release chan struct{}
	come    func() // closes reached
	LetGo   func() // lets it go on, now or when it comes; may be called again
}

// New listens on the Unix socket path, which the engines have in TAGALONG_HOLD.
func New(path string) (*Holds, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	h := &Holds{l: l, armed: map[string]*Hold{}}
	h.wg.Go(h.serve)
	return h, nil
}

// Close lets all go on, and ends it.
func (h *Holds) Close() error {
	err := h.l.Close()
	h.Disarm()
	h.wg.Wait()
	return err
}

// Arm holds the engine at a step until that is let go.
func (h *Holds) Arm(step string) *Hold {
	x := &Hold{Reached: make(chan struct{}), release: make(chan struct{})}
	x.come = sync.OnceFunc(func() { close(x.Reached) })
	x.LetGo = sync.OnceFunc(func() { close(x.release) })
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armed[step] = x
	return x
}

// Disarm lets all go on, now and in future.
func (h *Holds) Disarm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.armed {
		x.LetGo()
	}
	clear(h.armed)
}

func (h *Holds) serve() {
	for {
		conn, err := h.l.Accept()
		if err != nil {
			return
		}
		h.wg.Go(func() { h.ask(conn) })
	}
}

// ask answers one engine at one step.
func (h *Holds) ask(conn net.Conn) {
	defer conn.Close()
	step, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	step = strings.TrimSuffix(step, "\n")
	h.mu.Lock()
	x := h.armed[step]
	h.mu.Unlock()
	if x != nil {
		x.come()
		<-x.release
	}
	_, _ = conn.Write([]byte{'\n'}) // it may be dead by now
}
