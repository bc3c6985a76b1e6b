package nbd

import (
	"testing"
	"time"
)

// What the disk took for requests is counted, be they carried out side by side or by the goroutine that reads, and so are those that wait for it now.
func TestHowLongRequestsTook(t *testing.T) {
	t.Run("side by side", func(t *testing.T) {
		d, g := newMemDisk(1<<20), newGate()
		d.setHook(g.hold(0))
		s := serve(t, &Server{Backend: d})
		c := connect(t, s.path, "", true)
		began := time.Now()
		c.ask(cmdWrite, 0, 0, 4096, fill(4096, 1))
		wait(t, g.entered)
		entered := time.Now() // how long it was on its way to the disk doesn't count
		if st := s.Stats(); st.Open != 1 || st.Took != 0 {
			t.Errorf("while one waits: %+v", st)
		}
		for time.Since(entered) < 20*time.Millisecond {
			time.Sleep(time.Millisecond)
		}
		held := time.Since(entered)
		g.release <- nil
		c.next(0)
		for s.Stats().Open != 0 {
			time.Sleep(time.Millisecond)
		}
		if st := s.Stats(); st.Took < held || st.Took > time.Since(began) {
			t.Errorf("one that was held for %s took %s", held, st.Took)
		}
	})
	t.Run("inline", func(t *testing.T) {
		d := newMemDisk(1 << 20)
		s := serve(t, &Server{Backend: parts{d, 1 << 20}})
		c := connect(t, s.path, "", true)
		began := time.Now()
		for range 20 * sampled {
			c.must(cmdRead, 0, 0, 4096, nil)
		}
		if st := s.Stats(); st.Took <= 0 || st.Took > sampled*time.Since(began) || st.Open != 0 {
			t.Errorf("%+v in %s", st, time.Since(began))
		}
	})
}
