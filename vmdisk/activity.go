package vmdisk

import (
	"slices"
	"sync"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// regionSize is the grain of the activity log, in bytes (the thesis, §4.1).
const regionSize = 4 << 20

// activity is the log of the regions that may have been written since the dirty sets were stored. A
// region is logged durably before its first write. Safe for concurrent use.
type activity struct {
	j       *journal
	mu      sync.Mutex
	regions map[uint32]*region
}

type region struct {
	seq     uint64 // of the journal record that logs it
	pins    int    // writes under way
	touched bool   // since the last mark
}

func newActivity(j *journal, logged map[uint32]struct{}) *activity {
	a := &activity{j: j, regions: make(map[uint32]*region)}
	for r := range logged {
		a.regions[r] = &region{}
	}
	return a
}

// span is the range of regions that n > 0 bytes at off touch: [first, last].
func span(off, n int64) (first, last uint32) {
	return uint32(off / regionSize), uint32((off + n - 1) / regionSize)
}

// enter logs the regions of a write durably, and holds them until they are handed to leave.
func (a *activity) enter(off, n int64) ([]*region, error) {
	first, last := span(off, n)
	var missing []uint32
	var need uint64
	a.mu.Lock()
	for i := first; i <= last; i++ {
		if a.regions[i] == nil {
			missing = append(missing, i)
		}
	}
	for part := range slices.Chunk(missing, regionBatch) {
		seq, err := a.j.append(regionRecord(recAdded, part))
		if err != nil {
			a.mu.Unlock()
			return nil, err
		}
		for _, i := range part {
			a.regions[i] = &region{seq: seq}
		}
	}
	held := make([]*region, 0, last-first+1)
	for i := first; i <= last; i++ {
		r := a.regions[i]
		r.pins++
		r.touched = true
		need = max(need, r.seq)
		held = append(held, r)
	}
	a.mu.Unlock()
	if need == 0 || a.j.durableTo(need) {
		return held, nil
	}
	if err := a.j.syncTo(need); err != nil {
		a.leave(held)
		return nil, err
	}
	return held, nil
}

// leave ends what enter began.
func (a *activity) leave(held []*region) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range held {
		r.pins--
	}
}

// mark begins a round of retiring: regions that are touched from now on stay. It says how many there are.
func (a *activity) mark() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.regions {
		r.touched = r.pins > 0
	}
	return len(a.regions)
}

// retire drops the regions that were not touched since mark. The caller has made their content and all dirty sets
// durable in between. exact is called when none is left, and tells the position of the disk if it has one.
func (a *activity) retire(exact func() (Position, bool)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var gone []uint32
	for i, r := range a.regions {
		if !r.touched && r.pins == 0 {
			gone = append(gone, i)
		}
	}
	if len(gone) == len(a.regions) {
		if p, ok := exact(); ok {
			if _, err := a.j.append(quietRecord(p)); err != nil {
				return err
			}
			clear(a.regions)
			return nil
		}
	}
	for part := range slices.Chunk(gone, regionBatch) {
		if _, err := a.j.append(regionRecord(recRetired, part)); err != nil {
			return err
		}
		for _, i := range part {
			delete(a.regions, i)
		}
	}
	return nil
}

// forget empties the log in memory; the caller has done so in the journal.
func (a *activity) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.regions)
}

// each calls fn for the blocks [from, to) of every logged region.
func (a *activity) each(blocks int64, fn func(from, to int64)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.regions {
		from := int64(i) * (regionSize / Block)
		fn(min(from, blocks), min(from+regionSize/Block, blocks))
	}
}

// has says whether a region is logged.
func (a *activity) has(i uint32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.regions[i] != nil
}

// logged are the logged regions of a disk of so many; with idle, only those that retire may drop.
func (a *activity) logged(regions int64, idle bool) *blockset.Set {
	s := blockset.New(regions)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, r := range a.regions {
		if !idle || !r.touched && r.pins == 0 {
			s.Add(int64(i), min(int64(i)+1, regions))
		}
	}
	return s
}
