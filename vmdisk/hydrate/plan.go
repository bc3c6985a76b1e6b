package hydrate

import "tagalong.org/tagalong/vmdisk/blockset"

const (
	// nearBlocks is how far around the last demand the background looks first.
	nearBlocks = 16 << 20 / Block
	// heatBlocks is the grain in which reads are counted.
	heatBlocks = 4 << 20 / Block
	maxBlocks  = MaxFetch / Block
)

// job is one fetch: the blocks [a, b), at most maxBlocks.
type job struct {
	a, b int64
	kind Kind
}

// waiter is somebody who needs the blocks [a, b).
type waiter struct {
	a, b int64
	done chan struct{} // closed when none of them is stale
}

// plan is the order of fetching. Not safe for concurrent use.
type plan struct {
	blocks int64
	// flying blocks are being fetched; failed ones are stale and could not be fetched the last time; absent ones nobody has
	// who is there.
	stale, flying, failed, absent *blockset.Set
	waiting                       []*waiter // whose turn it is comes first
	near                          int64     // where the last demand ended
	ahead                         ahead
	heat                          map[int64]int
	hot                           int64 // the region that is being fetched because of its heat, or -1
	linear, retry                 int64 // where the background goes on
}

func newPlan(stale *blockset.Set) *plan {
	n := stale.Blocks()
	return &plan{
		blocks: n, stale: stale.Clone(), flying: blockset.New(n), failed: blockset.New(n), absent: blockset.New(n),
		near: n, ahead: newAhead(), heat: map[int64]int{}, hot: -1,
	}
}

// lacks says whether any of the blocks [a, b) is stale.
func (p *plan) lacks(a, b int64) bool { return p.stale.Next(a, true) < b }

// read counts a read of the blocks [a, b).
func (p *plan) read(a, b int64) {
	p.ahead.read(a, b)
	for r := a / heatBlocks; r*heatBlocks < b; r++ {
		if _, known := p.heat[r]; known || p.lacks(r*heatBlocks, min(p.blocks, (r+1)*heatBlocks)) {
			p.heat[r]++
		}
	}
}

// free is the first block of [a, b) that is stale, not in flight and not absent, b if there is none. failed says which of them:
// those that failed, or the others.
func (p *plan) free(a, b int64, failed bool) int64 {
	for a < b {
		if a = p.stale.Next(a, true); a >= b {
			break
		}
		if x := p.flying.Next(a, false); x > a {
			a = x
			continue
		}
		if x := p.absent.Next(a, false); x > a {
			a = x
			continue
		}
		if x := p.failed.Next(a, failed); x > a {
			a = x
			continue
		}
		return a
	}
	return b
}

// runEnd is where the run of blocks ends that begins with a, which is free and didn't fail; at most limit.
func (p *plan) runEnd(a, limit int64) int64 {
	return min(limit, p.stale.Next(a, false), p.flying.Next(a, true), p.failed.Next(a, true), p.absent.Next(a, true))
}

func (p *plan) start(j job) (job, bool) {
	p.flying.Add(j.a, j.b)
	return j, true
}

// demand is the next fetch for those who wait.
func (p *plan) demand() (job, bool) {
	for i, w := range p.waiting {
		j := job{kind: Demand}
		if j.a = p.free(w.a, w.b, false); j.a < w.b {
			j.b = p.runEnd(j.a, min(j.a+maxBlocks, w.b))
		} else if j.a = p.free(w.a, w.b, true); j.a < w.b {
			j.b = j.a + 1
		} else {
			continue
		}
		copy(p.waiting[i:], p.waiting[i+1:])
		p.waiting[len(p.waiting)-1] = w
		return p.start(j)
	}
	return job{}, false
}

// follow is the next fetch of what those will want who read on, of up to piece blocks.
func (p *plan) follow(piece int64) (job, bool) {
	for _, r := range p.ahead.readers {
		if j, ok := p.first(max(0, r.next), min(p.blocks, r.end), piece); ok {
			j.kind = Ahead
			return p.start(j)
		}
	}
	return job{}, false
}

