package app

import (
	"context"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
)

const (
	// keptEvents is how many events a late watcher can still read.
	keptEvents = 512
	// watcherBacklog bounds what is kept for one watcher; one that falls behind is cut off and
	// reads a fresh snapshot.
	watcherBacklog = 256
)

// hub numbers events and hands them to watchers. The zero value is ready; it is safe for concurrent use.
type hub struct {
	// guarded by mu
	mu       sync.Mutex
	seq      uint64
	kept     []api.Event
	watchers map[chan api.Event]struct{}
}

// publish numbers the event, keeps it and wakes the watchers. It never blocks.
func (h *hub) publish(e api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	e.Seq = h.seq
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	h.kept = append(h.kept, e)
	if len(h.kept) > keptEvents {
		h.kept = append(h.kept[:0:0], h.kept[len(h.kept)-keptEvents:]...)
	}
	for w := range h.watchers {
		select {
		case w <- e:
		default:
			delete(h.watchers, w)
			close(w)
		}
	}
}

func (h *hub) last() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seq
}

// watch returns the events after seq, as far as they are kept, and then those to come.
// The channel closes when ctx ends or the watcher is too slow.
func (h *hub) watch(ctx context.Context, after uint64) <-chan api.Event {
	w := make(chan api.Event, keptEvents+watcherBacklog)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.kept {
		if e.Seq > after {
			w <- e
		}
	}
	if h.watchers == nil {
		h.watchers = map[chan api.Event]struct{}{}
	}
	h.watchers[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, there := h.watchers[w]; there {
			delete(h.watchers, w)
			close(w)
		}
	})
	return w
}
