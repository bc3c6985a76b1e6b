package directory

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// plan builds a history by names, without signatures: each line is
// "name kind parent device term/barrier [over…]". The device is who gets it, or, of a resolved, who signs it.
type plan struct {
	t     *testing.T
	tree  *tree
	nodes map[string]*node
	names map[Hash]string
}

func newPlan(t *testing.T, lines string) *plan {
	t.Helper()
	p := &plan{t: t, tree: newTree(), nodes: map[string]*node{}, names: map[Hash]string{}}
	p.add("p created - a 0/0")
	for line := range strings.Lines(lines) {
		if strings.TrimSpace(line) != "" {
			p.add(line)
		}
	}
	return p
}

func (p *plan) node(name string) *node {
	p.t.Helper()
	n := p.nodes[name]
	if n == nil {
		p.t.Fatalf("no %q in the plan", name)
	}
	return n
}

// position reads term/barrier, where the term may be a transfer's name.
func (p *plan) position(s string) (pos Position) {
	p.t.Helper()
	term, barrier, _ := strings.Cut(s, "/")
	if n := p.nodes[term]; n != nil {
		pos.Term = n.Term
	} else if _, err := fmt.Sscan(term, &pos.Term); err != nil {
		p.t.Fatalf("position %q", s)
	}
	if _, err := fmt.Sscan(barrier, &pos.Barrier); err != nil {
		p.t.Fatalf("position %q", s)
	}
	return pos
}

func (p *plan) add(line string) {
	p.t.Helper()
	f := strings.Fields(line)
	x := Transfer{VM: "v", Term: 1, Kind: Kind(f[1]), To: f[3], Position: p.position(f[4])}
	writer := f[3]
	if x.Kind != KindCreated {
		parent := p.node(f[2])
		x.Prev, x.From = parent.hash, parent.To
		for _, o := range f[5:] {
			x.Over = append(x.Over, p.node(o).hash)
		}
		x.Over = sortedHashes(x.Over)
		if x.Kind == KindResolved {
			x.From, x.To = f[3], parent.To
		}
		x.Term = parent.Term + 1
		if x.Kind.forced() {
			x.Term = p.tree.forcedTerm(parent, x)
		} else {
			writer = x.From
		}
	}
	if err := x.check(); err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
	value, err := encodeValue(x)
	must(p.t, err)
	s, err := readTransfer(Record{Key: transferKey("v", x.Term), Version: transferVersion(value), Writer: writer, Value: value})
	must(p.t, err)
	must(p.t, p.tree.add(s))
	p.nodes[f[0]], p.names[s.Hash()] = p.tree.nodes[s.Hash()], f[0]
}

func (p *plan) heads(removed ...string) string {
	var names []string
	for _, n := range p.tree.heads(func(id string) bool { return slices.Contains(removed, id) }) {
		names = append(names, p.names[n.hash])
	}
	return strings.Join(names, " ")
}

