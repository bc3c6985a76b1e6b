package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p/discovery"
	"tagalong.org/tagalong/p2p/pairing"
)

// pairWindow is how long a code is good for.
const pairWindow = 2 * time.Minute

// pairingRun is a pairing window of this device, or how the last one ended.
type pairingRun struct {
	cancel context.CancelFunc

	// guarded by mu
	mu sync.Mutex
	p  api.Pairing
}

func (r *pairingRun) snapshot() api.Pairing {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.p
}

// PairStart implements api.Engine: it opens the door for one device that knows the code.
func (e *Engine) PairStart(ctx context.Context, req api.PairStart) (*api.Pairing, error) {
	window := pairWindow
	if req.Seconds > 0 {
		window = min(time.Duration(req.Seconds)*time.Second, pairWindow)
	}
	code, err := pairing.NewCode()
	if err != nil {
		return nil, fmt.Errorf("make a code: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":0")
	if err != nil {
		return nil, fmt.Errorf("open the pairing door: %w", err)
	}
	doorCtx, cancel := context.WithTimeout(e.ctx, window)
	port := l.Addr().(*net.TCPAddr).Port
	run := &pairingRun{cancel: cancel, p: api.Pairing{Code: code, Expires: time.Now().Add(window), Addrs: e.host.Doors(port)}}
	e.mu.Lock()
	old := e.pairing
	e.pairing = run
	e.mu.Unlock()
	if old != nil {
		old.cancel()
	}
	e.host.SetPairPort(port)
	e.spawn(func() {
		defer cancel()
		result, err := pairing.Offer(doorCtx, l, code, e.identity(), e.pairOptions())
		e.mu.Lock()
		if e.pairing == run {
			e.host.SetPairPort(0)
		}
		e.mu.Unlock()
		e.endPairing(run, result, explainPairing(err))
	})
	p := run.snapshot()
	return &p, nil
}

// PairJoin implements api.Engine: it enters the code that another device shows.
func (e *Engine) PairJoin(ctx context.Context, req api.PairJoin) (*api.Pairing, error) {
	addrs, err := e.doors(ctx, req.Addr)
	if err != nil {
		return nil, err
	}
	var last error
	for _, addr := range addrs {
		result, err := pairing.Join(ctx, addr, req.Code, e.identity(), e.pairOptions())
		if err != nil {
			last = err
			if errors.Is(err, pairing.ErrWrongCode) {
				// Each wrong guess costs one of the other's three tries: don't spend them on the
				// same device's other addresses.
				break
			}
			continue
		}
		run := &pairingRun{cancel: func() {}}
		e.endPairing(run, result, nil)
		p := run.snapshot()
		return &p, nil
	}
	return nil, explainPairing(last)
}

// doors are the addresses at which a device waits to be paired.
func (e *Engine) doors(ctx context.Context, addr string) ([]string, error) {
	if addr != "" {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%q isn't an address.", addr), Next: "Give host and port as the other device shows them beside the code, for instance 192.168.1.20:40123."}
		}
		return []string{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	found, err := e.host.FindPairing(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, discovery.ErrNothingFound) {
		return nil, fmt.Errorf("look for devices: %w", err)
	}
	var out []string
	for _, f := range found {
		for _, a := range f.Addrs {
			out = append(out, a.String())
		}
	}
	if len(out) == 0 {
		return nil, &api.Error{Code: api.CodeUnreachable, Sentence: "No device on this network waits to be paired.",
			Next: "Show a code on the other device (tagalong pair), and if it does, give the address that it shows too: tagalong pair CODE --addr HOST:PORT"}
	}
	return out, nil
}

func (e *Engine) identity() pairing.Identity {
	return pairing.Identity{ID: e.host.ID(), Name: e.name, Addrs: e.host.Addrs()}
}

func (e *Engine) pairOptions() pairing.Options {
	return pairing.Options{
		Sign: e.host.Sign, Log: e.log.With("part", "pairing"),
		Store: func(r pairing.Result) error { return e.admit(r.Peer) },
	}
}

// admit lets a device into the fleet. All members hear of it; their devices and this one's VMs reach it by themselves.
func (e *Engine) admit(p pairing.Identity) error {
	if err := e.dir.AddMember(directory.Member{ID: p.ID, Name: p.Name, Addrs: p.Addrs, PairedAt: time.Now()}); err != nil {
		return fmt.Errorf("remember the device: %w", err)
	}
	e.followMembers()
	return nil
}

func (e *Engine) endPairing(run *pairingRun, result pairing.Result, err error) {
	run.mu.Lock()
	run.p.Done = true
	if err != nil {
		run.p.Error = api.AsError(err)
	} else {
		run.p.Peer = &api.Device{ID: result.Peer.ID, Name: result.Peer.Name, Addrs: result.Peer.Addrs}
		run.p.Words = result.Words
	}
	p := run.p
	run.mu.Unlock()
	if err != nil {
		e.hub.publish(api.Event{Kind: "pairing.failed", Text: p.Error.Error()})
		return
	}
	e.log.Info("Device paired", "device", p.Peer.ID, "name", p.Peer.Name)
	e.hub.publish(api.Event{Kind: "pairing.done", Device: p.Peer.ID, Text: p.Peer.Name + " is paired."})
}

func explainPairing(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pairing.ErrWrongCode):
		return &api.Error{Code: api.CodeRefused, Sentence: "That isn't the code that the other device shows.", Next: "Look again; it takes three tries.", Cause: err.Error()}
	case errors.Is(err, pairing.ErrTooManyTries):
		return &api.Error{Code: api.CodeRefused, Sentence: "The code was entered wrongly too often.", Next: "Ask for a new one: tagalong pair", Cause: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Error{Code: api.CodeCancelled, Sentence: "The code wasn't entered in time.", Next: "Ask for a new one: tagalong pair"}
	case errors.Is(err, context.Canceled):
		return &api.Error{Code: api.CodeCancelled, Sentence: "Pairing was cancelled."}
	default:
		return &api.Error{Code: api.CodeUnreachable, Sentence: "Pairing failed.", Next: "Try again with a new code.", Cause: err.Error()}
	}
}

// PairCancel implements api.Engine.
func (e *Engine) PairCancel(context.Context) error {
	e.mu.Lock()
	run := e.pairing
	e.mu.Unlock()
	if run != nil {
		run.cancel()
	}
	return nil
}
