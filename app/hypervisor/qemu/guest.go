package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qmp"
)

// startTimeout bounds the time until a new process answers on its QMP socket. It opens
// the disk first, which waits up to 30 s for the engine's NBD server.
const startTimeout = 45 * time.Second

// guest is one QEMU process.
type guest struct {
	cfg     hypervisor.Config
	pid     int
	qmp     *qmp.Client
	urgent  *qmp.Client // nil if it has no session for urgent commands
	exited  chan struct{}
	changed chan struct{}

	cancel  context.CancelFunc // ends the watcher
	wg      sync.WaitGroup
	watched chan struct{} // closed when the watcher has heard the last of QEMU

	// guarded by mu
	mu       sync.Mutex
	incoming *qmp.Subscription
	asked    bool // the process was asked to end, or the guest to power itself off
}

// Start implements hypervisor.Hypervisor.
func (q *QEMU) Start(ctx context.Context, c hypervisor.Config) (hypervisor.Guest, error) {
	return q.start(ctx, c, false)
}

// StartIncoming implements hypervisor.Hypervisor.
func (q *QEMU) StartIncoming(ctx context.Context, c hypervisor.Config) (hypervisor.Guest, error) {
	return q.start(ctx, c, true)
}

func (q *QEMU) start(ctx context.Context, c hypervisor.Config, incoming bool) (hypervisor.Guest, error) {
	facts, err := q.Probe(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("qemu: make the run directory: %w", err)
	}
	lock, err := claimSoon(ctx, c.Dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the process keeps it
	for _, stale := range []string{qmpSocket(c.Dir), consoleSocket(c.Dir), screenSocket(c.Dir), agentSocket(c.Dir), memorySocket(c.Dir), pidFile(c.Dir)} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("qemu: clear the run directory: %w", err)
		}
	}
	here, files, err := q.host(ctx, c, facts)
	if err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}
	defer files.close()
	here.urgent = incoming && qmp.MakePipes(urgentPipes(c.Dir)) == nil // without, a killed engine's successor can do less for it
	args, err := argv(c, here, incoming)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logFile(c.Dir), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("qemu: open the log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(facts.Path, args...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, files
	if lock != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, lock)
	}
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("qemu: start %s: %w", facts.Path, err)
	}
	g := &guest{cfg: c, pid: cmd.Process.Pid, exited: make(chan struct{}), changed: make(chan struct{}, 1), watched: make(chan struct{})}
	go func() {
		// The exit status tells nothing that the log doesn't; the log is read where it matters.
		_ = cmd.Wait()
		close(g.exited)
	}()
	dialCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	g.qmp, err = qmp.Dial(dialCtx, qmpSocket(c.Dir), func() error {
		select {
		case <-g.exited:
			return fmt.Errorf("%w: %s", hypervisor.ErrNotRunning, lastWords(c.Dir))
		default:
			return nil
		}
	})
	if err != nil {
		_ = cmd.Process.Kill()
		<-g.exited
		return nil, fmt.Errorf("qemu: start: %w", err)
	}
	if here.urgent {
		g.takeUp()
		g.prepareUrgent(dialCtx)
	}
	g.watch()
	return g, nil
}

// takeUp takes the session for urgent commands up, if there is one, and keeps it, so that what QEMU says there goes somewhere.
func (g *guest) takeUp() {
	if c, err := qmp.TakeUp(urgentPipes(g.cfg.Dir)); err == nil {
		g.urgent = c
	}
}

// prepareUrgent makes it ready for an engine that finds QEMU busy. One that can't have it does without.
func (g *guest) prepareUrgent(ctx context.Context) {
	if g.urgent == nil {
		return
	}
	if err := g.urgent.Prepare(ctx); err != nil {
		_ = g.urgent.Close()
		g.urgent = nil
	}
}

// doUrgent runs a command that QEMU runs at once, whatever keeps it busy.
func (g *guest) doUrgent(ctx context.Context, command string, args any) error {
	if g.urgent != nil {
		return g.urgent.DoUrgent(ctx, command, args, nil)
	}
	return g.qmp.DoUrgent(ctx, command, args, nil)
}

// Running says whether the QEMU that was started for the run directory dir lives. It asks the system, not QEMU.
func Running(dir string) bool {
	pid := readPID(dir)
	return pid != 0 && alive(pid, dir) || claimed(dir)
}

