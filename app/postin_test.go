package app

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/throttle"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// A push waits for its turn where earlier ones are still being stored, and is refused before it has sent anything if that takes long.
func TestAPushWaitsForEarlierOnes(t *testing.T) {
	const size, cut = 8 << 20, 1 << 20
	for name, x := range map[string]struct {
		rate int64 // at which layers are merged, in bytes a second
		busy bool
		took time.Duration
	}{
		"a moment": {cut / 5, false, 5 * time.Second}, "long": {1, true, pushTurn},
	} {
		synctest.Test(t, func(t *testing.T) {
			must := func(errs ...error) {
				t.Helper()
				if err := errors.Join(errs...); err != nil {
					t.Fatal(err)
				}
			}
			disk, err := vmdisk.CreateReplica("", vmdisk.ID{1}, size, vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1, Background: throttle.New(x.rate)})
			must(err)
			defer disk.Close()
			a, err := disk.Apply()
			must(err)
			must(a.Begin([16]byte{1}), a.Barrier(vmdisk.Position{Term: 1, Barrier: 1}))
			p := make([]byte, cut)
			for n := byte(2); err == nil; n++ {
				p[0] = n
				if err = a.Begin([16]byte{n}); err == nil {
					must(a.Write(0, p[:cut/2]), a.Write(cut/2, p[cut/2:]), a.Barrier(vmdisk.Position{Term: 1, Barrier: uint64(n)}))
				}
			}
			if !errors.Is(err, vmdisk.ErrMerging) {
				t.Fatal(err)
			}
			began := time.Now()
			err = awaitTurn(t.Context(), a)
			var refusal *replica.Refusal
			if busy := errors.As(err, &refusal) && refusal.Code == replica.RefuseBusy; busy != x.busy || !busy && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(began); took > x.took+time.Second {
				t.Errorf("%s: it took %s", name, took)
			}
		})
	}
}
