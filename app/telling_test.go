package app

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
)

// toldOf waits until d's directory says that of another's replica, and returns where that is stale.
func (d *device) toldOf(vm string, other *device, what string, certain bool, stale uint64) (runs [][2]uint64) {
	d.t.Helper()
	until(d.t, what, func() bool {
		info, ok := d.engine.dir.Replicas(vm)[other.engine.host.ID()]
		if !ok || info.Certain != certain || info.StaleBlocks != stale || !info.Complete {
			return false
		}
		set, err := d.engine.dir.StaleSet(vm, other.engine.host.ID())
		if err != nil {
			return false
		}
		runs = nil
		for first, n := range set {
			runs = append(runs, [2]uint64{first, n})
		}
		return true
	})
	return runs
}

// A third device knows what one that is away lacks, and whether that is certain.
func TestReplicasAreTold(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	third := newDevice(t, "third")
	pair(t, desk, third)
	laptopID := laptop.engine.host.ID()
	third.toldOf(v.ID, laptop, "that the laptop has all", false, 0)
	laptop.stop()
	until(t, "the laptop is away", func() bool {
		s, _ := desk.vm("Work")
		return slices.ContainsFunc(s.Replicas, func(r api.Replica) bool { return r.Device == laptopID && r.State == api.ReplicaAway })
	})
	for _, block := range []int64{3, 5, 6} {
		desk.write(v.ID, block, 7)
	}
	if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	runs := third.toldOf(v.ID, laptop, "what the laptop lacks", true, 3)
	if !slices.Equal(runs, [][2]uint64{{3, 1}, {5, 2}}) {
		t.Errorf("it lacks %v", runs)
	}
	info := third.engine.dir.Replicas(v.ID)[laptopID]
	if at := desk.engine.vm(v.ID).currentDisk().Info().Position; vmdisk.Position(info.Of) != at || info.Position == info.Of || info.Heard.IsZero() || info.Heard.After(info.At) {
		t.Errorf("told %+v, the disk is at %s", info, at)
	}
	// What is certain is so whatever happens to the desk now: a copy of its files is what its death would leave.
	var dead string
	until(t, "a copy of its files", func() bool {
		dead = t.TempDir()
		err := os.CopyFS(dead, os.DirFS(desk.engine.vm(v.ID).diskDir()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // that one got its name meanwhile
			t.Fatal(err)
		}
		return err == nil
	})
	disk, err := vmdisk.Open(dead, vmdisk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if at := disk.Info().Position; at != vmdisk.Position(info.Of) {
		t.Errorf("after its owner's death the disk is at %s, and %s was certain", at, vmdisk.Position(info.Of))
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ := third.vm("Work")
	i := slices.IndexFunc(s.Replicas, func(r api.Replica) bool { return r.Device == laptopID })
	if i < 0 || s.Replicas[i].State != api.ReplicaAway || s.Replicas[i].Remaining != 3*blockSize || s.Replicas[i].Since.IsZero() || s.Replicas[i].At.IsZero() || s.Replicas[i].Silent {
		t.Errorf("the third shows %+v", s.Replicas)
	}
	if err := desk.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	if desk.engine.dir.Replicas(v.ID)[laptopID].Certain {
		t.Error("the guest runs, and what it writes is still certain not to be")
	}
	third.toldOf(v.ID, laptop, "that it is uncertain again", false, 3)
}

func TestTellingIsDue(t *testing.T) {
	now := time.Unix(1e9, 0)
	last := telling{gist: "g", remaining: 5, of: vmdisk.Position{Term: 1, Barrier: 9}, at: now}
	for name, c := range map[string]struct {
		change func(now, last *telling)
		after  time.Duration
		want   bool
	}{
		"nothing new, long":     {func(_, _ *telling) {}, time.Hour, false},
		"never told":            {func(_, last *telling) { last.at = time.Time{} }, 0, true},
		"another gist":          {func(now, last *telling) { now.gist, last.pause = "h", time.Hour }, 0, true},
		"more, soon":            {func(now, _ *telling) { now.remaining++ }, tellEvery - 1, false},
		"more":                  {func(now, _ *telling) { now.remaining++ }, tellEvery, true},
		"position":              {func(now, _ *telling) { now.of.Barrier++ }, tellEvery, true},
		"acknowledged":          {func(now, _ *telling) { now.acked.Barrier++ }, tellEvery, true},
		"more, dear":            {func(now, last *telling) { now.remaining++; last.pause = 5 * time.Minute }, 5*time.Minute - 1, false},
		"more, dear, long":      {func(now, last *telling) { now.remaining++; last.pause = 5 * time.Minute }, 5 * time.Minute, true},
		"live":                  {func(now, last *telling) { now.live, last.remaining = true, 0 }, tellLive - 1, false},
		"live, long":            {func(now, last *telling) { now.live, last.remaining = true, 0 }, tellLive, true},
		"live, was told behind": {func(now, _ *telling) { now.live, now.remaining = true, 0 }, tellEvery, true},
	} {
		n, l := last, last
		c.change(&n, &l)
		n.at = now.Add(c.after)
		if n.due(l) != c.want {
			t.Errorf("%s: %v", name, !c.want)
		}
	}
}
