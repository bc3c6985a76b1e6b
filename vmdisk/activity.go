package vmdisk

import (
	"slices"
	"sync"
	"sync/atomic"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// regionSize is the grain of the activity log, in bytes (the thesis, §4.1).
const regionSize = 4 << 20

// activity is the log of the regions that may have been written since the dirty sets were stored. A
// region is logged durably before its first write. Safe for concurrent use. A write into a region that is logged takes no lock.
type activity struct {
	j     *journal
	pages []atomic.Pointer[regionPage] // of those that were ever logged
	era   atomic.Uint64                // how often forget emptied it

	mu      sync.Mutex
	n       int               // regions that are logged
	pending map[uint32]uint64 // logged, perhaps not durably: the journal's record
	sealed  bool              // nothing may be logged: the disk is what the journal says, and nobody may write
}

const pageRegions = 1024

type regionPage [pageRegions]region

// region is the state of one region. Without activity.mu only this changes: a pin is taken away, or added together with
// touched while the region is durable.
type region struct{ atomic.Uint32 }

const (
	regionLogged  = 1 << 0
	regionDurable = 1 << 1 // it is logged, durably
	regionTouched = 1 << 2 // since the last mark
	regionPin     = 1 << 3 // one write under way; the rest of the number counts them
)

func newActivity(j *journal, size int64, logged map[uint32]struct{}) *activity {
	regions := regionsOf(size)
	a := &activity{
		j: j, pages: make([]atomic.Pointer[regionPage], (maxRegions+pageRegions-1)/pageRegions), // the disk may grow
		pending: make(map[uint32]uint64),
	}
	for i := range logged {
		if int64(i) < regions {
			a.region(i).Store(regionLogged | regionDurable)
			a.n++
		}
	}
	return a
}

// region is the state of region i. The caller holds mu, or knows that its page is there.
func (a *activity) region(i uint32) *region {
	p := a.pages[i/pageRegions].Load()
	if p == nil {
		p = new(regionPage)
		a.pages[i/pageRegions].Store(p)
	}
	return &p[i%pageRegions]
}

// span is the range of regions that n > 0 bytes at off touch: [first, last].
func span(off, n int64) (first, last uint32) {
	return uint32(off / regionSize), uint32((off + n - 1) / regionSize)
}

// enter logs the regions of a write durably, and holds them until leave.
func (a *activity) enter(off, n int64) error {
	first, last := span(off, n)
	for i := first; i <= last; i++ {
		if p := a.pages[i/pageRegions].Load(); p == nil || !p[i%pageRegions].pin() {
			if err := a.log(i, last); err != nil {
				a.unpin(first, i)
				return err
			}
			break
		}
	}
	return nil
}

// pin notes a write under way if the region is logged durably.
func (r *region) pin() bool {
	for {
		old := r.Load()
		if old&regionDurable == 0 {
			return false
		}
		if r.CompareAndSwap(old, (old|regionTouched)+regionPin) {
			return true
		}
	}
}

// log is enter for the regions [first, last], of which some aren't logged durably.
func (a *activity) log(first, last uint32) error {
	need, err := a.append(first, last)
	if err != nil {
		return err
	}
	if need > 0 && !a.j.durableTo(need) {
		if err := a.j.syncTo(need); err != nil {
			a.unpin(first, last+1)
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := first; i <= last; i++ {
		if seq, ok := a.pending[i]; ok && seq <= need {
			delete(a.pending, i)
			a.region(i).Or(regionDurable)
		}
	}
	return nil
}

// append adds the regions [first, last] that aren't logged to the journal, and pins them all. They are durable with the record
// that it returns, if that isn't 0.
func (a *activity) append(first, last uint32) (need uint64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sealed {
		return 0, ErrFenced
	}
	var missing []uint32
	for i := first; i <= last; i++ {
		if a.region(i).Load()&regionLogged == 0 {
			missing = append(missing, i)
		}
	}
	for part := range slices.Chunk(missing, regionBatch) {
		seq, err := a.j.append(regionRecord(recAdded, part))
		if err != nil {
			return 0, err
		}
		for _, i := range part {
			a.region(i).Or(regionLogged)
			a.pending[i] = seq
		}
		a.n += len(part)
	}
	for i := first; i <= last; i++ {
		r := a.region(i)
		r.Or(regionTouched)
		r.Add(regionPin)
		need = max(need, a.pending[i])
	}
	return need, nil
}

// leave ends what enter of the same range began.
func (a *activity) leave(off, n int64) {
	first, last := span(off, n)
	a.unpin(first, last+1)
}

// unpin takes a pin from the regions [first, end).
func (a *activity) unpin(first, end uint32) {
	for i := first; i < end; i++ {
		a.pages[i/pageRegions].Load()[i%pageRegions].Add(^uint32(regionPin - 1))
	}
}

// seal says whether regions may not be logged. What was logged before is in the journal when it returns.
func (a *activity) seal(yes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sealed = yes
}

// all visits the regions that are logged. The caller holds mu.
func (a *activity) all(visit func(i uint32, r *region)) {
	for p := range a.pages {
		page := a.pages[p].Load()
		if page == nil {
			continue
		}
		for i := range page {
			if page[i].Load()&regionLogged != 0 {
				visit(uint32(p*pageRegions+i), &page[i])
			}
		}
	}
}

// mark begins a round of retiring: regions that are touched from now on stay. It says how many there are.
func (a *activity) mark() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all(func(_ uint32, r *region) {
		// A write that pins between the two is seen, or touches after.
		if r.And(^uint32(regionTouched)); r.Load() >= regionPin {
			r.Or(regionTouched)
		}
	})
	return a.n
}

// retire drops the regions that were not touched since mark. The caller has made their content and all dirty sets
// durable in between. exact is called when none is left, and tells the position of the disk if it has one.
func (a *activity) retire(exact func() (Position, bool)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var gone []uint32
	a.all(func(i uint32, r *region) {
		// From here on a write into it waits for mu.
		if r.CompareAndSwap(regionLogged|regionDurable, regionLogged) {
			gone = append(gone, i)
		}
	})
	if len(gone) == a.n {
		if p, ok := exact(); ok {
			if _, err := a.j.append(quietRecord(p)); err != nil {
				a.keep(gone)
				return err
			}
			a.drop(gone)
			return nil
		}
	}
	for len(gone) > 0 {
		part := gone[:min(len(gone), regionBatch)]
		if _, err := a.j.append(regionRecord(recRetired, part)); err != nil {
			a.keep(gone)
			return err
		}
		a.drop(part)
		gone = gone[len(part):]
	}
	return nil
}

// keep undoes the beginning of retiring.
func (a *activity) keep(regions []uint32) {
	for _, i := range regions {
		a.region(i).Or(regionDurable)
	}
}

// drop ends retiring.
func (a *activity) drop(regions []uint32) {
	for _, i := range regions {
		a.region(i).And(^uint32(regionLogged))
	}
	a.n -= len(regions)
}

// forget empties the log in memory; the caller has done so in the journal, and nothing is written meanwhile. Who has entered
// before, and waits to write, sees that era changed and must enter again.
func (a *activity) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.era.Add(1)
	a.all(func(_ uint32, r *region) { r.And(^uint32(regionLogged | regionDurable)) })
	clear(a.pending)
	a.n = 0
}

// each calls fn for the blocks [from, to) of every logged region.
func (a *activity) each(blocks int64, fn func(from, to int64)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all(func(i uint32, _ *region) {
		from := int64(i) * (regionSize / Block)
		fn(min(from, blocks), min(from+regionSize/Block, blocks))
	})
}

// has says whether a region is logged.
func (a *activity) has(i uint32) bool {
	p := a.pages[i/pageRegions].Load()
	return p != nil && p[i%pageRegions].Load()&regionLogged != 0
}

// logged are the logged regions of a disk of so many; with idle, only those that retire may drop.
func (a *activity) logged(regions int64, idle bool) *blockset.Set {
	s := blockset.New(regions)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all(func(i uint32, r *region) {
		if state := r.Load(); !idle || state < regionPin && state&regionTouched == 0 {
			s.Add(int64(i), min(int64(i)+1, regions))
		}
	})
	return s
}
