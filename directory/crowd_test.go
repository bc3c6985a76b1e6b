package directory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// crowd is a history made without signatures, of transfers that fit.
type crowd struct {
	tree *tree
	list []*node
	dir  *Directory // for the rules
}

func newCrowd() *crowd {
	c := &crowd{tree: newTree()}
	c.dir = &Directory{trees: map[string]*tree{"v": c.tree}}
	c.add(Transfer{VM: "v", Term: 1, To: "a", Kind: KindCreated})
	return c
}

// add adds x with the term that it has to have, if it fits and is no second one of its term.
func (c *crowd) add(x Transfer) *node {
	x.VM = "v"
	if p := c.tree.nodes[x.Prev]; p != nil {
		x.Term = p.Term + 1
		if x.Kind.forced() {
			x.Term = c.tree.forcedTerm(p, x)
		}
	}
	value, err := encodeValue(x)
	if err != nil || x.check() != nil || c.tree.terms[x.Term] != nil {
		return nil
	}
	s, err := readTransfer(Record{Key: transferKey("v", x.Term), Version: transferVersion(value), Writer: x.signer(), Value: value, Sig: []byte("x")})
	if err != nil || x.Kind != KindCreated && c.dir.fits(c.tree, c.tree.nodes[x.Prev], s) != nil || c.tree.add(s) != nil {
		return nil
	}
	n := c.tree.nodes[s.Hash()]
	c.list = append(c.list, n)
	return n
}

// anything adds a random transfer, such as only a liar would sign, or none.
func (c *crowd) anything(r *rand.Rand) {
	pick := func() *node { return c.list[r.IntN(len(c.list))] }
	p, who := pick(), string("abcd"[r.IntN(4)])
	x := Transfer{Prev: p.hash, From: p.To, To: who, Position: Position{pick().Term, r.Uint64N(3)}}
	if r.IntN(6) == 0 {
		x.Position.Term = 0
	}
	switch x.Kind = []Kind{KindSwitch, KindReturned, KindTakeover, KindTakeover, KindKept, KindKept, KindResolved}[r.IntN(7)]; x.Kind {
	case KindTakeover, KindKept:
		if r.IntN(2) == 0 {
			x.Above = pick().hash
		}
	case KindResolved:
		x.From, x.To = who, p.To
		for range 1 + r.IntN(3) {
			x.Over = append(x.Over, pick().hash)
		}
		x.Over = slices.Compact(sortedHashes(x.Over))
	}
	c.add(x)
}

// shuffled is the same history, that arrived in another order.
func (c *crowd) shuffled(r *rand.Rand) *tree {
	t, rest := newTree(), slices.Clone(c.list)
	r.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	for len(rest) > 0 {
		n := rest[0]
		rest = rest[1:]
		if n.parent != nil && t.nodes[n.parent.hash] == nil {
			rest = append(rest, n)
		} else if err := t.add(n.SignedTransfer); err != nil {
			panic(err)
		}
	}
	return t
}

// TestLiarsHistories: whatever fits, however senseless, has heads by the rules, at least one, and they and what was given up are the
// same in any order of arrival.
func TestLiarsHistories(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := newCrowd()
		for range 5 + r.IntN(30) {
			c.anything(r)
		}
		gone := string("abcd"[r.IntN(4)])
		removed := func(id string) bool { return id == gone && seed%3 > 0 }
		dirs := []*Directory{c.dir, {trees: map[string]*tree{"v": c.shuffled(r)}}}
		for _, d := range dirs {
			d.standings = map[string]*membership{}
			if removed(gone) {
				d.standings[gone] = &membership{Device: gone, Gen: 1, Removed: true}
			}
			var got []Hash
			for _, n := range d.trees["v"].heads(d.isRemoved) {
				got = append(got, n.hash)
			}
			if want := reference(c.dir.History("v"), removed); !slices.Equal(got, want) || len(got) == 0 {
				t.Fatalf("seed %d: heads %v, by the rules %v", seed, got, want)
			}
		}
		for _, n := range c.list {
			if one, two := dirs[0].GivenUp(n.hash), dirs[1].GivenUp(n.hash); one != two {
				t.Fatalf("seed %d: %s at term %d is given up: %v, in another order %v", seed, n.Kind, n.Term, one, two)
			}
		}
	}
}

// TestManySides: a liar who fills a history as far as there is room makes it no slower to judge than it is long. (It took hours.)
func TestManySides(t *testing.T) {
	c := newCrowd()
	const each = 5000
	last := c.list[0]
	for i := range each {
		last = c.add(Transfer{Kind: KindSwitch, Prev: last.hash, From: last.To, To: string("ba"[i%2]), Position: Position{last.Term, 1}})
	}
	p := last
	if c.add(Transfer{Kind: KindTakeover, Prev: p.hash, From: p.To, To: "c"}) == nil {
		t.Fatal("no takeover")
	}
	var sides []*node
	for i := range each {
		// Each beyond all that the one before has, so that whoever looks for one that has it all looks at many.
		n := c.add(Transfer{Kind: KindKept, Prev: p.hash, From: p.To, To: fmt.Sprintf("k%d", i), Position: Position{c.list[1+i].Term, 9}, Above: c.list[i].hash})
		if n == nil {
			continue // its number was taken
		}
		sides = append(sides, n)
	}
	for i := range each {
		c.add(Transfer{Kind: KindResolved, Prev: p.hash, From: p.To, To: p.To, Over: []Hash{sides[i%len(sides)].hash}, Above: c.list[i].hash})
		c.add(Transfer{Kind: KindTakeover, Prev: p.hash, From: p.To, To: "gone", Above: c.list[i].hash})
	}
	heads := c.tree.heads(func(id string) bool { return id == "gone" })
	if len(heads) == 0 || len(c.list) < 14_000 {
		t.Fatalf("%d heads of %d transfers", len(heads), len(c.list))
	}
	for _, h := range heads {
		_ = c.tree.within(Position{h.Term, 1 << 60}, Position{1, 1})
	}
}
