package main

import (
	"sync"
	"time"

	"tagalong.org/tagalong/vmdisk"
)

// waits is for how long somebody waited, one or several at once. Safe for concurrent use.
type waits struct {
	mu    sync.Mutex
	now   int
	since time.Time // the first of those who wait now
	sum   time.Duration
}

func (w *waits) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now++; w.now == 1 {
		w.since = time.Now()
	}
}

func (w *waits) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now--; w.now == 0 {
		w.sum += time.Since(w.since)
	}
}

// take is how long that was since it was asked the last time, of waits that have ended.
func (w *waits) take() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := w.sum
	w.sum = 0
	return sum
}

// watched is a disk that says how long reads of what is stale took.
type watched struct {
	*vmdisk.Store
	waits *waits
}

// ReadAt implements vmdisk.Disk.
func (d watched) ReadAt(p []byte, off int64) error {
	if d.Stale(off, int64(len(p))) {
		d.waits.begin()
		defer d.waits.end()
	}
	return d.Store.ReadAt(p, off)
}
