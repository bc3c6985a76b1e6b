package api

import (
	"cmp"
	"slices"
)

// HistoryLine is one entry of a VM's history where it is drawn: the main line runs straight down, sides hang off it, indented.
type HistoryLine struct {
	HistoryEntry
	// Number counts the lines from 1, down the page. Terms jump; people count.
	Number int
	// Depth is 0 on the main line, 1 on a side of it, 2 on a side's side.
	Depth int
	// Tree is what leads to the entry: "●", "├─○", "│ ○". Circles that are empty are sides that were given up.
	Tree string
	// Newest says that nothing follows it.
	Newest bool
	// OverLines are the numbers of what a resolution gave up; GivenUpBy is the number of the resolution that gave this very entry up, or 0.
	OverLines []int
	GivenUpBy int
}

// HistoryTree lays a history out from top to bottom, as it happened: the oldest first, each entry somewhere below the one that it follows,
// and the line of the present owner straight. It takes any list: what follows nothing that is known begins a line of its own.
func HistoryTree(entries []HistoryEntry) []HistoryLine {
	d := &historyDrawing{byHash: map[string]*HistoryEntry{}, next: map[string][]string{}, main: map[string]string{}, number: map[string]int{}}
	var starts []string
	for i := range entries {
		e := &entries[i]
		if _, twice := d.byHash[e.Hash]; twice {
			continue
		}
		d.byHash[e.Hash] = e
	}
	for i := range entries {
		e := &entries[i]
		if d.byHash[e.Hash] != e {
			continue
		}
		if _, known := d.byHash[e.Prev]; known && e.Prev != e.Hash {
			d.next[e.Prev] = append(d.next[e.Prev], e.Hash)
		} else {
			starts = append(starts, e.Hash)
		}
	}
	d.choose()
	for _, start := range starts {
		d.line(start, "", "", 0)
	}
	for i := range entries { // what goes round in circles starts nowhere
		d.line(entries[i].Hash, "", "", 0)
	}
	for i := range d.lines {
		l := &d.lines[i]
		for _, hash := range l.Over {
			n, known := d.number[hash]
			if !known {
				continue
			}
			l.OverLines = append(l.OverLines, n)
			if d.lines[n-1].GivenUpBy == 0 {
				d.lines[n-1].GivenUpBy = l.Number
			}
		}
		slices.Sort(l.OverLines)
	}
	return d.lines
}

type historyDrawing struct {
	byHash map[string]*HistoryEntry
	next   map[string][]string // by the hash that is followed
	main   map[string]string   // which of them goes straight on
	lines  []HistoryLine
	number map[string]int
}

// choose finds the way of the main line: to the newest entry that wasn't given up, rather not one that only claims to have kept something.
func (d *historyDrawing) choose() {
	var ends []*HistoryEntry
	for hash, e := range d.byHash {
		if len(d.next[hash]) == 0 {
			ends = append(ends, e)
		}
	}
	rank := func(e *HistoryEntry) int {
		switch {
		case e.Lost:
			return 0
		case e.Kind == "kept":
			return 1
		}
		return 2
	}
	slices.SortFunc(ends, func(a, b *HistoryEntry) int {
		return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(b.Term, a.Term), cmp.Compare(a.Hash, b.Hash))
	})
	for _, e := range ends { // the best first: whoever comes to a fork later takes the side
		for {
			if _, taken := d.main[e.Prev]; taken || e.Prev == e.Hash || d.byHash[e.Prev] == nil {
				break
			}
			d.main[e.Prev] = e.Hash
			e = d.byHash[e.Prev]
		}
	}
}

// line draws an entry and what follows it straight; first leads to it, rest to the others.
func (d *historyDrawing) line(hash, first, rest string, depth int) {
	for lead, on := first, true; on && d.number[hash] == 0; lead = rest {
		e := d.byHash[hash]
		dot := "●"
		if e.Lost {
			dot = "○"
		}
		d.lines = append(d.lines, HistoryLine{HistoryEntry: *e, Number: len(d.lines) + 1, Depth: depth, Tree: lead + dot, Newest: len(d.next[hash]) == 0})
		d.number[hash] = len(d.lines)
		for _, side := range d.next[hash] {
			if side != d.main[hash] {
				d.line(side, rest+"├─", rest+"│ ", depth+1)
			}
		}
		hash, on = d.main[hash]
	}
}
