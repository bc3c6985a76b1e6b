package push

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"time"
)

// copyMark begins the names of the copies that this protocol makes: only these are gone on with. What a mirror began is its own, and it counts on
// nobody having put anything else there.
var copyMark = [4]byte{'p', 'u', 's', 'h'}

// resumes says that a push of the cut may go on with the copy that a receiver in this state has.
func resumes(st State, cut Position) bool {
	at := st.Checkpoint
	if !st.Complete {
		at = st.Position
	}
	return [4]byte(st.Copy[:4]) == copyMark && at.Compare(cut) <= 0
}

// copyFor is the name of the copy by which a receiver in this state is brought to the cut.
func copyFor(st State, cut Position) (id [16]byte) {
	if resumes(st, cut) {
		return st.Copy
	}
	_, _ = rand.Read(id[:]) // never fails
	copy(id[:], copyMark[:])
	return id
}

// from is what the receiver's disk is without the copy.
func from(st State) Position {
	if st.Complete {
		return st.Position
	}
	return Position{}
}

// check tells what is wrong with h, if anything, as an error that wraps fault.
func (h Hello) check(fault error) error {
	if err := h.Check(fault); err != nil {
		return err
	}
	if h.Cut == (Position{}) || h.Cut.Term > h.Term {
		return fmt.Errorf("cut at %d/%d under term %d: %w", h.Cut.Term, h.Cut.Barrier, h.Term, fault)
	}
	return nil
}

// checkpointDue says whether a receiver makes durable what came, n bytes and for so long since the last time: a power cut costs the
// bytes of one second, or 1 MiB, whichever is more.
func checkpointDue(n int64, since time.Duration) bool { return n >= 1<<20 && since >= time.Second }

// coldFirst puts regions in the order in which they are sent: the one that was written longest ago, or least often, first, as what
// is hot may be written again before this push ends, and is then sent twice.
func coldFirst(regions []int32, heat Heat) {
	if heat == nil {
		return
	}
	type hot struct {
		region int32
		heat   uint64
	}
	all := make([]hot, len(regions))
	for i, r := range regions {
		all[i] = hot{r, heat.Heat(int64(r))}
	}
	slices.SortFunc(all, func(a, b hot) int { return cmp.Or(cmp.Compare(a.heat, b.heat), cmp.Compare(a.region, b.region)) })
	for i, h := range all {
		regions[i] = h.region
	}
}

// class is why a block is to be sent, or to be made sure of.
type class int

const (
	classHeld    class = 0 // the receiver says that an unfinished copy brought something
	classGuessed class = 1 // the sender doesn't know whether it differs
	classWritten class = 2 // it was written since
	classes            = 3
)

// asking decides how to ask before content is sent, from how often it was of use so far.
type asking struct {
	same  [classes]float64 // how likely it is that the receiver has a block at its place
	found float64          // how likely that it finds another one elsewhere, if it has an index
	index bool
	blank bool // the receiver's disk is zeros where it holds nothing
	turns [classes]int
}

// cpuShare is how much of a core a push may take for compressing: what is left is the guest's.
const cpuShare = 0.25

const (
	// foundAtFirst is for an index that nobody asked yet.
	foundAtFirst = 0.05
	// learnFound is after how many blocks what was assumed of the index counts nothing any more: to ask it costs twice as much.
	learnFound = 256
	// learnBlocks is after how many blocks what was assumed before counts nothing any more.
	learnBlocks = 2048
	// tryEvery is how often something is asked though it isn't worth it, so as to see when it would be.
	tryEvery = 16
)

func newAsking(index, blank bool) *asking {
	return &asking{same: [classes]float64{0.999, 0.99, 0.02}, found: foundAtFirst, index: index, blank: blank}
}

// first is the kind of question to ask about n blocks of a class whose content costs so many bytes a block on the wire; ok is false if they
// had better be sent.
//
// A sum of s bytes is worth it if it saves more: a block's if p·cost > s, where p is how likely the block is there. One for g blocks saves
// the sums of these with a chance of p^g; so it is worth it if p^g > 1/g, and only for whole groups.
func (a *asking) first(c class, n int, cost float64) (k kind, ok bool) {
	p := a.same[c]
	if a.blank && c != classHeld {
		p = 0 // there is nothing at its place
	}
	switch {
	case n >= 2*unitBlocks && math.Pow(p, float64(n)) > 1/float64(n):
		return askRegion, true
	case n >= unitBlocks && math.Pow(p, unitBlocks) > 1.0/unitBlocks:
		return askUnits, true
	}
	if k, ok := a.blocks(p, cost); ok {
		return k, true
	}
	if a.turns[c]++; a.turns[c]%tryEvery == 0 && (p > 0 || a.index || !a.blank) {
		if a.index {
			return askWide, true
		}
		return askBlocks, true
	}
	return 0, false
}

// blocks is the kind of question about single blocks, each of which is at its place with the chance p.
func (a *asking) blocks(p, cost float64) (k kind, ok bool) {
	if elsewhere := (1 - p) * a.found * cost; a.index && elsewhere > float64(askWide.size()-askBlocks.size()) {
		return askWide, p*cost+elsewhere > float64(askWide.size())
	}
	return askBlocks, p*cost > float64(askBlocks.size())
}

// finer is the kind of question to ask about n blocks of which the receiver lacks at least one; ok is false if they had better be sent.
func (a *asking) finer(c class, k kind, n int, cost float64) (next kind, ok bool) {
	p := a.same[c]
	switch {
	case k == askRegion && n > 2*unitBlocks && math.Pow(p, unitBlocks) > 1.0/unitBlocks:
		return askUnits, true
	case k == askRegion || k == askUnits:
		// Among few there is one for sure.
		return a.blocks(min(p, float64(n-1)/float64(n)), cost)
	}
	return 0, false
}

// learn takes that the receiver needs so many of n blocks of a class. Of a question about groups only those count that it needs none of.
func (a *asking) learn(c class, k kind, n, needed int) {
	if k.group() > 1 {
		n, needed = n-needed, 0
	}
	if n == 0 {
		return
	}
	weight, got := min(1, float64(n)/learnBlocks), 1-float64(needed)/float64(n)
	soon := min(1, float64(n)/learnFound)
	if k == askWide && a.same[c] < got {
		// It may be either. What was likely at its place stays so; the rest is the index's.
		if a.same[c] < 1 {
			a.found += soon * ((got-a.same[c])/(1-a.same[c]) - a.found)
		}
		return
	}
	if k == askWide {
		a.found += soon * (0 - a.found)
	}
	a.same[c] += weight * (got - a.same[c])
}