// TestHeads has a case for every rule of which ends of a history count. "a|b": the order is that of terms, which are
// hashes here.
func TestHeads(t *testing.T) {
	for name, c := range map[string]struct {
		plan, removed, want string
	}{
		"created alone":             {"", "", "p"},
		"a chain":                   {"q switch p b 1/9\nr returned q a 1/9", "", "r"},
		"an orphan stays":           {"q switch p b 1/9", "b", "q"},
		"a takeover alone":          {"t takeover p b 1/5", "", "t"},
		"of a removed owner":        {"t takeover p b 1/5", "a", "t"},
		"an owner reclaims":         {"q switch p b 1/9\nt takeover q a 1/9", "", "t"},
		"beside a hand-off":         {"q switch p b 1/9\nt takeover p c 1/5", "", "t q"},
		"two takeovers":             {"t takeover p b 1/5\nu takeover p c 1/5", "", "t|u"},
		"kept is not preferred":     {"t takeover p b 1/5\nk kept p a 1/9", "", "t k"},
		"void takeover":             {"t takeover p b 1/5", "b", "p"},
		"void, then kept alone":     {"t takeover p b 1/5\nk kept p a 1/9", "b", "k"},
		"a replica's kept alone":    {"t takeover p b 1/5\nk kept p c 1/9", "b", "p"},
		"void kept":                 {"t takeover p b 1/5\nk kept p a 1/9", "a", "t"},
		"given on, so not void":     {"t takeover p b 1/5\nq switch t c t/3", "b", "q"},
		"void from the leaf up":     {"t takeover p b 1/5\nu takeover t b t/3\nw takeover u b u/3", "b", "p"},
		"void beside":               {"t takeover p b 1/5\nu takeover t c t/3\nw takeover u b u/3", "b", "u"},
		"subsumed":                  {"t takeover p b 1/5\nk kept p c 1/7\nl kept p d 1/8", "", "t l"},
		"subsumed by the owner's":   {"t takeover p b 1/5\nk kept p c 1/9\nl kept p a 1/9", "", "t l"},
		"never the owner's":         {"t takeover p b 1/5\nk kept p c 1/9\nl kept p a 1/7", "", "t k|l"},
		"subsumed by one given up":  {"t takeover p b 1/5\nk kept p a 1/9\nr resolved t b 1/5 k\nl kept p c 1/7", "", "r"},
		"more than was given up":    {"t takeover p b 1/5\nk kept p c 1/7\nr resolved t b 1/5 k\nl kept p a 1/9", "", "r l"},
		"by a void one":             {"t takeover p b 1/5\nk kept p c 1/7\nl kept p d 1/8", "d", "t k"},
		"of an older term":          {"q switch p b 1/9\nt takeover q c 1/8\nk kept q d 1/9\nl kept q b q/3", "", "t l"},
		"chosen":                    {"t takeover p b 1/5\nk kept p a 1/9\nr resolved k b 1/9 t", "", "r"},
		"chosen the other":          {"t takeover p b 1/5\nk kept p a 1/9\nr resolved t a 1/9 k", "", "r"},
		"one of three chosen":       {"t takeover p b 1/5\nu takeover p c 1/5\nw takeover p d 1/5\nr resolved t c 1/5 u", "", "r w|"},
		"a void choice":             {"t takeover p b 1/5\nk kept p a 1/9\nr resolved t a 1/9 k", "a", "t"},
		"a void choice, both back":  {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t c 1/9 u\nx takeover p d 1/1\ny switch u a 1/9", "c", "t|x y"},
		"a choice that was given":   {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t c 1/9 u\nq switch r a r/1", "c", "q"},
		"the lost side went on":     {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t b 1/9 u\nq switch u d u/1", "", "r q"},
		"the kept side was given":   {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t c 1/9 u\nq switch t d t/1", "", "q"},
		"the kept side was taken":   {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t c 1/9 u\nw takeover t d t/1", "", "r|w"},
		"the same chosen twice":     {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t c 1/9 u\ns resolved t b 1/9 u", "", "r|s one"},
		"twice, the first went on":  {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t c 1/9 u\nq switch r d r/1\ns resolved t b 1/9 u", "", "q"},
		"opposite choices":          {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t b 1/9 u\ns resolved u c 1/9 t", "", "r|s"},
		"opposite, chosen again":    {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t b 1/9 u\ns resolved u c 1/9 t\nx resolved r b 1/9 s", "", "x"},
		"a choice for a dead side":  {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t c 1/9 u", "b", "r"},
		"all by removed":            {"t takeover p b 1/5\nu takeover p c 1/9\nr resolved t c 1/9 u", "b c", "p"},
		"a kept that was chosen":    {"t takeover p b 1/5\nk kept p c 1/9\nr resolved k b 1/9 t", "c", "r"},
		"kept from two takeovers":   {"t takeover p b 1/5\nu takeover p c 1/6\nk kept p a 1/9", "", "t|u k"},
		"unused, with less":         {"q switch p c 1/3\ns switch q b q/5\nt takeover p b 1/1", "", "t s"},
		"unused, and kept":          {"q switch p c 1/3\ns switch q b q/5\nt takeover p b 1/1\nk kept q c q/5", "", "t k"},
		"unused, part of it kept":   {"q switch p c 1/3\ns switch q b q/5\nt takeover p b 1/1\nk kept q c q/4", "", "t s k"},
		"used, and kept":            {"q switch p c 1/3\ns switch q b q/5\nt takeover p d 1/1\nk kept q c q/5", "", "t s k"},
		"several kept, one is void": {"t takeover p b 1/5\nk kept p a 1/9", "a b", "p"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlan(t, c.plan)
			got := p.heads(strings.Fields(c.removed)...)
			if want := p.order(c.want); got != want {
				t.Errorf("heads %q, want %q", got, want)
			}
		})
	}
}

// TestContradictoryChoices: a side was chosen twice, and one of the choices was given up for the other side, which had gone
// on and was given up by the first: no choice may make all ends disappear, or one that was hidden appear.
func TestContradictoryChoices(t *testing.T) {
	p := newPlan(t, `
		t takeover p b 1/5
		u takeover p c 1/9
		q switch t d t/1
		r resolved u c 1/9 q
		s resolved u d 1/9 q`)
	low, high := "r", "s"
	if p.node(low).Term > p.node(high).Term {
		low, high = high, low
	}
	if got := p.heads(); got != high {
		t.Fatalf("heads %q, want %q", got, high)
	}
	p.add("x resolved t c 1/5 " + high)
	if got := p.heads(); got != "x" {
		t.Fatalf("heads %q, want x", got)
	}
	// All were given up or overtaken: the last choice counts.
	p = newPlan(t, `
		t takeover p b 1/5
		u takeover p c 1/9
		w takeover p e 1/2
		q switch t d t/1
		r resolved u d 1/9 q
		s resolved u c 1/9 w`)
	if p.node("r").Term > p.node("s").Term {
		p.add("z resolved u b 1/9 w")
	}
	last := p.tree.byTerm()[len(p.nodes)-1]
	p.add("x resolved t c 1/5 " + p.names[last.hash])
	if got := p.heads(); got != "x" {
		t.Fatalf("heads %q, want x", got)
	}
}

// order puts a|b by falling terms; "a|b one" is only the higher.
func (p *plan) order(want string) string {
	words := strings.Fields(want)
	one := len(words) > 1 && words[len(words)-1] == "one"
	if one {
		words = words[:len(words)-1]
	}
	last := ""
	for i, w := range words {
		alike := strings.FieldsFunc(w, func(r rune) bool { return r == '|' })
		if len(alike) > 1 || strings.Contains(w, "|") {
			if strings.HasSuffix(w, "|") && i > 0 { // "r w|": with the one before it
				alike = append([]string{last}, alike...)
				words[i-1] = ""
			}
			slices.SortFunc(alike, func(a, b string) int { return int(p.node(b).Term) - int(p.node(a).Term) })
			if one {
				alike = alike[:1]
			}
			words[i] = strings.Join(alike, " ")
		}
		last = w
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

// TestHeadsDependOnTheSetOnly adds the transfers of one history in many orders.
func TestHeadsDependOnTheSetOnly(t *testing.T) {
	p := newPlan(t, `
		q switch p b 1/9
		t takeover q c q/5
		u takeover q d q/6
		k kept q b q/9
		l kept q e q/7
		r resolved t c q/5 u k
		s resolved t b q/9 u k
		w switch t a t/2
		x takeover w d w/1
		y kept w a w/9`)
	want := p.heads("e")
	for range 200 {
		again := newTree()
		var rest []*node
		for _, n := range p.nodes { // the order of a map
			rest = append(rest, n)
		}
		for len(rest) > 0 {
			n := rest[0]
			rest = rest[1:]
			if n.parent != nil && again.nodes[n.parent.hash] == nil {
				rest = append(rest, n)
				continue
			}
			must(t, again.add(n.SignedTransfer))
		}
		p.tree = again
		if got := p.heads("e"); got != want {
			t.Fatalf("heads %q, and %q in another order", got, want)
		}
	}
}

// TestRelation asks how disks stand to histories.
func TestRelation(t *testing.T) {
	const takeover = `
		q switch p b 1/10
		r switch q c q/4
		t takeover r d r/7
		k kept r c r/9`
	const skipped = `
		q switch p b 1/10
		r returned q a 1/10
		s switch r b r/12
		t takeover s c 1/5`
	const chosen = `
		t takeover p b 1/5
		k kept p a 1/9
		r resolved k b 1/9 t
		w resolved t a t/3 k`
	const void = `
		t takeover p b 1/5
		u takeover p c t/8`
	for _, c := range []struct {
		plan, head, at string
		want           Relation
	}{
		{takeover, "t", "0/0", RelationBehind},
		{takeover, "t", "1/10", RelationBehind},
		{takeover, "t", "1/11", RelationDiverged},
		{takeover, "t", "q/4", RelationBehind},
		{takeover, "t", "q/5", RelationDiverged},
		{takeover, "t", "r/7", RelationBehind},
		{takeover, "t", "r/8", RelationDiverged},
		{takeover, "t", "t/1", RelationBehind},
		{takeover, "k", "r/8", RelationBehind},
		{takeover, "k", "t/1", RelationDiverged},
		{takeover, "r", "r/99", RelationBehind},
		{takeover, "r", "t/1", RelationDiverged},
		{takeover, "q", "r/1", RelationDiverged},
		// The first later transfer alone would say behind: the takeover began before it.
		{skipped, "t", "1/7", RelationDiverged},
		{skipped, "t", "1/5", RelationBehind},
		{skipped, "s", "1/10", RelationBehind},
		{skipped, "s", "q/1", RelationDiverged}, // a term in which nothing was written
		{skipped, "s", "r/12", RelationBehind},
		{skipped, "t", "r/1", RelationDiverged},
		// The kept side's owner wrote on until it heard of the choice.
		{chosen, "w", "t/9", RelationBehind},
		{chosen, "w", "1/5", RelationBehind},
		{chosen, "w", "1/6", RelationDiverged},
		{chosen, "r", "1/9", RelationBehind},
		{chosen, "r", "t/1", RelationDiverged},
		// A takeover that goes on with a void one's content.
		{void, "u", "t/8", RelationBehind},
		{void, "u", "t/9", RelationDiverged},
		{void, "u", "1/5", RelationBehind},
		{void, "u", "1/6", RelationDiverged},
		{void, "p", "77/1", RelationDiverged},
	} {
		p := newPlan(t, c.plan)
		d := fresh(t, "a")
		d.trees["v"] = p.tree
		if got := d.Relation(p.node(c.head).hash, p.position(c.at)); got != c.want {
			t.Errorf("%s to %s of%s: %s, want %s", c.at, c.head, c.plan, got, c.want)
		}
	}
	d := fresh(t, "a")
	if got := d.Relation(Hash{1}, Position{1, 1}); got != RelationUnknown {
		t.Errorf("an unknown head: %s", got)
	}
	// Under the choice that counts in the end, it goes on with what was written under the other.
	p := newPlan(t, "t takeover p b 1/5\nu takeover p c 1/6\nr resolved t c 1/5 u\ns resolved t b 1/5 u")
	d.trees["v"] = p.tree
	low, high := p.node("r"), p.node("s")
	if low.Term > high.Term {
		low, high = high, low
	}
	for _, c := range []struct {
		head *node
		at   Position
		want Relation
	}{
		{high, Position{low.Term, 9}, RelationBehind},
		{high, Position{high.Term, 9}, RelationBehind},
		{high, p.position("t/9"), RelationBehind},
		{high, p.position("u/1"), RelationDiverged},
		{low, Position{high.Term, 1}, RelationDiverged},
	} {
		if got := d.Relation(c.head.hash, c.at); got != c.want {
			t.Errorf("%v to %d: %s, want %s", c.at, c.head.Term, got, c.want)
		}
	}
	// Positions that lie end the way, they don't go round.
	p = newPlan(t, "q switch p b 2/7\nr switch q a 9/1")
	d.trees["v"] = p.tree
	for _, at := range []string{"1/1", "2/7", "9/1"} {
		if got := d.Relation(p.node("r").hash, p.position(at)); got != RelationDiverged {
			t.Errorf("%s to a lie: %s", at, got)
		}
	}
}

func TestCommonPosition(t *testing.T) {
	for _, c := range []struct{ plan, want string }{
		{"", "0/0"},
		{"q switch p b 1/9", "1/9"},
		{"t takeover p b 1/5\nk kept p a 1/9", "1/5"},
		{"t takeover p b 1/5\nu takeover p c 1/4\nk kept p a 1/9", "1/4"},
		{"q switch p b 1/9\nt takeover p c 1/5", "1/5"},
		{"q switch p b 1/9\nt takeover q c 1/7\nk kept q b q/3", "1/7"},
		{"t takeover p b 0/0\nk kept p a 1/9", "0/0"},
		{"t takeover p b 1/5\nu takeover p c 1/6\nr resolved t b 1/9 u\nw takeover t d t/4", "t/4"},
	} {
		p := newPlan(t, c.plan)
		d := fresh(t, "a")
		d.trees["v"] = p.tree
		if got := d.CommonPosition("v"); got != p.position(c.want) {
			t.Errorf("common of %q: %v, want %s", c.plan, got, c.want)
		}
	}
	if got := fresh(t, "a").CommonPosition("nothing"); got != (Position{}) {
		t.Errorf("of nothing: %v", got)
	}
}
