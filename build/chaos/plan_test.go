//go:build linux

package chaos

import (
	"slices"
	"testing"
	"time"
)

func TestAPlanIsItsSeeds(t *testing.T) {
	if a, b := NewPlan(7, 3, time.Hour), NewPlan(7, 3, time.Hour); !slices.Equal(a, b) {
		t.Error("one seed made two plans")
	}
	if a, b := NewPlan(7, 3, time.Hour), NewPlan(8, 3, time.Hour); slices.Equal(a, b) {
		t.Error("two seeds made one plan")
	}
	total := 0
	for _, w := range weights {
		total += w.of
	}
	if total != 100 {
		t.Errorf("the weights are %d of a hundred", total)
	}
	for seed := range uint64(200) {
		p := NewPlan(seed, 3, 90*time.Second)
		seen := map[Kind]bool{}
		for i, s := range p {
			seen[s.Kind] = true
			if i > 0 && s.At <= p[i-1].At || s.PC < Owner || s.PC > 2 || s.Kind.Lasts() != (s.For > 0) {
				t.Fatalf("seed %d: step %d is %v", seed, i, s)
			}
		}
		for _, k := range opening {
			if !seen[k] {
				t.Fatalf("seed %d has no %s within a minute and a half: %v", seed, k, p)
			}
		}
	}
}
