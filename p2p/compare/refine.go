package compare

import (
	"context"
	"fmt"
)

const (
	// window is how many regions that differ are narrowed down at once; of these it is kept which of their leaves do.
	window = 256
	// A window of whose leaves more than denseLeaves of regionLeaves differ makes the next denseWindows go without: the leaves' sums would be sent, and
	// everything read once more, for nothing.
	denseLeaves  = 48
	denseWindows = 8
)

// part is a region with the leaves in which it differs.
type part struct {
	region int64
	leaves leafMask
}

// refine compares the blocks of all regions that differ.
func (x *runner) refine(ctx context.Context) error {
	dense := 0 // so many windows go without leaves
	for from, all := int64(0), regionsOf(x.size); from < all; {
		end, n := x.windowFrom(from)
		if n == 0 {
			return nil
		}
		var err error
		if x.version == 1 || dense > 0 {
			dense--
			err = x.pass(ctx, func(at int64) ask { return x.nextUnequal(kindBlocks, max(at, from), end) })
		} else {
			dense, err = x.refineWindow(ctx, from, end, n)
		}
		if err != nil {
			return err
		}
		from = end
	}
	return nil
}

// refineWindow narrows n regions in [from, end) down to leaves, and compares the blocks of these. It returns how many windows look as if that weren't worth it.
func (x *runner) refineWindow(ctx context.Context, from, end int64, n int) (dense int, err error) {
	x.parts = x.parts[:0]
	if err := x.pass(ctx, func(at int64) ask { return x.nextUnequal(kindLeaves, max(at, from), end) }); err != nil {
		return 0, err
	}
	differ := 0
	for _, p := range x.parts {
		differ += p.leaves.count()
	}
	if differ > n*denseLeaves {
		dense = denseWindows
	}
	next := 0
	return dense, x.pass(ctx, func(int64) ask {
		if next == len(x.parts) {
			return ask{}
		}
		p := x.parts[next]
		next++
		return ask{kindPart, p.region, 1, p.leaves}
	})
}

// windowFrom is where the window ends that begins at a region, and how many regions in it differ.
func (x *runner) windowFrom(from int64) (end int64, n int) {
	all := regionsOf(x.size)
	for end = from; end < all && n < window; end++ {
		if x.differs(end) {
			n++
		}
	}
	return end, n
}

func (x *runner) differs(region int64) bool { return x.unequal[region/64]&(1<<(region%64)) != 0 }

// nextUnequal asks for the first run of regions in [from, to) that differ.
func (x *runner) nextUnequal(of kind, from, to int64) ask {
	first := from
	for first < to && !x.differs(first) {
		first++
	}
	end := first
	for end < to && x.differs(end) {
		end++
	}
	return ask{of, first, end - first, allLeaves}
}

// leaves compares the leaves of a region.
func (x *runner) leaves(at int64) error {
	if err := x.sums.read(at, allLeaves); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	var differ leafMask
	mine, tags := x.sums.present(), x.got.tags
	for l := range x.sums.leaves() {
		same := mine.has(l) == x.got.leaves.has(l)
		if x.got.leaves.has(l) {
			same = same && x.sums.leaf(l) == tags[0]
			tags = tags[1:]
		}
		if !same {
			differ |= 1 << l
		}
	}
	if differ != 0 {
		x.parts = append(x.parts, part{at, differ})
	}
	start, n := x.bytes(at, 1)
	for a, b := (^differ).next(0, x.sums.leaves()); a < b; a, b = (^differ).next(b, x.sums.leaves()) {
		from, to := int64(a)*Leaf, min(n, int64(b)*Leaf)
		x.stats.Compared.Add(to - from)
		if err := x.equal(start+from, to-from); err != nil {
			return err
		}
	}
	return nil
}

// blocks compares those leaves of a region block by block.
func (x *runner) blocks(at int64, which leafMask) error {
	if err := x.sums.read(at, which); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	start, n := x.bytes(at, 1)
	tags := x.got.tags
	for a, b := which.next(0, x.sums.leaves()); a < b; a, b = which.next(b, x.sums.leaves()) {
		run, end := a*leafBlocks, min(b*leafBlocks, x.sums.blocks) // run is where a run of equal blocks begins
		x.stats.Compared.Add(min(n, int64(b)*Leaf) - int64(a)*Leaf)
		for k := run; k <= end; k++ {
			same := false
			if k < end {
				mine, theirs := x.sums.data.has(k), x.got.data.has(k)
				same = mine == theirs
				if theirs {
					same = same && x.sums.tag(k) == tags[0]
					tags = tags[1:]
				}
			}
			if same {
				continue
			}
			if k > run {
				if err := x.equal(start+int64(run)*Block, int64(k-run)*Block); err != nil {
					return err
				}
			}
			run = k + 1
		}
	}
	return nil
}
