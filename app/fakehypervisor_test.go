package app

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/switching"
)

// fakeHypervisor scripts a hypervisor: its guests are bytes of memory that outlive engines.
type fakeHypervisor struct {
	mu     sync.Mutex
	guests map[string]*fakeGuest // by run directory
	// memory is what a fresh guest has.
	memory []byte
	// breakLoad makes incoming guests refuse their memory.
	breakLoad bool
	// hold, while not nil, keeps incoming guests from starting until it is closed.
	hold chan struct{}
	// holdLoaded, while not nil, keeps incoming guests from proving that they have their memory until it is closed.
	holdLoaded chan struct{}
	// holdStart is the same for fresh ones.
	holdStart chan struct{}
	// holdSave keeps memories from being saved.
	holdSave chan struct{}
	// hasty is how many teleports converge before their guest is stopped.
	hasty int
	// agent is the socket of its guests' agent.
	agent string
	// needsDisk keeps guests from being found while nobody serves their disk.
	needsDisk bool
	// immortal keeps guests from being killed, doomed counts who tried.
	immortal bool
	doomed   int
	// accel, if it isn't software emulation, and survey are what it can do here.
	accel   string
	survey  hypervisor.Survey
	version string
	// breakRestore makes saved memory unusable, breakContinue keeps guests from going on.
	breakRestore, breakContinue bool
	// bridges are the device's, of which usable can be used.
	bridges []string
	usable  string
}

func newFake() *fakeHypervisor {
	return &fakeHypervisor{guests: map[string]*fakeGuest{}, memory: bytes.Repeat([]byte("memory "), 100_000)}
}

// fakeGuest implements hypervisor.Guest.
type fakeGuest struct {
	h       *fakeHypervisor
	dir     string
	config  hypervisor.Config
	exited  chan struct{}
	changed chan struct{}
	loaded  chan error

	mu     sync.Mutex
	state  hypervisor.State
	memory []byte
	runs   int // how often it was told to go on
	agent  string
	// deaf makes it ignore its power button, which was pressed so often; resets counts the other one.
	deaf            bool
	pressed, resets int
	// extra are the further disks: those it was started with, and those attached since.
	extra map[string]string
	// checks says that it was asked to check its file systems.
	checks bool
	// clings makes it not let go of a further disk.
	clings bool
	// goesOn, while not nil, keeps it from going on until it is closed; waits says that it was told to.
	goesOn chan struct{}
	waits  bool
	// fell says that it ended by itself.
	fell bool
	// pauseHangs has it stop and not say so.
	pauseHangs bool
}

func (h *fakeHypervisor) Probe(context.Context) (hypervisor.Facts, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return hypervisor.Facts{Path: "fake", Version: cmp.Or(h.version, "9.0.0"), Major: 9, Accel: cmp.Or(h.accel, "tcg")}, nil
}

// Survey says what a test wants.
func (h *fakeHypervisor) Survey(context.Context) (hypervisor.Survey, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.survey, nil
}

func (h *fakeHypervisor) Bridges() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bridges
}

func (h *fakeHypervisor) TryBridge(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name == "" || name != h.usable {
		return hypervisor.ErrNoBridge
	}
	return nil
}

func (h *fakeHypervisor) add(c hypervisor.Config, state hypervisor.State, memory []byte) *fakeGuest {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := &fakeGuest{h: h, agent: h.agent, dir: c.Dir, config: c, exited: make(chan struct{}), changed: make(chan struct{}, 1), loaded: make(chan error, 1), state: state, memory: memory, extra: map[string]string{}, checks: c.CheckFileSystems}
	for _, x := range c.Extra {
		g.extra[x.ID] = x.Socket
	}
	h.guests[c.Dir] = g
	return g
}

func (h *fakeHypervisor) Start(ctx context.Context, c hypervisor.Config) (hypervisor.Guest, error) {
	h.mu.Lock()
	hold := h.holdStart
	h.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return h.add(c, hypervisor.StateRunning, h.memory), nil
}

func (h *fakeHypervisor) StartIncoming(ctx context.Context, c hypervisor.Config) (hypervisor.Guest, error) {
	h.mu.Lock()
	hold := h.hold
	h.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return h.add(c, hypervisor.StateIncoming, nil), nil
}

func (h *fakeHypervisor) Find(_ context.Context, c hypervisor.Config) (hypervisor.Guest, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.guests[c.Dir]
	if g == nil {
		return nil, hypervisor.ErrNotRunning
	}
	if h.needsDisk {
		conn, err := net.Dial("unix", c.Disks[0].Socket)
		if err != nil {
			return nil, fmt.Errorf("it waits for its disk: %w", err)
		}
		_ = conn.Close()
	}
	return g, nil
}