// Find implements hypervisor.Hypervisor.
func (q *QEMU) Find(ctx context.Context, c hypervisor.Config) (hypervisor.Guest, error) {
	pid, err := findPID(ctx, c.Dir)
	if err != nil {
		return nil, err
	}
	g := &guest{cfg: c, pid: pid, exited: make(chan struct{}), changed: make(chan struct{}, 1), watched: make(chan struct{})}
	dialCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// It may wait for its disk, which the engine that is to find it doesn't serve yet.
	g.qmp, err = qmp.Attach(dialCtx, qmpSocket(c.Dir), func() error {
		if !alive(pid, c.Dir) {
			return hypervisor.ErrNotRunning
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("qemu: find: %w", err)
	}
	g.takeUp()
	g.watch()
	g.wg.Add(1)
	watchCtx, stop := context.WithCancel(context.Background())
	inner := g.cancel
	g.cancel = func() { inner(); stop() }
	go func() {
		defer g.wg.Done()
		g.pollExit(watchCtx)
	}()
	g.wg.Go(func() {
		select {
		case <-g.qmp.Ready():
			g.wake()
		case <-watchCtx.Done():
		}
	})
	return g, nil
}

// claimTimeout is how long the lock of a run directory is waited for.
const claimTimeout = 10 * time.Second

// claimSoon takes the lock of a run directory in which no process lives. One that is at its end, and counts as gone, may still have it for a moment,
// and one that has only begun says its number soon.
func claimSoon(ctx context.Context, dir string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	for {
		if pid := readPID(dir); pid != 0 && alive(pid, dir) {
			return nil, fmt.Errorf("qemu: process %d: %w", pid, hypervisor.ErrRunsAlready)
		}
		lock, err := claim(dir)
		if !errors.Is(err, hypervisor.ErrRunsAlready) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// findPID is the number of the process that lives for the run directory dir. One that was started a moment ago is waited for until it says its
// number, or ends.
func findPID(ctx context.Context, dir string) (int, error) {
	for {
		begun := claimed(dir)
		if pid := readPID(dir); pid != 0 && alive(pid, dir) {
			return pid, nil
		}
		if !begun {
			return 0, hypervisor.ErrNotRunning
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("qemu: find a process that has only begun: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// pollExit notices the end of a process that isn't our child.
func (g *guest) pollExit(ctx context.Context) {
	for alive(g.pid, g.cfg.Dir) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	close(g.exited)
}

// watch turns QEMU's events into wake-ups until Close or the process's end.
func (g *guest) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	sub := g.qmp.Subscribe()
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		defer close(g.watched)
		defer sub.Close()
		for {
			event, err := sub.Next(ctx)
			if ctx.Err() != nil {
				return
			}
			if event.Name == "SHUTDOWN" {
				g.wasAsked()
			}
			g.wake()
			if err != nil {
				return
			}
		}
	}()
}

// wake has somebody look at the state again.
func (g *guest) wake() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// wasAsked notes that the process doesn't end by itself.
func (g *guest) wasAsked() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = true
}

// Fell implements hypervisor.Guest. QEMU says that it shuts down before it does so.
func (g *guest) Fell() bool {
	<-g.exited
	<-g.watched
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.asked
}

func (g *guest) Exited() <-chan struct{}  { return g.exited }
func (g *guest) Changed() <-chan struct{} { return g.changed }
func (g *guest) Resident() int64          { return resident(g.pid) }
func (g *guest) Console() string          { return consoleSocket(g.cfg.Dir) }

func (g *guest) Screen() string {
	if !g.cfg.Screen {
		return ""
	}
	return screenSocket(g.cfg.Dir)
}

func (g *guest) Close() error {
	g.cancel()
	g.wg.Wait()
	if g.urgent != nil {
		_ = g.urgent.Close() // there is nothing that could be lost
	}
	err := g.qmp.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (g *guest) gone() bool {
	select {
	case <-g.exited:
		return true
	default:
		return false
	}
}

func (g *guest) State(ctx context.Context) (hypervisor.State, error) {
	var s struct {
		Status string `json:"status"`
	}
	if err := g.qmp.Do(ctx, "query-status", nil, &s); err != nil {
		if g.gone() || errors.Is(err, qmp.ErrClosed) {
			return "", fmt.Errorf("%w: %w", hypervisor.ErrNotRunning, err)
		}
		return "", err
	}
	switch s.Status {
	case "running":
		return hypervisor.StateRunning, nil
	case "inmigrate":
		return hypervisor.StateIncoming, nil
	case "finish-migrate":
		return hypervisor.StateMoving, nil
	case "io-error":
		return hypervisor.StateIOError, nil
	case "shutdown":
		return hypervisor.StateShutdown, nil
	case "internal-error", "guest-panicked":
		return hypervisor.StateFailed, nil
	default:
		return hypervisor.StatePaused, nil
	}
}

func (g *guest) Pause(ctx context.Context) error { return g.qmp.Do(ctx, "stop", nil, nil) }

func (g *guest) Continue(ctx context.Context) error {
	if err := g.qmp.Do(ctx, "cont", nil, nil); err != nil {
		return err
	}
	g.announce(ctx)
	return nil
}

func (g *guest) PowerDown(ctx context.Context) error {
	return g.qmp.Do(ctx, "system_powerdown", nil, nil)
}

func (g *guest) Reset(ctx context.Context) error {
	before, err := g.State(ctx)
	if err != nil {
		return err
	}
	if err := g.qmp.Do(ctx, "system_reset", nil, nil); err != nil {
		return err
	}
	if before == hypervisor.StateFailed || before == hypervisor.StateShutdown {
		return g.Continue(ctx)
	}
	return nil
}

// Kill ends the process by signal: QMP's quit would wait for a fenced disk to drain.
func (g *guest) Kill(ctx context.Context) error {
	if g.gone() {
		return nil
	}
	g.wasAsked()
	if alive(g.pid, g.cfg.Dir) {
		if err := kill(g.pid); err != nil {
			return fmt.Errorf("qemu: end process %d: %w", g.pid, err)
		}
	}
	select {
	case <-g.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("qemu: process %d doesn't end: %w", g.pid, ctx.Err())
	}
}

func readPID(dir string) int {
	b, err := os.ReadFile(pidFile(dir))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0
	}
	return pid
}

// lastWords is the end of QEMU's log: why it ended.
func lastWords(dir string) string {
	f, err := os.Open(logFile(dir))
	if err != nil {
		return "it left no log"
	}
	defer f.Close()
	const tail = 600
	if st, err := f.Stat(); err == nil && st.Size() > tail {
		_, _ = f.Seek(-tail, io.SeekEnd)
	}
	b, err := io.ReadAll(io.LimitReader(f, tail))
	if err != nil || len(b) == 0 {
		return "it left no word"
	}
	return strings.TrimSpace(string(b))
}
