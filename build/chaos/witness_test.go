//go:build linux

package chaos

import (
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

func TestWhatACopyMustHave(t *testing.T) {
	h := &history{}
	for i := range uint64(5) {
		h.told(10 * i)
		h.covered(api.Position{Term: 1 + i/3, Barrier: 100 + i}, 10*i)
	}
	for _, c := range []struct {
		at   api.Position
		must uint64
	}{{api.Position{}, 0}, {api.Position{Term: 1, Barrier: 99}, 0}, {api.Position{Term: 1, Barrier: 101}, 10}, {api.Position{Term: 1, Barrier: 900}, 20}, {api.Position{Term: 2, Barrier: 103}, 30}, {api.Position{Term: 9}, 40}} {
		if got := h.by(c.at); got != c.must {
			t.Errorf("at %v: %d, not %d", c.at, got, c.must)
		}
	}
	f := h.fork(1, api.Position{Term: 1, Barrier: 101})
	if f.durable != 10 || f.by(api.Position{Term: 9}) != 10 || h.by(api.Position{Term: 9}) != 40 {
		t.Errorf("forked: %+v", f)
	}
}

func TestDoubleRunsAreFound(t *testing.T) {
	s := func(pc, run string, history int, from, to float64, first, last uint64) stretch {
		return stretch{pc: pc, run: run, history: history, first: first, last: last,
			from: time.Duration(from * float64(time.Second)), to: time.Duration(to * float64(time.Second))}
	}
	for _, c := range []struct {
		name string
		all  []stretch
		bad  bool
	}{
		{"a switch", []stretch{s("a", "r", 0, 0, 10, 1, 1000), s("b", "r", 0, 10, 20, 1001, 2000)}, false},
		{"a switch, a tick twice", []stretch{s("a", "r", 0, 0, 10, 1, 1000), s("b", "r", 0, 10, 20, 1000, 2000)}, true},
		{"killed and started again", []stretch{s("a", "r", 0, 0, 10, 1, 1000), s("a", "q", 0, 12, 20, 1, 800)}, false},
		{"started while another runs", []stretch{s("a", "r", 0, 0, 15, 1, 1500), s("b", "q", 0, 12, 20, 1, 800)}, true},
		{"taken over while another runs", []stretch{s("a", "r", 0, 0, 15, 1, 1500), s("b", "q", 1, 12, 20, 1, 800)}, false},
	} {
		if err := doubleRuns(c.all); (err != nil) != c.bad {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
