package directory

import (
	"fmt"
	"testing"
)

// colliding finds two devices whose takeovers from the head would get the same number.
func colliding(t *testing.T, d *Directory, from Hash) (one, other string) {
	t.Helper()
	tree := d.trees["v"]
	p := tree.nodes[from]
	terms := map[uint64]string{}
	for i := range 20_000 {
		name := fmt.Sprintf("device %d", i)
		term := tree.forcedTerm(p, Transfer{Kind: KindTakeover, VM: "v", From: p.To, To: id(name), Prev: from})
		if terms[term] != "" {
			return terms[term], name
		}
		terms[term] = name
	}
	t.Fatal("no two have one number")
	return "", ""
}

// TestTakeoversUnderOneNumber: two devices that took over apart and came to the same number, once in 2^18 times, each stay with their
// own, as after a double signature: nothing is overwritten, everybody has the evidence, and nobody is blamed.
func TestTakeoversUnderOneNumber(t *testing.T) {
	a := fresh(t, "a")
	create(t, a, "v")
	begin := head(a)
	nb, nc := colliding(t, a, begin)
	b, c := fresh(t, nb, "a", nc), fresh(t, nc, "a", nb)
	must(t, a.AddMember(Member{ID: id(nb), Name: "b"}))
	must(t, a.AddMember(Member{ID: id(nc), Name: "c"}))
	meet(t, a, b)
	meet(t, a, c)
	taken := map[*Directory]SignedTransfer{}
	for _, d := range []*Directory{b, c} {
		x, err := d.TakeOver("v", begin, Position{1, 1})
		must(t, err)
		must(t, d.PutVM(VM{ID: "v", Name: "taken", DiskBytes: 1 << 30}))
		must(t, d.PutNote(Note{VM: "v", Term: x.Term, How: "takeover"}))
		taken[d] = x
	}
	if taken[b].Term != taken[c].Term || taken[b].Hash() == taken[c].Hash() {
		t.Fatal("they don't collide")
	}
	for range 2 {
		meet(t, a, b)
		meet(t, b, c)
		meet(t, a, c)
	}
	for _, d := range []*Directory{a, b, c} {
		if len(d.Strikes()) > 0 || len(d.Forks("v")) != 1 || len(d.Heads("v")) != 1 {
			t.Fatalf("strikes %v, forks %v, heads %v", d.Strikes(), d.Forks("v"), d.Heads("v"))
		}
	}
	if head(b) != taken[b].Hash() || head(c) != taken[c].Hash() || head(a) != head(b) {
		t.Fatal("somebody's history was overwritten")
	}
}
