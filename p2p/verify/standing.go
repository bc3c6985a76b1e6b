package verify

import (
	"context"
	"errors"
)

// A copy that nothing feeds is compared where it stands: with what it isn't known to lack there. Of a region in which it lacks something the sums
// of its leaves are told without that; nothing else has to be, so that a copy far away costs 24 bytes for 256 MiB that are equal, 1.2 KiB for 4 MiB in
// which it lacks something, and a leaf where it is damaged.

// masks are those of a region's leaves; nil if nothing is to be left out.
func (r *round) masks(lag Lag, region int64) []Mask {
	if lag == nil {
		return nil
	}
	masks, any := make([]Mask, count(min(RegionSize, r.o.Size-region*RegionSize), LeafSize)), false
	for k := range masks {
		masks[k] = lag.Lacks(region*fan + int64(k))
		any = any || masks[k] != 0
	}
	if !any {
		return nil
	}
	return masks
}

// masked are the sums of a region's leaves without what the masks leave out, of both sides.
func (r *round) masked(ctx context.Context, name string, region int64, masks []Mask) (mine, theirs []Sum, err error) {
	if theirs, err = r.o.Copies[name].Masked(ctx, region, masks); err != nil {
		return nil, nil, err
	}
	if mine, err = r.sums.maskedRegion(ctx, region, masks); err != nil {
		return nil, nil, err
	}
	c := r.res.Copies[name]
	for k, m := range masks {
		_, n := r.sums.leaf(region*fan + int64(k))
		r.equal(c, m.left(n)-n)
	}
	return mine, theirs, nil
}

// equal moves n bytes of a copy from behind to equal.
func (r *round) equal(c *CopyResult, n int64) { c.Equal, c.Behind = c.Equal+n, c.Behind-n }

// standing is what the owner's disk says of a copy: neither, if it is being fed.
type standing struct {
	lag Lag
	err error
}

// standing asks once a look: what it was is true of what isn't written during that.
func (r *round) standing(name string) standing {
	s, ok := r.lags[name]
	if !ok {
		s.lag, s.err = r.o.Disk.Lag(name)
		r.lags[name] = s
	}
	return s
}

func (r *round) forgetLags() {
	for _, s := range r.lags {
		if s.lag != nil {
			s.lag.Close()
		}
	}
	clear(r.lags)
}

// stands says that nothing feeds a copy.
func (r *round) stands(name string) bool {
	s := r.standing(name)
	return s.lag != nil || s.err != nil
}

// compareStanding is compare with a copy that nothing feeds. Where it lacks all of the leaf there is nothing to compare.
func (r *round) compareStanding(ctx context.Context, p *place, name string, copies map[string]side) (ready bool, err error) {
	switch s := r.standing(name); {
	case errors.Is(s.err, ErrDetached):
		return true, r.drop(ctx, name, s.err)
	case s.err != nil || s.lag == nil:
		return false, s.err // it was being fed when the look began
	}
	lag := r.lags[name].lag
	without, at := lag.Lacks(p.leaf), lag.Position()
	_, n := r.sums.leaf(p.leaf)
	if before, suspected := p.differ[name]; suspected {
		// What it lacks only now doesn't count as equal any more.
		r.equal(r.res.Copies[name], (before|without).left(n)-before.left(n))
		p.differ[name] = before | without
	}
	p.apart[name] = without
	if without.all(n) {
		return true, nil
	}
	st, err := r.o.Copies[name].Part(ctx, p.leaf, without)
	if err != nil {
		return true, r.drop(ctx, name, err)
	}
	if st.Position != at {
		r.o.Disk.Heard(name, st.Position)
		return false, nil
	}
	copies[name] = side{record: st.Record, sum: st.Sum, without: without, stands: true, at: at}
	return true, nil
}

// patch has a copy that stands still replace what it has of a leaf by what the owner's disk had there all the while, and says what came of it. It comes
// again if the copy has moved meanwhile.
func (r *round) patch(ctx context.Context, p *place, name string, c side, content []byte) (again bool, err error) {
	_, n := r.sums.leaf(p.leaf)
	st, err := r.o.Copies[name].Patch(ctx, Patch{At: c.at, Leaf: p.leaf, Content: content, Without: c.without, Doubted: c.record == AsRecorded})
	switch {
	case err != nil:
		p.note(r, name, n, Stuck)
		return false, r.drop(ctx, name, err)
	case st.Position != c.at:
		r.o.Disk.Heard(name, st.Position)
		if p.tries++; p.tries < collisions {
			return true, nil
		}
		p.note(r, name, n, Stuck)
	case st.Sum == c.own:
		p.note(r, name, n, Repaired)
	default:
		p.note(r, name, n, Stuck)
	}
	return false, nil
}
