//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"tagalong.org/tagalong/build/guest/records"
)

// The ring of a further disk, which has no file system: 4096 records in 8 parts of 2 MiB, one at the beginning of every 8 MiB.
const (
	furtherParts   = 8
	furtherPerPart = 512
	furtherEvery   = 8 << 20
	furtherSize    = (furtherParts-1)*furtherEvery + furtherPerPart*records.Size // that a disk needs at least, in bytes
)

// part is a stretch of a disk, from an offset on.
type part struct {
	*os.File
	at int64
}

func (p part) ReadAt(b []byte, off int64) (int, error)  { return p.File.ReadAt(b, p.at+off) }
func (p part) WriteAt(b []byte, off int64) (int, error) { return p.File.WriteAt(b, p.at+off) }

// disks are the witnesses of all disks: the first one's, and, once somebody has asked for it, those of all others. These are overwritten as whole
// disks, from their beginning on.
type disks struct {
	first *diskWitness
	out   *output
	dev   string // the folder of the devices
	ctx   context.Context
	// goes runs something that the program waits for.
	goes func(func() error)

	mu      sync.Mutex
	further []*diskWitness // guarded by mu
}

// begin opens all further disks, checks what an earlier start of the guest has left there, and writes them as the first is written. If they are open, it
// does nothing.
func (a *disks) begin() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.further) > 0 {
		return nil
	}
	names, err := filepath.Glob(filepath.Join(a.dev, "vd[b-z]"))
	if err != nil {
		return err
	}
	var opened []*diskWitness
	for _, name := range names {
		d, err := openFurther(name, a.out)
		if err != nil {
			for _, d := range opened {
				d.close()
			}
			return fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
		opened = append(opened, d)
	}
	rate, fsync, stopped := a.first.settings()
	for _, d := range opened {
		d.rate, d.fsync, d.stopped = rate, fsync, stopped
		a.goes(func() error { return d.serve(a.ctx) })
	}
	a.further = opened
	return nil
}

func openFurther(path string, out *output) (*diskWitness, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if size, err := f.Seek(0, io.SeekEnd); err != nil || size < furtherSize {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("it has %d bytes instead of %d", size, furtherSize))
	}
	var parts []records.File
	for i := range furtherParts {
		parts = append(parts, part{f, int64(i) * furtherEvery})
	}
	return newWitness(filepath.Base(path), []*os.File{f}, parts, furtherPerPart, out)
}

func (a *disks) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.further {
		d.close()
	}
}

// all are the disks that are written, the first one first.
func (a *disks) all() []*diskWitness {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*diskWitness{a.first}, a.further...)
}

// each asks all disks for the number of a record, and has the words that tell it: durable=12 vdb=34, of which the first is called by word.
func (a *disks) each(word string, ask func(*diskWitness) uint64) string {
	var b strings.Builder
	for i, d := range a.all() {
		name := d.name
		if i == 0 {
			name = word
		} else {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s=%d", name, ask(d))
	}
	return b.String()
}

// boot is what was found on the further disks when they were opened.
func (a *disks) boot() string {
	var b strings.Builder
	further, lost, bad := a.all()[1:], 0, 0
	for _, d := range further {
		lost, bad = lost+d.boot.Lost, bad+d.boot.Bad
		fmt.Fprintf(&b, " %s=%d", d.name, d.boot.Last)
	}
	return fmt.Sprintf("disks=%d lost=%d bad=%d%s", len(further), lost, bad, b.String())
}

// sync makes all durable and says so at once; the words are those of each.
func (a *disks) sync() string { return a.each("durable", (*diskWitness).sync) }

func (a *disks) setStopped(stopped bool) string {
	return a.each("durable", func(d *diskWitness) uint64 { return d.setStopped(stopped) })
}

func (a *disks) setRate(rate, fsync int) {
	for _, d := range a.all() {
		d.setRate(rate, fsync)
	}
}
