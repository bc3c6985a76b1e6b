package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qmp"
)

// sendBuffer is the kernel's buffer on QEMU's end of the stream, in bytes. With the default
// (208 KiB) QEMU runs on past the point where we stop reading.
const sendBuffer = 65536

// capability names, as QEMU has them.
const (
	capEvents     = "events"
	capReturnPath = "return-path"
	capPause      = "pause-before-switchover"
	capLate       = "late-block-activate"
)

// managed are the capabilities that some recipe sets; each recipe sets all of them.
var managed = []string{capEvents, capReturnPath, capPause, capLate, capPostCopy}

func (g *guest) capabilities(ctx context.Context, on ...string) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	var list []capability
	for _, name := range managed {
		state := false
		for _, o := range on {
			state = state || o == name
		}
		list = append(list, capability{name, state})
	}
	return g.qmp.Do(ctx, "migrate-set-capabilities", map[string]any{"capabilities": list}, nil)
}

// migration is the part of query-migrate that is used.
type migration struct {
	Status    string `json:"status"`
	ErrorDesc string `json:"error-desc"`
	TotalTime int64  `json:"total-time"` // ms
	RAM       struct {
		Transferred    int64 `json:"transferred"`
		Remaining      int64 `json:"remaining"`
		Total          int64 `json:"total"`
		DirtySyncCount int   `json:"dirty-sync-count"`
		DirtyPagesRate int64 `json:"dirty-pages-rate"`
		PageSize       int64 `json:"page-size"`
	} `json:"ram"`
}

// outgoing is one teleport on the giver's side.
type outgoing struct {
	g      *guest
	stream io.ReadWriteCloser
	sub    *qmp.Subscription
}

// Teleport implements hypervisor.Guest: the recipe "own stop": the engine reads the stream,
// so it decides when QEMU may converge.
func (g *guest) Teleport(ctx context.Context) (hypervisor.Outgoing, error) {
	o, err := g.teleport(ctx, capEvents, capReturnPath, capPause, capLate)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (g *guest) teleport(ctx context.Context, caps ...string) (_ *outgoing, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("qemu: begin a teleport: %w", err)
		}
	}()
	if err := g.capabilities(ctx, caps...); err != nil {
		return nil, err
	}
	// A limit of 1 ms keeps QEMU from stopping the guest by itself while pages are left.
	if err := g.qmp.Do(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": 0, "downtime-limit": 1}, nil); err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair(sendBuffer)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := g.qmp.DoFile(ctx, "getfd", map[string]any{"fdname": "memory"}, theirs); err != nil {
		ours.Close()
		return nil, err
	}
	o := &outgoing{g: g, stream: weighed{ours}, sub: g.qmp.Subscribe()}
	if err := g.qmp.Do(ctx, "migrate", map[string]any{"uri": "fd:memory"}, nil); err != nil {
		o.sub.Close()
		ours.Close()
		return nil, err
	}
	return o, nil
}

func (o *outgoing) Stream() io.ReadWriteCloser { return o.stream }

func (g *guest) migration(ctx context.Context) (migration, error) {
	var m migration
	err := g.qmp.Do(ctx, "query-migrate", nil, &m)
	return m, err
}

func (o *outgoing) Progress(ctx context.Context) (hypervisor.Progress, error) {
	m, err := o.g.migration(ctx)
	if err != nil {
		return hypervisor.Progress{}, fmt.Errorf("qemu: ask for progress: %w", err)
	}
	p := hypervisor.Progress{
		Passes:    m.RAM.DirtySyncCount,
		Remaining: m.RAM.Remaining,
		Total:     m.RAM.Total,
		Sent:      m.RAM.Transferred,
		DirtyRate: m.RAM.DirtyPagesRate * m.RAM.PageSize,
		Elapsed:   time.Duration(m.TotalTime) * time.Millisecond,
	}
	switch m.Status {
	case "setup", "active":
		return p, nil
	case "pre-switchover", "device":
		return p, hypervisor.ErrConverged
	default:
		return p, fmt.Errorf("%w: %s %s", hypervisor.ErrTeleport, m.Status, m.ErrorDesc)
	}
}

// await follows MIGRATION events until one of the wanted states, or an end that isn't wanted.
func await(ctx context.Context, sub *qmp.Subscription, want ...string) (string, error) {
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			return "", err
		}
		if e.Name != "MIGRATION" {
			continue
		}
		var d struct {
			Status string `json:"status"`
		}
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return "", fmt.Errorf("%w: %w", qmp.ErrProtocol, err)
		}
		for _, w := range want {
			if d.Status == w {
				return d.Status, nil
			}
		}
		switch d.Status {
		case "failed", "cancelled", "completed":
			return d.Status, fmt.Errorf("%w: it ended as %q", hypervisor.ErrTeleport, d.Status)
		}
	}
}

// Rest implements hypervisor.Outgoing.
func (o *outgoing) Rest(ctx context.Context) error {
	if err := o.g.qmp.Do(ctx, "stop", nil, nil); err != nil {
		return fmt.Errorf("qemu: rest: %w", err)
	}
	return nil
}

// GoOn implements hypervisor.Outgoing. Unlike Continue it announces nothing.
func (o *outgoing) GoOn(ctx context.Context) error {
	if err := o.g.qmp.Do(ctx, "cont", nil, nil); err != nil {
		return fmt.Errorf("qemu: go on: %w", err)
	}
	return nil
}

func (o *outgoing) AtSwitchover(ctx context.Context) error {
	if _, err := await(ctx, o.sub, "pre-switchover"); err != nil {
		return fmt.Errorf("qemu: wait for the switchover: %w", err)
	}
	return nil
}

