package app

import (
	"testing"

	"tagalong.org/tagalong/app/api"
)

// A seed tells how fast it goes and how long it takes still. Cancelled on the way it isn't lost: what was read isn't fetched, and nothing waits for it.
func TestACancelledSeedIsOfUse(t *testing.T) {
	for _, name := range []string{"work.raw", "work.qcow2"} {
		t.Run(name, func(t *testing.T) {
			s := newSeedableAt(t, 32<<20, 4<<20) // so that it takes eight seconds
			file := s.export(t, name)
			s.guest.wants.Store(true)
			job, err := s.other.engine.SeedVM(t.Context(), api.SeedVM{VM: "Work", File: file})
			if err != nil {
				t.Fatal(err)
			}
			var at api.Job
			// What qemu-img has read counts, some MiB of which are on their way still.
			until(t, "three quarters, with how long the rest takes", func() bool {
				at = s.other.engine.job(job.ID).snapshot()
				return at.Done || at.Bytes >= s.size*3/4 && at.Rate > 0 && at.ETA > 0
			})
			if at.Done || at.Total != s.size || at.Bytes > s.size {
				t.Fatalf("it went like this: %+v, %v", at, at.Error)
			}
			if err := s.other.engine.CancelJob(t.Context(), job.ID); err != nil {
				t.Fatal(err)
			}
			if j := s.other.finished(job.ID); j.Error == nil || j.Error.Code != api.CodeCancelled {
				t.Fatalf("cancelled, it ended with %v", j.Error)
			}
			s.guest.wants.Store(false)
			s.welcome()
			s.same(t)
			if n := moved(s.owner, s.other, s.id); n == 0 || n > s.size*7/8 {
				t.Errorf("%d bytes moved of %d, of which %d were read before", n, s.size, at.Bytes)
			}
		})
	}
}
