//go:build linux

package matrix

import (
	"slices"
	"testing"
)

func TestTheTableHasEachCell(t *testing.T) {
	table, err := readTable(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	for c, words := range table {
		if words != none && !possible(words) {
			t.Errorf("%v: nothing that can come to pass fits %q", c, words)
		}
	}
}

func TestASampleIsOfAllSorts(t *testing.T) {
	for seed := range uint64(50) {
		list := sample(all(), seed, 7)
		var f []Fault
		var p []Phase
		for _, c := range list {
			if !c.there() {
				t.Fatalf("seed %d: there is no %v", seed, c)
			}
			f, p = append(f, c.Fault), append(p, c.Phase)
		}
		slices.Sort(f)
		slices.Sort(p)
		if len(list) != 7 || len(slices.Compact(f)) < 6 || len(slices.Compact(p)) < 6 {
			t.Errorf("seed %d: %v", seed, list)
		}
	}
	for _, cells := range [][]Cell{all(), allCarried()} {
		if n := len(sample(cells, 1, 1000)); n != len(cells) {
			t.Errorf("a sample of everything has %d of %d", n, len(cells))
		}
	}
}
