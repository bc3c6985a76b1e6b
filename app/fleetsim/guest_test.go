package fleetsim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	sector     = 512
	windowSize = 16 * vmdisk.Block
	diskSize   = 4<<20 + 16*vmdisk.Block
	perWindow  = windowSize / sector
	sectors    = int(len(windows)) * perWindow
	mostSize   = 7 << 20 // that it may grow to
)

// windows are the parts of the disk that guests write: its beginning, its end with a boundary of the activity log between, and what comes behind that when
// it has grown. What is beyond a disk's end is zeros.
var windows = [3]int64{0, diskSize - windowSize - 4*vmdisk.Block, diskSize}

// content is the number of the write that each sector of the windows is from; 0 is zeros.
type content [sectors]uint32

// offset is where a sector is on the disk, in bytes.
func offset(i int) int64 { return windows[i/perWindow] + int64(i%perWindow)*sector }

// differ says where two contents differ first.
func (c *content) differ(other *content) string {
	n, first := 0, -1
	for i := range c {
		if c[i] != other[i] {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n == 0 {
		return "equal"
	}
	return fmt.Sprintf("sector %d (block %d) is %d, not %d; %d sectors differ", first, offset(first)/vmdisk.Block, c[first], other[first], n)
}

// fill makes the bytes of a sector that write n has written: they name the write and the place.
func fill(p []byte, i int, n uint32) {
	if n == 0 {
		clear(p)
		return
	}
	le := binary.LittleEndian
	for at := 0; at < len(p); at += 16 {
		le.PutUint32(p[at:], n)
		le.PutUint32(p[at+4:], uint32(i))
		le.PutUint64(p[at+8:], ^uint64(n))
	}
}

// windowBuffers are for read, which is most of what lives allocate.
var windowBuffers = sync.Pool{New: func() any { return new([windowSize]byte) }}

// read reads a disk's windows. A sector that isn't whole, or in its place, is an error.
func read(r vmdisk.Reader) (*content, error) {
	c, window := &content{}, windowBuffers.Get().(*[windowSize]byte)
	defer windowBuffers.Put(window)
	buf := window[:]
	le := binary.LittleEndian
	for w, at := range windows {
		if at >= r.Size() {
			continue
		}
		if err := r.ReadAt(buf, at); err != nil {
			return nil, err
		}
		for i := range perWindow {
			p, here := buf[i*sector:(i+1)*sector], w*perWindow+i
			n := le.Uint32(p)
			last := p[sector-16:]
			switch {
			case n != le.Uint32(last), n != 0 && (le.Uint32(p[4:]) != uint32(here) || le.Uint64(last[8:]) != ^uint64(n)):
				return nil, fmt.Errorf("sector %d (block %d) holds % x … % x", here, offset(here)/vmdisk.Block, p[:16], last)
			}
			c[here] = n
		}
	}
	return c, nil
}

type guestKind string

const (
	running  guestKind = "running"
	standing guestKind = "standing" // stopped by a hand-off, its memory is whole
	incoming guestKind = "incoming" // a hypervisor that waits for memory
	loaded   guestKind = "loaded"   // has it, and never ran here
)

// guest is a hypervisor's process with what the guest in it remembers. It outlives the engine, not the host.
type guest struct {
	kind    guestKind
	attempt string // incoming, loaded
	// view is what the guest knows to have written: what it would read.
	view content
	term uint64 // under which it last ran
	// ram is its memory, as versions of pages. stood is, of one that came by a teleport, what it was when it was stopped.
	ram, stood ram
	// in is what takes its memory in; nil but in one that is, or was, incoming.
	in *inbound
	// flight is the request that was not answered: the hypervisor sends it again.
	flight *request
	// flushing is a flush that waits for a second copy; the guest does nothing else meanwhile.
	flushing *flushing
}

// sees says whether a disk is what the guest knows to have written. What was not answered may be there or not. The volume of saved memory is the engine's:
// no guest reads that.
func (g *guest) sees(c *content) bool {
	for i := range headerAt {
		if c[i] != g.view[i] && (g.flight == nil || i < g.flight.from || i >= g.flight.to) {
			return false
		}
	}
	return true
}

// request is one of the guest's, of whole sectors.
type request struct {
	from, to int
	number   uint32 // 0: zeros
	trim     bool
	fua      bool
}

// newRequest is what the guest of d might write next.
func (w *world) newRequest(d *device) *request {
	r, sectors := &request{}, sectors
	if d.e.disk.Size() == diskSize {
		sectors -= perWindow
	}
	if w.rng.IntN(2) == 0 {
		// An even number: half of a write may be stored when the power fails, and that is whole sectors then.
		r.from = w.rng.IntN(sectors/2) * 2
		r.to = r.from + 2*(1+w.rng.IntN(6))
	} else { // whole blocks
		r.from = w.rng.IntN(sectors/8) * 8
		r.to = r.from + 8*(1+w.rng.IntN(6))
	}
	if r.from >= headerAt {
		r.from, r.to = 0, r.to-r.from
	}
	r.to = min(r.to, (r.from/perWindow+1)*perWindow, headerAt)
	r.fua = w.rng.IntN(10) == 0
	if k := w.rng.IntN(12); k < 2 {
		r.trim = k == 0
	} else {
		r.number = uint32(len(w.truth.writes))
		w.truth.writes = append(w.truth.writes, write{})
	}
	return r
}

// guestWrites lets the guest of d write, or send again what was not answered.
func (w *world) guestWrites(d *device, r *request) {
	g, disk := d.guest, d.e.disk
	if g.flight != nil {
		r = g.flight
	}
	for d.stuck(r) {
		if !d.e.hydrate() {
			g.flight = r // it waits for somebody who has that
			return
		}
	}
	info := disk.Info()
	if r.number != 0 {
		w.truth.writes[r.number] = write{d.id, info.Term}
	}
	w.isUncertain(d)
	w.note("%s's guest writes %d to sectors %d–%d, fua=%v", d.id, r.number, r.from, r.to, r.fua)
	for i := r.from; i < r.to; i++ {
		d.maybe[i] = append(d.maybe[i], r.number)
	}
	g.flight = r
	call := w.linear.now()
	if err := d.put(r); err != nil {
		w.note("…which fails: %v", err)
		if !d.excused(err) {
			w.fail("%s's guest can't write under term %d: %v", d.id, info.Term, err)
		}
		w.partly(d, r)
		return
	}
	g.flight = nil
	g.ram[r.from%guestPages]++
	for i := r.from; i < r.to; i++ {
		g.view[i], d.now[i] = r.number, r.number
	}
	w.acts.writes++
	w.wrote(d, info.Term)
	w.linear.wrote(call, d.id, info.Term)
	if r.fua {
		w.flushed(d)
	}
	w.look(d)
}

// partly finds out how much of a write is there for which the drive had no room.
func (w *world) partly(d *device, r *request) {
	if d.burnt() || w.err != nil {
		return
	}
	c, err := d.read()
	if err != nil {
		w.trouble(d, "read", err)
		return
	}
	for i := r.from; i < r.to; i++ {
		if c[i] != d.now[i] && c[i] != r.number {
			w.fail("%s's guest couldn't write %d to sector %d, which was %d and is %d", d.id, r.number, i, d.now[i], c[i])
		}
		d.now[i] = c[i]
	}
}

func (d *device) put(r *request) error {
	off, n := offset(r.from), int64(r.to-r.from)*sector
	if off+n > d.e.disk.Size() {
		// The guest came from where the disk had grown, and wasn't answered there. Its table says how large the disk is.
		if err := d.e.disk.Reach((off + n + vmdisk.GrowUnit - 1) / vmdisk.GrowUnit * vmdisk.GrowUnit); err != nil {
			return err
		}
	}
	if r.number == 0 {
		return d.e.disk.Zero(off, n, r.trim, r.fua)
	}
	p := make([]byte, n)
	for i := r.from; i < r.to; i++ {
		fill(p[(i-r.from)*sector:(i-r.from+1)*sector], i, r.number)
	}
	return d.e.disk.WriteAt(p, off, r.fua)
}

// excused says that an injected fault explains the error.
func (d *device) excused(err error) bool {
	if d.w.fills && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, directory.ErrNoSpace)) {
		return true
	}
	return d.burnt() && (errors.Is(err, vfs.ErrGone) || errors.Is(err, vmdisk.ErrFailed) || errors.Is(err, errPower))
}

