package viewer

import (
	"context"
	"time"

	"tagalong.org/tagalong/app/api"
)

// Engine is what a session needs of the engine. *api.Client has it.
type Engine interface {
	Status(ctx context.Context) (*api.Status, error)
	Watch(ctx context.Context, after uint64) (<-chan api.Event, error)
	OpenScreen(ctx context.Context, vm string) (*api.Screen, error)
}

// End says why a session ended.
type End string

// The ends of a session.
const (
	EndClosed  End = "closed"  // the person closed the window, or whoever asked for it had enough
	EndLeft    End = "left"    // the VM went to another device
	EndStopped End = "stopped" // the VM was shut down or suspended
)

// Session shows one VM's screen.
type Session struct {
	Engine Engine
	VM     string // its ID
	// show is the viewer; nil is remote-viewer.
	show func(ctx context.Context, screen api.Screen, title string) error
}

// lookEvery is how often is looked for the VM while nothing is heard of it.
const lookEvery = 5 * time.Second

// Run opens the screen and returns when the person closes the window, the VM leaves this device or stops, or ctx ends. The error is an
// *api.Error where the person can do something about it.
func (s Session) Run(ctx context.Context) (End, error) {
	st, err := s.Engine.Status(ctx)
	if err != nil {
		return EndClosed, err
	}
	title := s.VM
	if vm := find(st, s.VM); vm != nil {
		title = vm.Name
	}
	screen, err := s.Engine.OpenScreen(ctx, s.VM)
	if err != nil {
		return EndClosed, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shown := make(chan error, 1)
	run := s.show
	if run == nil {
		run = show
	}
	go func() { shown <- run(ctx, *screen, title) }()
	gone := make(chan End, 1)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if end, is := s.follow(ctx, st.Seq); is {
			gone <- end
		}
	}()
	defer func() { cancel(); <-watched }()
	select {
	case err := <-shown:
		// A viewer whose connection ended because the VM left ends by itself, maybe before that is heard of.
		if st, statusErr := s.Engine.Status(ctx); err == nil && statusErr == nil {
			if end, is := ended(find(st, s.VM)); is {
				return end, nil
			}
		}
		return EndClosed, err
	case end := <-gone:
		cancel()
		<-shown
		return end, nil
	}
}

// follow returns when the VM can't be seen on this device any more; false when ctx ended.
func (s Session) follow(ctx context.Context, after uint64) (End, bool) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var events <-chan api.Event
	for {
		if events == nil {
			// An engine that restarts leaves the VM running and its screen open.
			events, _ = s.Engine.Watch(ctx, after)
		}
		select {
		case <-ctx.Done():
			return "", false
		case ev, ok := <-events:
			if !ok {
				events = nil
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
				continue
			}
			after = ev.Seq
			if ev.VM != s.VM {
				continue
			}
		case <-tick.C:
		}
		st, err := s.Engine.Status(ctx)
		if err != nil {
			continue
		}
		if end, is := ended(find(st, s.VM)); is {
			return end, true
		}
	}
}

// ended says whether there is nothing to see of the VM here any more.
func ended(vm *api.VM) (End, bool) {
	switch {
	case vm == nil:
		return EndStopped, true
	case vm.State == api.VMSwitching:
		return "", false // it may stay
	case !vm.Here:
		return EndLeft, true
	case vm.State == api.VMStopped, vm.State == api.VMSuspended:
		return EndStopped, true
	}
	return "", false
}

func find(st *api.Status, id string) *api.VM {
	for i := range st.VMs {
		if st.VMs[i].ID == id {
			return &st.VMs[i]
		}
	}
	return nil
}
