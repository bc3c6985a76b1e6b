//go:build linux

package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/lab"
)

// PC is one of the person's devices: a network namespace with an engine in it.
type PC struct {
	Name   string
	Data   string
	Client *api.Client
	Host   *lab.Host
	binary string
	env    []string
	log    *os.File
	notice func(format string, args ...any)

	// guarded by mu
	mu       sync.Mutex
	engine   *exec.Cmd
	ended    chan struct{}
	wanted   bool
	restarts int
	watching sync.WaitGroup
}

// startTimeout bounds the time until an engine answers.
const startTimeout = 60 * time.Second

// stopTimeout is how long an engine may take to end; reaching it means that something hangs.
const stopTimeout = 2 * time.Minute

// restartPause is how long nobody tries again to start an engine that says it can't.
const restartPause = time.Second

func newPC(host *lab.Host, binary, dir, name string, notice func(string, ...any)) (*PC, error) {
	data := filepath.Join(dir, name)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &PC{Name: name, Data: data, Client: api.NewClient(api.SocketPath(data)), Host: host, binary: binary, log: log, notice: notice}, nil
}

// command is the binary with arguments, inside the PC.
func (p *PC) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := p.Host.Command(ctx, p.binary, append([]string{"--data", p.Data}, args...)...)
	cmd.Env = append(append(os.Environ(), "TAGALONG_ACCEL=tcg", "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true"), p.env...)
	return cmd
}

// Run runs one command line inside the PC and returns what it printed.
func (p *PC) Run(ctx context.Context, args ...string) (string, error) {
	var out, complaint bytes.Buffer
	cmd := p.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("tagalong %s on %s: %w: %s", strings.Join(args, " "), p.Name, err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// Start starts the engine and waits until it answers. If it dies without having been asked to,
// it is started again, as the tray or the session would.
func (p *PC) Start(ctx context.Context) error {
	p.mu.Lock()
	p.wanted = true
	p.mu.Unlock()
	if err := p.launch(); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.Client.WaitReady(ready); err != nil {
		return fmt.Errorf("the engine on %s doesn't answer: %w\n%s", p.Name, err, p.LastWords())
	}
	return nil
}

func (p *PC) launch() error {
	cmd := p.command(context.Background(), "engine", "--name", p.Name)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	// A Ctrl-C is for the story, which ends its engines itself.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the engine on %s: %w", p.Name, err)
	}
	ended, began := make(chan struct{}), time.Now()
	p.mu.Lock()
	p.engine, p.ended = cmd, ended
	p.mu.Unlock()
	p.watching.Go(func() {
		err := cmd.Wait()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() && time.Since(began) < restartPause {
			// It can't start, for instance because the disk is full: a session wouldn't try for ever without a pause either.
			time.Sleep(restartPause)
		}
		close(ended)
		p.mu.Lock()
		again := p.wanted
		if again {
			p.restarts++
		}
		p.mu.Unlock()
		if again {
			p.notice("The engine on %s died (%v): starting it again, its VM never stopped.", p.Name, err)
			if err := p.launch(); err != nil {
				p.notice("%v", err)
			}
		}
	})
	return nil
}

// Kill ends the engine as a crash would. The error is os.ErrProcessDone if it has just ended by itself, and isn't started again yet.
func (p *PC) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine == nil {
		return errors.New("no engine runs")
	}
	return p.engine.Process.Kill()
}

// PID is the engine's process ID.
func (p *PC) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine == nil {
		return 0
	}
	return p.engine.Process.Pid
}

// Restarts counts the engine's deaths so far.
func (p *PC) Restarts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.restarts
}

// running says that the engine is meant to run.
func (p *PC) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wanted
}

// Stop asks the engine to end and waits until it has.
func (p *PC) Stop() error {
	p.mu.Lock()
	p.wanted = false
	cmd, ended := p.engine, p.ended
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-ended:
	case <-time.After(stopTimeout):
		// Go prints what every goroutine waits for, into the engine's log.
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		return fmt.Errorf("the engine on %s didn't end when asked; its log tells what it waited for", p.Name)
	}
	p.watching.Wait()
	return nil
}

// autopsy ends the engine in a way that has it say what every goroutine waits for.
func (p *PC) autopsy() {
	p.mu.Lock()
	p.wanted = false
	cmd, ended := p.engine, p.ended
	p.mu.Unlock()
	if cmd == nil || cmd.Process.Signal(syscall.SIGQUIT) != nil {
		return
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
	}
}

// close ends whatever still runs.
func (p *PC) close() error {
	return errors.Join(p.Stop(), p.log.Close())
}

// Log is the file with all that the engine has said.
func (p *PC) Log() string { return p.log.Name() }

// LastWords is the end of the engine's log.
func (p *PC) LastWords() string {
	f, err := os.Open(p.log.Name())
	if err != nil {
		return ""
	}
	defer f.Close()
	const tail = 200_000
	if st, err := f.Stat(); err == nil && st.Size() > tail {
		_, _ = f.Seek(-tail, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	return fmt.Sprintf("--- the end of %s's log ---\n%s", p.Name, b)
}

// VM is the PC's view of a VM.
func (p *PC) VM(ctx context.Context, name string) (api.VM, error) {
	s, err := p.Client.Status(ctx)
	if err != nil {
		return api.VM{}, err
	}
	for _, v := range s.VMs {
		if v.Name == name {
			return v, nil
		}
	}
	return api.VM{}, fmt.Errorf("%s doesn't know the VM %s: %w", p.Name, name, errNotYet)
}

var errNotYet = errors.New("not yet")