// follows says whether something is to be fetched for who has just read.
func (p *plan) follows() bool {
	r := p.ahead.readers[0]
	return p.free(max(0, r.next), min(p.blocks, r.end), false) < min(p.blocks, r.end)
}

// pull is the next fetch that nobody waits for, of up to piece blocks.
func (p *plan) pull(piece int64) (job, bool) {
	for _, in := range [][2]int64{{p.near, p.near + nearBlocks}, {p.near - nearBlocks, p.near}} {
		if j, ok := p.first(max(0, in[0]), min(p.blocks, in[1]), piece); ok {
			return p.start(j)
		}
	}
	for p.hot >= 0 || p.heatUp() {
		if j, ok := p.first(p.hot*heatBlocks, min(p.blocks, (p.hot+1)*heatBlocks), piece); ok {
			return p.start(j)
		}
		delete(p.heat, p.hot)
		p.hot = -1
	}
	for _, from := range [2]int64{p.linear, 0} {
		if j, ok := p.first(from, p.blocks, piece); ok {
			p.linear = j.b
			return p.start(j)
		}
	}
	for _, from := range [2]int64{p.retry, 0} {
		if a := p.free(from, p.blocks, true); a < p.blocks {
			p.retry = a + 1
			return p.start(job{a: a, b: a + 1})
		}
	}
	return job{}, false
}

func (p *plan) first(a, b, piece int64) (job, bool) {
	if a = p.free(a, b, false); a >= b {
		return job{}, false
	}
	return job{a: a, b: p.runEnd(a, min(b, a+piece))}, true
}

// heatUp chooses the region that was read most often, the first of several.
func (p *plan) heatUp() bool {
	for r, n := range p.heat {
		if p.hot < 0 || n > p.heat[p.hot] || n == p.heat[p.hot] && r < p.hot {
			p.hot = r
		}
	}
	return p.hot >= 0
}

// wanted is what of a job that has arrived is still stale, in order.
func (p *plan) wanted(j job) []job {
	var out []job
	for a := p.stale.Next(j.a, true); a < j.b; a = p.stale.Next(a, true) {
		b := min(j.b, p.stale.Next(a, false))
		out = append(out, job{a: a, b: b})
		a = b
	}
	return out
}

// landing is how a job ended.
type landing int

const (
	arrived landing = iota // its blocks are here
	missed                 // they are to be fetched again, after all others
	nowhere                // nobody has them who is there
	undone                 // they are to be fetched again
)

// end ends a job.
func (p *plan) end(j job, how landing) {
	p.flying.Remove(j.a, j.b)
	switch how {
	case arrived:
		p.drop(j.a, j.b)
	case missed:
		p.failed.Add(j.a, j.b)
	case nowhere:
		p.missing(j.a, j.b)
	}
}

// missing notes that nobody has the blocks [a, b), as far as they are still stale.
func (p *plan) missing(a, b int64) {
	for a = p.stale.Next(a, true); a < b; a = p.stale.Next(a, true) {
		end := min(b, p.stale.Next(a, false))
		p.absent.Add(a, end)
		a = end
	}
}

// awaited says whether somebody waits for one of the blocks [a, b), which are in flight.
func (p *plan) awaited(a, b int64) bool {
	for _, w := range p.waiting {
		if w.a < b && a < w.b && p.lacks(max(a, w.a), min(b, w.b)) {
			return true
		}
	}
	return false
}

// drop says that the blocks [a, b) aren't stale any more. It wakes who has all that it waits for.
func (p *plan) drop(a, b int64) {
	p.stale.Remove(a, b)
	p.failed.Remove(a, b)
	p.absent.Remove(a, b)
	kept := p.waiting[:0]
	for _, w := range p.waiting {
		if w.a < b && a < w.b && !p.lacks(w.a, w.b) {
			close(w.done)
			continue
		}
		kept = append(kept, w)
	}
	clear(p.waiting[len(kept):])
	p.waiting = kept
}

// leave takes somebody who gave up out of those who wait.
func (p *plan) leave(w *waiter) {
	for i, o := range p.waiting {
		if o == w {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return
		}
	}
}