// wrote checks that a write that has succeeded was allowed.
func (w *world) wrote(d *device, term uint64) {
	t, ok := w.truth.transfers[term]
	switch {
	case !ok || t.To != d.id:
		w.fail("%s writes under term %d, which is %q's", d.id, term, t.To)
	case term <= w.truth.gave[d.id]:
		w.fail("%s writes under term %d, and has given term %d away", d.id, term, w.truth.gave[d.id])
	case w.truth.active[term] != d.id:
		w.fail("%s writes under term %d, which %s was active under", d.id, term, w.truth.active[term])
	}
}

// guestFlushes lets the guest of d flush; when it is told that this worked, what it wrote before must survive.
func (w *world) guestFlushes(d *device) {
	if d.guest.flight != nil {
		w.guestWrites(d, nil)
		return
	}
	if w.two {
		w.flushTwice(d)
		return
	}
	if err := d.e.disk.Flush(); err != nil {
		w.note("%s's guest flushes: %v", d.id, err)
		if !d.excused(err) {
			w.fail("%s's guest can't flush: %v", d.id, err)
		}
		return
	}
	w.note("%s's guest has flushed", d.id)
	w.flushed(d)
	w.look(d)
	w.truth.promise(d.id, d.e.disk.Position())
}

// flushed notes that all that was written is durable.
func (w *world) flushed(d *device) {
	d.durable = d.now
	clear(d.maybe[:])
	w.acts.flushes++
}