// config is what the one guest was started with.
func (h *fakeHypervisor) config() hypervisor.Config {
	g := h.only()
	if g == nil {
		return hypervisor.Config{}
	}
	return g.config
}

func (h *fakeHypervisor) setHold(hold chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = hold
}

func (h *fakeHypervisor) setHoldLoaded(hold chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holdLoaded = hold
}

func (h *fakeHypervisor) setHoldSave(hold chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holdSave = hold
}

func (h *fakeHypervisor) setHoldStart(hold chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holdStart = hold
}

func (h *fakeHypervisor) setImmortal(immortal bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.immortal = immortal
}

func (h *fakeHypervisor) setBroken(broken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.breakLoad = broken
}

// only is the one guest there is, or nil.
func (h *fakeHypervisor) only() *fakeGuest {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.guests {
		return g
	}
	return nil
}

func (g *fakeGuest) set(s hypervisor.State) {
	g.mu.Lock()
	g.state = s
	g.mu.Unlock()
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

func (g *fakeGuest) get() hypervisor.State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

// whileItRuns has it do something if it runs, and says whether it did. As a hypervisor does, it stands still only when what it writes has ended.
func (g *fakeGuest) whileItRuns(do func() error) (ran bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != hypervisor.StateRunning {
		return false, nil
	}
	return true, do()
}

func (g *fakeGuest) gone() bool {
	select {
	case <-g.exited:
		return true
	default:
		return false
	}
}

func (g *fakeGuest) State(context.Context) (hypervisor.State, error) {
	if g.gone() {
		return "", hypervisor.ErrNotRunning
	}
	return g.get(), nil
}

func (g *fakeGuest) Pause(ctx context.Context) error {
	g.set(hypervisor.StatePaused)
	g.mu.Lock()
	hangs := g.pauseHangs
	g.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (g *fakeGuest) holdPause(hangs bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pauseHangs = hangs
}

func (g *fakeGuest) Continue(context.Context) error {
	g.h.mu.Lock()
	broken := g.h.breakContinue
	g.h.mu.Unlock()
	if broken || g.gone() {
		return hypervisor.ErrNotRunning
	}
	g.mu.Lock()
	hold := g.goesOn
	g.waits = hold != nil
	g.mu.Unlock()
	if hold != nil {
		<-hold
	}
	g.mu.Lock()
	g.runs++
	g.waits = false
	g.state = hypervisor.StateRunning
	g.mu.Unlock()
	g.set(hypervisor.StateRunning)
	return nil
}

func (g *fakeGuest) holdContinue(hold chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.goesOn = hold
}

// continuing says that it was told to go on and is kept from it.
func (g *fakeGuest) continuing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waits
}

func (g *fakeGuest) PowerDown(ctx context.Context) error {
	g.mu.Lock()
	deaf := g.deaf
	g.pressed++
	g.mu.Unlock()
	if deaf {
		return nil
	}
	return g.Kill(ctx)
}

func (g *fakeGuest) OpenScreen(context.Context) (hypervisor.Ticket, error) {
	return hypervisor.Ticket{}, hypervisor.ErrNoScreen
}

func (g *fakeGuest) setDeaf() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deaf = true
}

func (g *fakeGuest) Reset(context.Context) error {
	g.mu.Lock()
	g.resets++
	g.mu.Unlock()
	g.set(hypervisor.StateRunning)
	return nil
}

func (g *fakeGuest) Kill(context.Context) error {
	g.h.mu.Lock()
	defer g.h.mu.Unlock()
	if g.h.immortal {
		g.h.doomed++
		return errors.New("it doesn't end")
	}
	if !g.gone() {
		close(g.exited)
		if g.h.guests[g.dir] == g {
			delete(g.h.guests, g.dir)
		}
	}
	return nil
}

// fall ends it as a crash would.
func (g *fakeGuest) fall() {
	g.mu.Lock()
	g.fell = true
	g.mu.Unlock()
	_ = g.Kill(context.Background())
}

func (g *fakeGuest) Fell() bool {
	<-g.exited
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fell
}

func (g *fakeGuest) Attach(_ context.Context, d hypervisor.ExtraDisk) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, there := g.extra[d.ID]; there {
		return errors.New("attached already")
	}
	g.extra[d.ID] = d.Socket
	return nil
}

func (g *fakeGuest) Detach(_ context.Context, id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.clings {
		return hypervisor.ErrNotDetached
	}
	delete(g.extra, id)
	return nil
}

