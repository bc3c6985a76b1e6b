package api

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawn is a history as lines of tree, number and hash.
func drawn(entries []HistoryEntry) string {
	var b strings.Builder
	for _, l := range HistoryTree(entries) {
		fmt.Fprintf(&b, "%s %d %s", l.Tree, l.Number, l.Hash)
		if len(l.OverLines) > 0 {
			fmt.Fprintf(&b, " over %v", l.OverLines)
		}
		if l.GivenUpBy > 0 {
			fmt.Fprintf(&b, " given up by %d", l.GivenUpBy)
		}
		if l.Newest {
			b.WriteString(" newest")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestHistoryTree(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []HistoryEntry
		want    string
	}{
		{"nothing", nil, ""},
		{"one line", []HistoryEntry{{Hash: "a", Term: 1}, {Hash: "b", Prev: "a", Term: 2}}, "● 1 a\n● 2 b newest\n"},
		{"a conflict", []HistoryEntry{{Hash: "a", Term: 1, Kind: "created"}, {Hash: "t", Prev: "a", Term: 300, Kind: "takeover"},
			{Hash: "k", Prev: "a", Term: 9000, Kind: "kept"}, {Hash: "u", Prev: "t", Term: 301, Kind: "switch"}},
			"● 1 a\n├─● 2 k newest\n● 3 t\n● 4 u newest\n"},
		{"resolved for the taker", []HistoryEntry{{Hash: "a", Term: 1}, {Hash: "t", Prev: "a", Term: 300}, {Hash: "k", Prev: "a", Term: 900, Lost: true},
			{Hash: "r", Prev: "t", Term: 2000, Kind: "resolved", Over: []string{"k", "unheard of"}}},
			"● 1 a\n├─○ 2 k given up by 4 newest\n● 3 t\n● 4 r over [2] newest\n"},
		{"resolved for the one that kept", []HistoryEntry{{Hash: "a", Term: 1}, {Hash: "t", Prev: "a", Term: 300, Lost: true},
			{Hash: "u", Prev: "t", Term: 301, Lost: true}, {Hash: "k", Prev: "a", Term: 900, Kind: "kept"},
			{Hash: "r", Prev: "k", Term: 2000, Kind: "resolved", Over: []string{"u"}}},
			"● 1 a\n├─○ 2 t\n│ ○ 3 u given up by 5 newest\n● 4 k\n● 5 r over [3] newest\n"},
		{"a side's side", []HistoryEntry{{Hash: "a", Term: 1}, {Hash: "b", Prev: "a", Term: 10, Lost: true}, {Hash: "c", Prev: "b", Term: 20, Lost: true},
			{Hash: "d", Prev: "b", Term: 30, Lost: true}, {Hash: "e", Prev: "a", Term: 5}},
			"● 1 a\n├─○ 2 b\n│ ├─○ 3 c newest\n│ ○ 4 d newest\n● 5 e newest\n"},
		{"the beginning is missing", []HistoryEntry{{Hash: "b", Prev: "a", Term: 2}, {Hash: "c", Prev: "b", Term: 3}}, "● 1 b\n● 2 c newest\n"},
		{"twice, in circles, and after itself", []HistoryEntry{{Hash: "a", Prev: "b"}, {Hash: "b", Prev: "a"}, {Hash: "s", Prev: "s"}, {Hash: "s", Prev: "a"}},
			"● 1 s newest\n● 2 a\n├─● 3 b\n"},
	} {
		if got := drawn(c.entries); got != c.want {
			t.Errorf("%s: got\n%swant\n%s", c.name, got, c.want)
		}
	}
}

// Whatever the list, every entry is drawn once, below the one that it follows, and the numbers go down the page.
func TestHistoryTreeOfAnything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e", "f", "g", "h"})
		var entries []HistoryEntry
		hashes := map[string]bool{}
		for range rapid.IntRange(0, 12).Draw(rt, "n") {
			e := HistoryEntry{Hash: names.Draw(rt, "hash"), Prev: names.Draw(rt, "prev"), Term: uint64(rapid.IntRange(0, 9).Draw(rt, "term")),
				Lost: rapid.Bool().Draw(rt, "lost"), Kind: rapid.SampledFrom([]string{"switch", "kept"}).Draw(rt, "kind"), Over: []string{names.Draw(rt, "over")}}
			entries = append(entries, e)
			hashes[e.Hash] = true
		}
		seen := map[string]int{}
		for i, l := range HistoryTree(entries) {
			if l.Number != i+1 || seen[l.Hash] != 0 {
				rt.Fatalf("line %d is %+v", i, l)
			}
			seen[l.Hash] = l.Number
			if l.Depth > 0 && seen[l.Prev] == 0 {
				rt.Fatalf("a side without what it left: %+v", l)
			}
		}
		if len(seen) != len(hashes) {
			rt.Fatalf("%d of %d drawn", len(seen), len(hashes))
		}
	})
}
