//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/build/guest/memory"
)

// What the memory witness does until it is told otherwise.
const (
	defaultMemRate = 1  // MiB dirtied a second
	defaultMemSet  = 32 // MiB of working set
)

// ram owns the working set and the goroutine that dirties it.
type ram struct {
	out *output

	mu    sync.Mutex
	mem   []byte
	set   *memory.Set
	rate  int // MiB a second
	size  int // MiB
	noise bool
	bad   int
	pages uint64 // dirtied so far
}

func newRAM(out *output, rate, size int) (*ram, error) {
	r := &ram{out: out}
	return r, r.resize(rate, size, false)
}

// resize sets rate and working set, in MiB; a new size starts a new set. noise fills what is dirtied with what can't be compressed.
func (r *ram) resize(rate, size int, noise bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate, r.noise = rate, noise
	if r.set != nil && size == r.size {
		r.set.Noise = noise
		return nil
	}
	mem, err := unix.Mmap(-1, 0, size<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map %d MiB: %w", size, err)
	}
	old := r.mem
	r.mem, r.size = mem, size
	r.set = memory.New(mem, uint64(time.Now().UnixNano()))
	r.set.Noise = noise
	if old != nil {
		if err := unix.Munmap(old); err != nil {
			return fmt.Errorf("unmap the old set: %w", err)
		}
	}
	return nil
}

func (r *ram) serve(ctx context.Context) error {
	last := time.Now()
	rest := 0.0
	for {
		if err := sleep(ctx, tickEvery); err != nil {
			return err
		}
		now := time.Now()
		r.step(now.Sub(last), &rest)
		last = now
	}
}

// step dirties what is due, at most a quarter second's worth, and checks twice
// as many pages.
func (r *ram) step(since time.Duration, rest *float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	perSecond := float64(r.rate) * (1 << 20) / memory.PageSize
	*rest = min(*rest+since.Seconds()*perSecond, perSecond/4)
	n := int(*rest)
	*rest -= float64(n)
	r.set.Dirty(n)
	r.pages += uint64(n)
	r.check(2 * n)
}

func (r *ram) check(n int) {
	for _, p := range r.set.Check(n) {
		r.bad++
		r.out.Printf("BAD memory page %d of %d", p, r.set.Pages())
	}
}

// verify checks all pages and returns how many there are and how many were ever
// found bad.
func (r *ram) verify() (pages, bad int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check(r.set.Pages())
	return r.set.Pages(), r.bad
}

func (r *ram) state() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("mem=%d set=%d dirtied=%d mem_bad=%d", r.rate, r.size, r.pages, r.bad)
}
