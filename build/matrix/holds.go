//go:build linux

package matrix

import (
	"bufio"
	"net"
	"strings"
	"sync"
)

// holds is where the engines of one PC ask for leave at each step.
type holds struct {
	l  net.Listener
	wg sync.WaitGroup

	// guarded by mu
	mu    sync.Mutex
	armed map[string]*hold
}

// hold keeps an engine at a step, whenever it comes there.
type hold struct {
	reached chan struct{} // closed when it stands there
	release chan struct{}
	come    func() // closes reached
	letGo   func() // lets it go on, now or when it comes; may be called again
}

func newHolds(path string) (*holds, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	h := &holds{l: l, armed: map[string]*hold{}}
	h.wg.Go(h.serve)
	return h, nil
}

// close lets all go on.
func (h *holds) close() error {
	err := h.l.Close()
	h.disarm()
	h.wg.Wait()
	return err
}

// arm holds the engine at a step until that is let go.
func (h *holds) arm(step string) *hold {
	x := &hold{reached: make(chan struct{}), release: make(chan struct{})}
	x.come = sync.OnceFunc(func() { close(x.reached) })
	x.letGo = sync.OnceFunc(func() { close(x.release) })
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armed[step] = x
	return x
}

// disarm lets all go on, now and in future.
func (h *holds) disarm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.armed {
		x.letGo()
	}
	clear(h.armed)
}

func (h *holds) serve() {
	for {
		conn, err := h.l.Accept()
		if err != nil {
			return
		}
		h.wg.Go(func() { h.ask(conn) })
	}
}

// ask answers one engine at one step.
func (h *holds) ask(conn net.Conn) {
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
