package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// collisions is how often a leaf that is written while it is compared is tried again.
	collisions = 5
	// reachTimeout is how long a copy may take to come to where the owner is.
	reachTimeout = time.Minute
)

// Options of a round. Disk, Size, Key and Copies are needed.
type Options struct {
	Disk Disk
	Size int64 // bytes
	// Key is that of all the copies' Hellos; each round has a random one.
	Key Key
	// Copies are the replicas to compare with, by name.
	Copies map[string]Copy
	// Fetch gets content by its recorded hash from whoever has it; nil: nobody has anything.
	Fetch func(ctx context.Context, off, n int64, sum [16]byte) ([]byte, error)
	// Overwrite gives copies that differ what the owner's disk has also where nobody knows who is right.
	Overwrite bool
	// From is where to begin, in bytes; rounded down to a span.
	From int64
	// Next, if not nil, is called after each span with where the next begins, and what was found so far, which it must not keep. Its error ends
	// the round.
	Next func(off int64, r *Result) error
}

// Round goes through a disk from Options.From to its end. The result has what was found until an error: that of the disk, of ctx, or of Next.
// A copy that fails drops out, and the round goes on without it, also when none is left: then the disk is only compared with its own records.
func Round(ctx context.Context, o Options) (*Result, error) {
	r := &round{o: o, res: &Result{Copies: map[string]*CopyResult{}}, due: map[string][][2]int64{}, lags: map[string]standing{}}
	var err error
	if r.sums, err = newSummer(o.Disk, o.Size, o.Key); err != nil {
		return r.res, fmt.Errorf("verify: %w", err)
	}
	for name := range o.Copies {
		r.res.Copies[name] = &CopyResult{}
	}
	for i := o.From / SpanSize; i < count(o.Size, SpanSize); i++ {
		err := r.span(ctx, i)
		if err == nil && o.Next != nil {
			err = o.Next(min(o.Size, (i+1)*SpanSize), r.res)
		}
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return r.res, fmt.Errorf("verify: %w", err)
		}
	}
	return r.res, nil
}

type round struct {
	o    Options
	sums *summer
	res  *Result
	at   int64 // where the span begins
	// due is what each copy is to get again, of the leaves that were compared under the present look.
	due map[string][][2]int64
	// lags has where copies stood during the present look.
	lags map[string]standing
}

// names are the copies that take part still.
func (r *round) names() (out []string) {
	for _, name := range slices.Sorted(maps.Keys(r.o.Copies)) {
		if r.res.Copies[name].Err == nil {
			out = append(out, name)
		}
	}
	return out
}

// drop ends a copy's part, unless it is the round that ends.
func (r *round) drop(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	c := r.res.Copies[name]
	c.Err, c.Until = err, r.at
	c.Equal, c.Busy, c.Behind = c.before[0], c.before[1], c.before[2]
	return nil
}

// span goes through one span.
func (r *round) span(ctx context.Context, i int64) error {
	r.at = i * SpanSize
	length := min(SpanSize, r.o.Size-r.at)
	names := r.names()
	roots, errs := make([]Sum, len(names)), make([]error, len(names))
	all, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for k, name := range names {
		c := r.res.Copies[name]
		c.before = [3]int64{c.Equal, c.Busy, c.Behind}
		wg.Go(func() { roots[k], errs[k] = r.o.Copies[name].Span(all, i) })
	}
	// leaves has, by leaf, whom the sums tell to differ, and without what they were made; nobody, if it is the owner's record that does.
	leaves := map[int64]map[string]Mask{}
	suspect := func(l int64) map[string]Mask {
		if leaves[l] == nil {
			leaves[l] = map[string]Mask{}
		}
		return leaves[l]
	}
	asRecorded := int64(0)
	r.sums.rec = r.o.Disk
	r.sums.seen = func(l int64, record Record) {
		if record == AsRecorded {
			_, n := r.sums.leaf(l)
			asRecorded += n
		} else if record != NoRecord {
			suspect(l)
		}
	}
	mine, err := r.sums.span(ctx, i)
	if err != nil {
		cancel()
	}
	wg.Wait()
	if err != nil {
		return err
	}
	for l, s := range mine.leaves {
		if s == (Sum{}) {
			suspect(i*fan*fan + int64(l))
		}
	}
	for k, name := range names {
		err := errs[k]
		if err == nil {
			err = r.descend(ctx, name, i, mine, roots[k], func(l int64, without Mask) { suspect(l)[name] = without })
		}
		if err != nil {
			if err := r.drop(ctx, name, err); err != nil {
				return err
			}
			for _, who := range leaves {
				delete(who, name)
			}
			continue
		}
		r.res.Copies[name].Equal += length
	}
	if err := r.confirm(ctx, leaves); err != nil {
		return err
	}
	r.res.Read += length
	r.res.AsRecorded += asRecorded
	return nil
}

