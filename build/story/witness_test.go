//go:build linux

package story

import (
	"testing"
	"time"
)

func TestDoubleRunsAreFound(t *testing.T) {
	s := func(pc, run string, history int, from, to float64, first, last uint64) Stretch {
		return Stretch{PC: pc, Run: run, History: history, First: first, Last: last,
			From: time.Duration(from * float64(time.Second)), To: time.Duration(to * float64(time.Second))}
	}
	for _, c := range []struct {
		name string
		all  []Stretch
		bad  bool
	}{
		{"a switch", []Stretch{s("a", "r", 0, 0, 10, 1, 1000), s("b", "r", 0, 10, 20, 1001, 2000)}, false},
		{"a switch, a tick twice", []Stretch{s("a", "r", 0, 0, 10, 1, 1000), s("b", "r", 0, 10, 20, 1000, 2000)}, true},
		{"killed and started again", []Stretch{s("a", "r", 0, 0, 10, 1, 1000), s("a", "q", 0, 12, 20, 1, 800)}, false},
		{"started while another runs", []Stretch{s("a", "r", 0, 0, 15, 1, 1500), s("b", "q", 0, 12, 20, 1, 800)}, true},
		{"taken over while another runs", []Stretch{s("a", "r", 0, 0, 15, 1, 1500), s("b", "q", 1, 12, 20, 1, 800)}, false},
	} {
		if err := DoubleRuns(c.all); (err != nil) != c.bad {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