func (g *fakeGuest) Exited() <-chan struct{}      { return g.exited }
func (g *fakeGuest) Changed() <-chan struct{}     { return g.changed }
func (g *fakeGuest) Agent() string                { return g.agent }
func (g *fakeGuest) Resident() int64              { return 0 }
func (g *fakeGuest) Screen() string               { return "" }
func (g *fakeGuest) Console() string              { return filepath.Join(g.dir, "console.sock") }
func (g *fakeGuest) Settle(context.Context) error { return nil }
func (g *fakeGuest) Close() error                 { return nil }

// fakeOutgoing sends the memory, and the last byte when told to finish.
type fakeOutgoing struct {
	g      *fakeGuest
	hasty  bool
	inner  net.Conn
	outer  net.Conn
	sent   chan struct{}
	finish chan struct{}
	done   chan struct{}
	once   sync.Once
}

func (g *fakeGuest) Teleport(context.Context) (hypervisor.Outgoing, error) {
	inner, outer := net.Pipe()
	g.h.mu.Lock()
	hasty := g.h.hasty > 0
	g.h.hasty--
	g.h.mu.Unlock()
	o := &fakeOutgoing{g: g, hasty: hasty, inner: inner, outer: outer, sent: make(chan struct{}), finish: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer inner.Close()
		if _, err := inner.Write(g.memory); err != nil {
			return
		}
		close(o.sent)
		<-o.finish
		_, _ = inner.Write([]byte{'.'})
	}()
	return o, nil
}

func (o *fakeOutgoing) Stream() io.ReadWriteCloser { return o.outer }

func (o *fakeOutgoing) Progress(context.Context) (hypervisor.Progress, error) {
	p := hypervisor.Progress{Passes: 2, Total: int64(len(o.g.memory)), Remaining: switching.Usual.ParkBelow + 1}
	select {
	case <-o.sent:
		p.Remaining = 0
		if o.hasty {
			return p, hypervisor.ErrConverged
		}
	case <-o.done:
		return p, hypervisor.ErrTeleport
	default:
	}
	return p, nil
}

func (o *fakeOutgoing) Rest(context.Context) error { o.g.set(hypervisor.StatePaused); return nil }
func (o *fakeOutgoing) GoOn(context.Context) error { o.g.set(hypervisor.StateRunning); return nil }

func (o *fakeOutgoing) AtSwitchover(ctx context.Context) error {
	select {
	case <-o.sent:
		return nil
	case <-o.done:
		return hypervisor.ErrTeleport
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *fakeOutgoing) Finish(context.Context) error {
	o.once.Do(func() { close(o.finish) })
	return nil
}

func (o *fakeOutgoing) Cancel(context.Context) error {
	o.outer.Close()
	o.inner.Close()
	o.once.Do(func() { close(o.finish) })
	<-o.done
	return nil
}

func (g *fakeGuest) Incoming(context.Context) (io.ReadWriteCloser, error) {
	inner, outer := net.Pipe()
	go func() {
		defer inner.Close()
		b, err := bufio.NewReader(inner).ReadBytes('.')
		g.h.mu.Lock()
		broken, hold := g.h.breakLoad, g.h.holdLoaded
		g.h.mu.Unlock()
		switch {
		case broken, err != nil:
			g.loaded <- errors.Join(hypervisor.ErrTeleport, err)
		default:
			g.mu.Lock()
			g.memory = b[:len(b)-1]
			g.mu.Unlock()
			g.set(hypervisor.StatePaused)
			if hold != nil {
				select {
				case <-hold:
				case <-g.exited:
				}
			}
			g.loaded <- nil
		}
	}()
	return outer, nil
}

func (g *fakeGuest) Loaded(ctx context.Context) error {
	select {
	case err := <-g.loaded:
		return err
	case <-g.exited:
		return hypervisor.ErrTeleport
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *fakeGuest) Save(ctx context.Context, w io.Writer) error {
	g.h.mu.Lock()
	hold := g.h.holdSave
	g.h.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, err := w.Write(g.memory)
	return err
}

// fakeDirtyRate is how much each fake guest writes, in bytes a second: little, for any line.
const fakeDirtyRate = 16 << 10

func (g *fakeGuest) DirtyRate(context.Context) (int64, error) { return fakeDirtyRate, nil }

func (g *fakeGuest) Unsaved(context.Context) (int64, error) { return 0, nil }

func (g *fakeGuest) Restore(_ context.Context, r io.Reader) error {
	b, err := io.ReadAll(r)
	g.h.mu.Lock()
	if g.h.breakRestore {
		err = hypervisor.ErrTeleport
	}
	g.h.mu.Unlock()
	g.mu.Lock()
	g.memory = b
	g.mu.Unlock()
	g.set(hypervisor.StatePaused)
	return err
}
