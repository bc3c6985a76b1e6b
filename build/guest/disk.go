//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/build/guest/records"
)

// The ring: 8 files of 4 MiB, 8192 records.
const (
	ringFiles   = 8
	ringPerFile = 1024
)

// What the writer does until it is told otherwise.
const (
	defaultRecords = 20 // a second
	defaultFsync   = 8  // records between two
)

// reportEvery keeps R lines to ten a second.
const reportEvery = 100 * time.Millisecond

// diskWitness owns the ring of a disk and the goroutine that writes it.
type diskWitness struct {
	out  *output
	name string // of the disk; empty for the first
	boot records.Report
	run  uint64

	files []*os.File // to be closed

	mu       sync.Mutex
	ring     *records.Ring
	rate     int // records a second
	fsync    int // records between two syncs
	stopped  bool
	since    int // records since the last sync
	maxWrite time.Duration
	maxSync  time.Duration
	errs     int
	reported time.Time
}

func openDisk(dir string, out *output) (*diskWitness, error) {
	var files []*os.File
	var ring []records.File
	for i := range ringFiles {
		f, err := openPreallocated(filepath.Join(dir, fmt.Sprintf("ring.%d", i)), ringPerFile*records.Size)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files, ring = append(files, f), append(ring, f)
	}
	return newWitness("", files, ring, ringPerFile, out)
}

// newWitness goes on with a ring of perFile records a part, which is in files. They are closed with it, also if there is an error.
func newWitness(name string, files []*os.File, parts []records.File, perFile int, out *output) (*diskWitness, error) {
	d := &diskWitness{out: out, name: name, files: files, run: uint64(time.Now().UnixMicro()), rate: defaultRecords, fsync: defaultFsync}
	ring, err := records.Open(parts, perFile, d.run)
	if err == nil {
		d.ring = ring
		d.boot, err = ring.Recover()
	}
	if err != nil {
		d.close()
		return nil, err
	}
	if !d.boot.OK() {
		out.Printf("BAD%s at boot: %s", d.label(), d.boot.First)
	}
	return d, nil
}

// label names a further disk in a line.
func (d *diskWitness) label() string {
	if d.name == "" {
		return ""
	}
	return " " + d.name
}

// openPreallocated opens a file and gives it all the space it will need, so
// that only the disk below can run full, not the file system.
func openPreallocated(path string, size int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		f.Close()
		return nil, fmt.Errorf("preallocate %s: %w", path, err)
	}
	return f, nil
}

func (d *diskWitness) close() { closeAll(d.files) }

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (d *diskWitness) bootLine() string {
	return fmt.Sprintf("BOOT n=%d last=%d durable=%d lost=%d bad=%d run=%x",
		d.boot.Records, d.boot.Last, d.boot.Durable, d.boot.Lost, d.boot.Bad, d.run)
}

// serve writes at the set rate; what it missed while the disk stood still it
// does not make up for beyond a second's worth.
func (d *diskWitness) serve(ctx context.Context) error {
	last := time.Now()
	rest := 0.0 // the part of a record that is due
	for {
		now := time.Now()
		n := d.due(now.Sub(last), &rest)
		last = now
		for range n {
			d.append()
		}
		if err := sleep(ctx, tickEvery); err != nil {
			return err
		}
	}
}

// due is how many records the time since the last call asks for; rest carries
// the fraction over.
func (d *diskWitness) due(since time.Duration, rest *float64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		*rest = 0
		return 0
	}
	*rest = min(*rest+since.Seconds()*float64(d.rate), float64(d.rate))
	n := int(*rest)
	*rest -= float64(n)
	return n
}

func (d *diskWitness) append() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return
	}
	t := time.Now()
	if _, err := d.ring.Append(t.UnixMicro()); err != nil {
		d.fail(err)
		return
	}
	d.maxWrite = max(d.maxWrite, time.Since(t))
	if d.since++; d.since >= d.fsync {
		d.syncLocked()
	}
}

func (d *diskWitness) syncLocked() {
	d.since = 0
	t := time.Now()
	durable, err := d.ring.Sync()
	if err != nil {
		d.fail(err)
		return
	}
	now := time.Now()
	d.maxSync = max(d.maxSync, now.Sub(t))
	if d.name == "" && now.Sub(d.reported) >= reportEvery {
		d.reported = now
		d.out.Printf("R %d %d", d.ring.Last(), durable)
	}
}

// fail stops the writer: after a failed fsync nothing is known about what the
// kernel still holds, and more writes would only bury the finding.
func (d *diskWitness) fail(err error) {
	d.errs++
	d.stopped = true
	d.out.Printf("BAD disk%s: %v", d.label(), err)
}

// sync makes all durable and says so at once.
func (d *diskWitness) sync() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reported = time.Time{}
	d.syncLocked()
	return d.ring.Durable()
}

func (d *diskWitness) setStopped(stopped bool) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = stopped
	if stopped {
		d.reported = time.Time{}
		d.syncLocked()
	}
	return d.ring.Durable()
}

func (d *diskWitness) settings() (rate, fsync int, stopped bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rate, d.fsync, d.stopped
}

func (d *diskWitness) setRate(rate, fsync int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rate, d.fsync = rate, fsync
}

// verify reads all records from the disk, past the page cache; the writer waits.
func (d *diskWitness) verify() (records.Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.since = 0
	rep, err := d.ring.Verify(dropCaches)
	rep.Lost += d.boot.Lost
	rep.Bad += d.boot.Bad + d.errs
	if rep.First == "" {
		rep.First = d.boot.First
	}
	return rep, err
}

func (d *diskWitness) state() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprintf("run=%x last=%d durable=%d stopped=%t recs=%d fsync=%d maxwrite_us=%d maxfsync_us=%d errors=%d",
		d.run, d.ring.Last(), d.ring.Durable(), d.stopped, d.rate, d.fsync,
		d.maxWrite.Microseconds(), d.maxSync.Microseconds(), d.errs)
}

// dropCaches makes the kernel forget clean pages, so that reads reach the disk.
func dropCaches() error {
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
}

// fsErrors is how many errors the file systems of the disk have seen.
func fsErrors() (int, error) {
	names, err := filepath.Glob("/sys/fs/ext4/*/errors_count")
	if err != nil {
		return 0, err
	}
	if len(names) == 0 {
		return 0, errors.New("no ext4 file system is mounted")
	}
	total := 0
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", name, err)
		}
		total += n
	}
	return total, nil
}