// descend finds the leaves in which a copy's span differs, but for what the copy lacks where it stands.
func (r *round) descend(ctx context.Context, name string, i int64, mine *tree, root Sum, differs func(leaf int64, without Mask)) error {
	if root == mine.root {
		return nil
	}
	lag, err := r.o.Disk.Lag(name)
	if err != nil {
		return err
	}
	if lag != nil {
		defer lag.Close()
	}
	c := r.o.Copies[name]
	regions, err := c.Regions(ctx, i)
	if err != nil {
		return err
	}
	for k, s := range regions {
		if s == mine.regions[k] {
			continue
		}
		region := i*fan + int64(k)
		own := mine.leaves[k*fan : min(len(mine.leaves), (k+1)*fan)]
		var leaves []Sum
		masks := r.masks(lag, region)
		if masks == nil {
			leaves, err = c.Leaves(ctx, region)
			masks = make([]Mask, len(leaves))
		} else {
			own, leaves, err = r.masked(ctx, name, region, masks)
		}
		if err != nil {
			return err
		}
		for j, s := range leaves {
			if s != own[j] {
				differs(region*fan+int64(j), masks[j])
			}
		}
	}
	return nil
}

// place is a suspected leaf.
type place struct {
	leaf   int64
	differ map[string]Mask  // whose sums differed at first, and what of the leaf counts as behind since
	tries  int              // how often it was written meanwhile
	mended bool             // here
	sent   map[string]bool  // to whom
	apart  map[string]Mask  // what a copy was compared without
	missed map[string]int64 // what was taken off what counts as equal of a copy
	found  *Finding         // nil: nothing yet
}

// confirm compares suspected leaves again, until each was compared at one position, has been repaired as far as that can be, or is
// written too often.
func (r *round) confirm(ctx context.Context, leaves map[int64]map[string]Mask) error {
	var left, all []*place
	for _, l := range slices.Sorted(maps.Keys(leaves)) {
		left = append(left, &place{leaf: l, differ: leaves[l], sent: map[string]bool{}, apart: map[string]Mask{}, missed: map[string]int64{}})
	}
	for all = slices.Clone(left); len(left) > 0; {
		again, err := r.settleAll(ctx, left)
		if err != nil {
			return err
		}
		for name, ranges := range r.due {
			if err := r.o.Disk.Resend(name, ranges); err != nil {
				return err
			}
		}
		clear(r.due)
		left = again
	}
	for _, p := range all {
		if p.found != nil {
			r.res.add(*p.found)
		}
	}
	return nil
}

// settleAll compares leaves under one look, and returns those that must come again.
func (r *round) settleAll(ctx context.Context, left []*place) (again []*place, err error) {
	look, err := r.o.Disk.Look()
	if err != nil {
		return nil, err
	}
	defer look.Close()
	defer r.forgetLags()
	for _, p := range left {
		done, err := r.settle(ctx, look, p)
		if err != nil {
			return nil, err
		}
		if !done {
			again = append(again, p)
		}
	}
	return again, nil
}

// settle compares a leaf under a look. It is done with it, or it must come again under another one.
func (r *round) settle(ctx context.Context, look Look, p *place) (done bool, err error) {
	off, n := r.sums.leaf(p.leaf)
	copies := map[string]side{}
	// It was written, or a copy has moved: another time, unless that has happened too often.
	again := func() (bool, error) {
		if p.tries++; p.tries < collisions {
			return false, nil
		}
		for name, behind := range p.differ {
			if c := r.res.Copies[name]; c.Err == nil && !p.outcome(name).differs() {
				n := behind.left(n)
				c.Equal, c.Busy = c.Equal-n, c.Busy+n
			}
		}
		return true, nil
	}
	ask := func(only func(name string) bool) (ready bool, err error) {
		for _, name := range r.names() {
			if _, asked := copies[name]; asked || !only(name) {
				continue
			}
			if ready, err := r.compare(ctx, look, p, name, copies); err != nil || !ready {
				return false, err
			}
		}
		return true, nil
	}
	// Those that stand still may be far away: they are asked if they are suspected themselves, or if it takes more to judge another.
	needed := func(name string) bool {
		_, suspected := p.differ[name]
		return suspected || p.found != nil || !r.stands(name)
	}
	if ready, err := ask(needed); err != nil || !ready {
		return orAgain(again, err)
	}
	own, content, err := r.own(p.leaf, copies)
	if err == nil && differ(own, copies) {
		ready := false
		if ready, err = ask(func(string) bool { return true }); err == nil && !ready {
			return again()
		}
		if err == nil {
			own, content, err = r.own(p.leaf, copies)
		}
	}
	if err != nil {
		return false, err
	}
	if w, err := look.Written(off, n); err != nil || w {
		return orAgain(again, err)
	}
	return r.act(ctx, p, own, copies, content)
}