func (o *outgoing) Finish(ctx context.Context) error {
	if err := o.g.qmp.Do(ctx, "migrate-continue", map[string]any{"state": "pre-switchover"}, nil); err != nil {
		return fmt.Errorf("qemu: send the last part: %w", err)
	}
	return nil
}

func (o *outgoing) Cancel(ctx context.Context) error {
	// Closing first frees a QEMU that is stuck in writing to us.
	o.stream.Close()
	defer o.sub.Close()
	return o.g.Settle(ctx)
}

// Settle implements hypervisor.Guest. Memory that is coming in isn't what it ends.
func (g *guest) Settle(ctx context.Context) error {
	m, err := g.migration(ctx)
	if err != nil {
		return fmt.Errorf("qemu: look for a teleport: %w", err)
	}
	switch a := m.apart(); {
	case a.Side == hypervisor.Ahead:
		return nil
	case a.Side == hypervisor.Left:
		// To cancel it would leave the guest where nothing lets it go on, and lose what the other side can still have.
		return fmt.Errorf("qemu: end a teleport that is %q: %w", m.Status, hypervisor.ErrApart)
	}
	return g.cancelMigration(ctx)
}

// cancelMigration ends what sends memory, and waits for its end.
func (g *guest) cancelMigration(ctx context.Context) error {
	for asked := false; ; {
		m, err := g.migration(ctx)
		if err != nil {
			return fmt.Errorf("qemu: cancel the teleport: %w", err)
		}
		switch m.Status {
		case "cancelled", "failed", "completed", "none", "":
			return nil
		}
		if !asked {
			asked = true
			if err := g.qmp.Do(ctx, "migrate_cancel", nil, nil); err != nil {
				return fmt.Errorf("qemu: cancel the teleport: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("qemu: cancel the teleport: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Incoming implements hypervisor.Guest.
func (g *guest) Incoming(ctx context.Context) (io.ReadWriteCloser, error) {
	return g.takeIn(ctx, capEvents, capReturnPath, capLate)
}

func (g *guest) takeIn(ctx context.Context, caps ...string) (net.Conn, error) {
	if err := g.capabilities(ctx, caps...); err != nil {
		return nil, fmt.Errorf("qemu: prepare to take memory in: %w", err)
	}
	sub := g.qmp.Subscribe()
	path := memorySocket(g.cfg.Dir)
	if err := g.qmp.Do(ctx, "migrate-incoming", map[string]any{"uri": "unix:" + path}, nil); err != nil {
		sub.Close()
		return nil, fmt.Errorf("qemu: take memory in: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		sub.Close()
		return nil, fmt.Errorf("qemu: connect to the memory socket: %w", err)
	}
	g.mu.Lock()
	g.incoming = sub
	g.mu.Unlock()
	return conn, nil
}

// Loaded implements hypervisor.Guest.
func (g *guest) Loaded(ctx context.Context) error {
	g.mu.Lock()
	sub := g.incoming
	g.mu.Unlock()
	if sub == nil {
		return fmt.Errorf("%w: nothing is coming in", hypervisor.ErrTeleport)
	}
	if _, err := await(ctx, sub, "completed"); err != nil {
		if errors.Is(err, qmp.ErrClosed) {
			return fmt.Errorf("%w: QEMU ended: %s", hypervisor.ErrTeleport, lastWords(g.cfg.Dir))
		}
		return fmt.Errorf("qemu: load the memory: %w", err)
	}
	sub.Close()
	// "completed" comes a moment before the run state follows.
	for {
		s, err := g.State(ctx)
		if err != nil {
			return err
		}
		if s == hypervisor.StatePaused || s == hypervisor.StateIOError {
			return nil // as it stood where it came from: for a full disk, or a second copy, which is that device's trouble
		}
		if s != hypervisor.StateIncoming {
			return fmt.Errorf("%w: the loaded guest is %s, not paused", hypervisor.ErrTeleport, s)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// Save implements hypervisor.Guest.
func (g *guest) Save(ctx context.Context, w io.Writer) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("qemu: save the memory: %w", err)
		}
	}()
	if err := g.capabilities(ctx, capEvents); err != nil {
		return err
	}
	if err := g.qmp.Do(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": 0, "downtime-limit": 1}, nil); err != nil {
		return err
	}
	ours, theirs, err := socketPair(0)
	if err != nil {
		return err
	}
	defer ours.Close()
	err = g.qmp.DoFile(ctx, "getfd", map[string]any{"fdname": "memory"}, theirs)
	theirs.Close()
	if err != nil {
		return err
	}
	sub := g.qmp.Subscribe()
	defer sub.Close()
	if err := g.qmp.Do(ctx, "migrate", map[string]any{"uri": "fd:memory"}, nil); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { ours.Close() })
	defer stop()
	if _, err := io.Copy(w, ours); err != nil {
		cancelCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		ours.Close()
		return errors.Join(err, g.qmp.Do(cancelCtx, "migrate_cancel", nil, nil))
	}
	_, err = await(ctx, sub, "completed")
	return err
}

// Restore implements hypervisor.Guest.
func (g *guest) Restore(ctx context.Context, r io.Reader) error {
	conn, err := g.takeIn(ctx, capEvents)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.Copy(conn, r); err != nil {
		return fmt.Errorf("qemu: restore the memory: %w (%s)", err, lastWords(g.cfg.Dir))
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("qemu: restore the memory: %w", err)
	}
	return g.Loaded(ctx)
}
