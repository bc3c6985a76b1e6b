// Package apitest is an engine without VMs, for the tests of everything that talks to one.
//
// It guarantees the contract of api.Engine's Status and Watch: complete snapshots, events in
// order, a watcher that lags is cut off. The other methods record that they were called and do
// the least that a face can see. It keeps no promise of a real engine beyond that.
//
// It is tested through the tests of package api, which run it behind a real socket.
package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
)

// keptEvents is how many events a late watcher can still get.
const keptEvents = 1024

// Engine is the fake. Make one with New; safe for concurrent use.
type Engine struct {
	// fixed after New
	called chan struct{} // holds one wake-up for AwaitCall

	// guarded by mu
	mu       sync.Mutex
	status   api.Status
	takeover *api.Takeover
	// preflight is what CheckSwitch finds.
	preflight api.Preflight
	history   map[string][]api.HistoryEntry
	fail      map[string]error
	hooks     map[string]func(context.Context)
	calls     []string
	events    []api.Event
	watchers  map[chan api.Event]struct{}
	shutdown  chan struct{}
}

var _ api.Engine = (*Engine)(nil)

// New makes an engine that is in the given state.
func New(status api.Status) *Engine {
	status.API = api.Version
	return &Engine{
		called:   make(chan struct{}, 1),
		status:   status,
		history:  map[string][]api.HistoryEntry{},
		fail:     map[string]error{},
		hooks:    map[string]func(context.Context){},
		watchers: map[chan api.Event]struct{}{},
		shutdown: make(chan struct{}),
	}
}

// Update changes the state and emits an event of the given kind and text about it.
func (e *Engine) Update(kind, text string, change func(*api.Status)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if change != nil {
		change(&e.status)
	}
	e.emitLocked(api.Event{Kind: kind, Text: text})
}

// Emit sends an event; its Seq and Time are set here.
func (e *Engine) Emit(ev api.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emitLocked(ev)
}

func (e *Engine) emitLocked(ev api.Event) {
	e.status.Seq++
	ev.Seq, ev.Time = e.status.Seq, time.Now()
	e.events = append(e.events, ev)
	if len(e.events) > keptEvents {
		e.events = slices.Clone(e.events[1:])
	}
	for w := range e.watchers {
		select {
		case w <- ev:
		default:
			delete(e.watchers, w)
			close(w)
		}
	}
}

// Fail makes every later call of method ("Switch", "StartVM") return err; nil heals it.
func (e *Engine) Fail(method string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail[method] = err
}

// Hook runs f, outside all locks, in every later call of method before it does its work.
func (e *Engine) Hook(method string, f func(context.Context)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hooks[method] = f
}

// SetHistory is what History of the VM with this ID will return.
func (e *Engine) SetHistory(vm string, entries []api.HistoryEntry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.history[vm] = entries
}

// Calls lists the calls that have ended so far and weren't Status or Watch, each with its arguments.
func (e *Engine) Calls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.calls)
}

// AwaitCall waits until a call has ended that reads exactly like this one. One waiter at a time.
func (e *Engine) AwaitCall(ctx context.Context, call string) error {
	for !slices.Contains(e.Calls(), call) {
		select {
		case <-e.called:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, have %q: %w", call, e.Calls(), ctx.Err())
		}
	}
	return nil
}

// ShutdownAsked closes when Shutdown was called.
func (e *Engine) ShutdownAsked() <-chan struct{} { return e.shutdown }

// enter begins a call and says whether it shall fail. The method defers done first of all, so that
// it runs last: it records the call when what the call changes can be seen, because a test that saw
// a call goes on from there.
func (e *Engine) enter(ctx context.Context, method string, args ...any) (done func(), err error) {
	e.mu.Lock()
	hook, err := e.hooks[method], e.fail[method]
	e.mu.Unlock()
	if hook != nil {
		hook(ctx)
	}
	if method == "Status" || method == "Watch" {
		return func() {}, err
	}
	call := method
	for _, a := range args {
		text, _ := json.Marshal(a)
		call += " " + string(text)
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.calls = append(e.calls, call)
		select {
		case e.called <- struct{}{}:
		default:
		}
	}, err
}

// Status implements api.Engine.
func (e *Engine) Status(ctx context.Context) (*api.Status, error) {
	done, err := e.enter(ctx, "Status")
	defer done()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.copyLocked()
}

// copyLocked is a snapshot that shares nothing with the state.
func (e *Engine) copyLocked() (*api.Status, error) {
	data, err := json.Marshal(e.status)
	if err != nil {
		return nil, fmt.Errorf("copy status: %w", err)
	}
	var out api.Status
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("copy status: %w", err)
	}
	return &out, nil
}

// Watch implements api.Engine.
func (e *Engine) Watch(ctx context.Context, after uint64) (<-chan api.Event, error) {
	done, err := e.enter(ctx, "Watch", after)
	defer done()
	if err != nil {
		return nil, err
	}
	w := make(chan api.Event, 2*keptEvents)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.events {
		if ev.Seq > after {
			w <- ev
		}
	}
	e.watchers[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if _, there := e.watchers[w]; there {
			delete(e.watchers, w)
			close(w)
		}
	})
	return w, nil
}

// Watchers is how many watches are open.
func (e *Engine) Watchers() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.watchers)
}