// own reads the owner's leaf, and completes what is known of the copies. content is valid unless it can't be read.
func (r *round) own(l int64, copies map[string]side) (own side, content []byte, err error) {
	_, n := r.sums.leaf(l)
	if own.sum, own.record, err = r.sums.state(r.o.Disk, l, false); err != nil {
		return own, nil, err
	}
	p := r.sums.buf[:n]
	content = slices.Clone(p)
	for name, c := range copies {
		if c.own = own.sum; c.without != 0 && own.sum != (Sum{}) {
			copy(p, content)
			c.without.apply(p)
			c.own = r.sums.sum(p)
		}
		copies[name] = c
	}
	return own, content, nil
}

// orAgain has a leaf come again if there is no error.
func orAgain(again func() (bool, error), err error) (bool, error) {
	if err != nil {
		return false, err
	}
	return again()
}

// differ says that something is wrong with a leaf.
func differ(own side, copies map[string]side) bool {
	if ownBad(own) {
		return true
	}
	for _, c := range copies {
		if c.sum != c.own {
			return true
		}
	}
	return false
}

// compare has a copy read a leaf, and notes what it has. It is not ready if that has to come again.
func (r *round) compare(ctx context.Context, look Look, p *place, name string, copies map[string]side) (ready bool, err error) {
	off, n := r.sums.leaf(p.leaf)
	there, err := r.reached(ctx, look, name, off, n)
	switch {
	case errors.Is(err, ErrDetached):
		return r.compareStanding(ctx, p, name, copies)
	case err == nil && !there:
		return false, nil
	case err == nil:
		var st LeafState
		if st, err = r.o.Copies[name].Leaf(ctx, p.leaf); err == nil {
			delete(p.apart, name)
			copies[name] = side{record: st.Record, sum: st.Sum}
			return true, nil
		}
	case !errors.Is(err, ErrBehind):
		return false, err
	}
	return true, r.drop(ctx, name, err)
}

// reached waits until a copy has a leaf, for so long.
func (r *round) reached(ctx context.Context, look Look, name string, off, n int64) (bool, error) {
	short, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	there, err := look.Reached(short, name, off, n)
	if err != nil && ctx.Err() == nil && short.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrBehind, err)
	}
	return there, err
}

// act does what follows from what all have of a leaf at one position.
func (r *round) act(ctx context.Context, p *place, own side, copies map[string]side, content []byte) (done bool, err error) {
	off, n := r.sums.leaf(p.leaf)
	if ownBad(own) {
		if !p.mended {
			if mended, err := r.mend(ctx, off, n); err != nil {
				return false, err
			} else if mended {
				p.mended = true
				p.finding(off, n).Here = Repaired
				return false, nil // the copies may have been made of what was bad
			}
		}
		p.finding(off, n).Here = Damaged
		for name, c := range copies {
			if c.sum != c.own {
				p.note(r, name, n, Withheld)
			}
		}
		return true, nil
	}
	again := false
	for name, v := range judge(own, copies, r.o.Overwrite) {
		switch v {
		case equal:
			if p.outcome(name) != "" {
				p.note(r, name, n, Repaired)
			}
		case undecided:
			p.note(r, name, n, Undecided)
		case better:
			p.note(r, name, n, Better)
		case send:
			if p.sent[name] {
				p.note(r, name, n, Stuck)
				continue
			}
			if c := copies[name]; c.stands {
				moved, err := r.patch(ctx, p, name, c, content)
				if err != nil {
					return false, err
				}
				again = again || moved
				continue
			}
			r.due[name] = append(r.due[name], [2]int64{off, n})
			p.sent[name], again = true, true
			p.note(r, name, n, Sent)
		}
	}
	return !again, nil
}

// finding is what was found at p, from now on.
func (p *place) finding(off, n int64) *Finding {
	if p.found == nil {
		p.found = &Finding{Off: off, Len: n, Copies: map[string]Outcome{}}
	}
	return p.found
}

// outcome is what was noted of a copy.
func (p *place) outcome(name string) Outcome {
	if p.found == nil {
		return ""
	}
	return p.found.Copies[name]
}

// note notes what became of a copy of a leaf of n bytes.
func (p *place) note(r *round, name string, n int64, o Outcome) {
	c := r.res.Copies[name]
	c.Equal += p.missed[name]
	delete(p.missed, name)
	if o.differs() {
		p.missed[name] = p.apart[name].left(n)
		c.Equal -= p.missed[name]
	}
	p.finding(p.leaf*LeafSize, n).Copies[name] = o
}

// mend puts back what the owner has lost, if anybody has it.
func (r *round) mend(ctx context.Context, off, n int64) (bool, error) {
	sum, ok, err := r.o.Disk.Recorded(off)
	if err != nil || !ok || r.o.Fetch == nil {
		return false, err
	}
	b, err := r.o.Fetch(ctx, off, n, sum)
	if err == nil {
		err = r.o.Disk.Mend(b, off)
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil, nil
}
