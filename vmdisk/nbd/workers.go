package nbd

import "sync"

// workers runs a connection's requests, at most max at a time. The queue is bounded by the
// connection's budget. Goroutines start when there is work for them and stay until stop.
type workers struct {
	max int

	mu         sync.Mutex
	wake       sync.Cond
	head, tail *request
	queued     int
	idle, all  int
	stopped    bool
	running    sync.WaitGroup
}

func newWorkers(limit int) *workers {
	w := &workers{max: limit}
	w.wake.L = &w.mu
	return w
}

// submit queues r. It never blocks on the work itself.
func (w *workers) submit(r *request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tail != nil {
		w.tail.queue = r
	} else {
		w.head = r
	}
	w.tail = r
	w.queued++
	if w.queued > w.idle && w.all < w.max {
		w.all++
		w.running.Go(w.work)
		return
	}
	w.wake.Signal()
}

func (w *workers) work() {
	for {
		w.mu.Lock()
		for w.head == nil {
			if w.stopped {
				w.mu.Unlock()
				return
			}
			w.idle++
			w.wake.Wait()
			w.idle--
		}
		r := w.head
		w.head = r.queue
		if w.head == nil {
			w.tail = nil
		}
		r.queue = nil
		w.queued--
		w.mu.Unlock()
		out := &r.conn.out
		r.run()
		out.flush(nil)
	}
}

// stop ends the goroutines once the queue is empty, and waits for them.
func (w *workers) stop() {
	w.mu.Lock()
	w.stopped = true
	w.wake.Broadcast()
	w.mu.Unlock()
	w.running.Wait()
}
