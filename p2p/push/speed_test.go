package push_test

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/p2p/push"
)

// How much is compressed follows what the link is found to carry: all of it over a slow one; over one that carries more than a part of a core can compress, only
// what went before that was known, and a try now and then.
func TestTheLinksSpeedIsGoneBy(t *testing.T) {
	for name, c := range map[string]struct {
		size        int64
		rate        float64
		least, most float64 // of the content goes over the link
	}{
		"slow":      {16 * mib, sevenMbit, 0.3, 0.55},
		"fast":      {16 * mib, 10e6, 0.3, 0.55},
		"very fast": {64 * mib, 500e6, 0.85, 1.01},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(4, 4))
				cut := newContent(c.size, nil)
				for x := range c.size / block { // half of each block compresses well
					p := append(noise(r.Uint64())[:block/2:block/2], bytes.Repeat([]byte{byte(x), byte(x >> 8), 'x', 'y'}, block/8)...)
					cut.here[x] = p
				}
				d := newReplica(newContent(c.size, nil), at(1))
				a, b := newLink(c.rate, 40*time.Millisecond)
				var st [2]push.Stats
				if sent, received := pushed(t, a, b, hello(c.size, at(2)), push.Work{Source: &source{content: cut}, Exact: true}, d, nil, &st); sent != nil || received != nil {
					t.Fatal(sent, received)
				}
				d.equals(t, cut, at(2))
				part := float64(a.out.bytes) / float64(st[0].Content.Load())
				t.Logf("%.3f of %d bytes", part, st[0].Content.Load())
				if part < c.least || part > c.most {
					t.Errorf("%.3f of the content went over a link of %.0f bytes a second, want %g to %g", part, c.rate, c.least, c.most)
				}
			})
		})
	}
}
