//go:build linux

package chaos

import (
	"testing"

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
