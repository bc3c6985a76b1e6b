package app

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/postal"
	"tagalong.org/tagalong/vmdisk"
)

// hasty are the scheduler's times of a test that has no quarter of an hour.
func hasty(e *Engine) {
	e.post.times = postal.Times{Rest: 20 * time.Millisecond, Gap: 20 * time.Millisecond, Overdue: time.Hour}
}

// places are devices by name, each pinned to a site.
type places map[string]*device

// fleetOf makes the devices one fleet that has been up for a while: by site, the names of its devices.
func fleetOf(t *testing.T, sites map[string][]string) places {
	t.Helper()
	return fleetThat(t, hasty, sites)
}

// fleetThat is fleetOf with engines that are prepared so.
func fleetThat(t *testing.T, prepare func(*Engine), sites map[string][]string) places {
	t.Helper()
	all := places{}
	var first *device
	var list []*device
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		for _, m := range sites[name] {
			d := newDevice(t, m)
			d.prepare = prepare
			d.stop()
			d.start()
			all[m], list = d, append(list, d)
			if first == nil {
				first = d
			} else {
				pair(t, first, d)
			}
		}
	}
	linked(t, list...)
	for name, members := range sites {
		for _, m := range members {
			if err := first.engine.PinDevice(t.Context(), api.PinDevice{Device: m, Site: name}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, d := range list {
		d.settleSites(sites)
	}
	return all
}

// settleSites has the device's clock run faster until it sees the sites as they are and each has a postmaster, or with nil, until it is one.
func (d *device) settleSites(sites map[string][]string) {
	d.t.Helper()
	until(d.t, d.name+" to see all sites", func() bool {
		s := &d.engine.sites
		s.mu.Lock()
		s.clock.at += 4 * time.Second
		s.mu.Unlock()
		d.engine.keepSites()
		s.mu.Lock()
		defer s.mu.Unlock()
		if sites == nil {
			return s.view.Acting
		}
		for _, site := range s.view.Sites {
			if site.Postmaster == "" || len(site.Members) != len(sites[site.Name]) {
				return false
			}
		}
		return len(s.view.Sites) == len(sites) && (s.view.Here.Postmaster != d.engine.host.ID() || s.view.Acting)
	})
}

func (d *device) disk(vm string) *vmdisk.Store {
	if v := d.engine.vm(vm); v != nil {
		return v.currentDisk()
	}
	return nil
}

// whole is the content of the device's disk; nil if it has none that is whole.
func (d *device) whole(vm string) []byte {
	disk := d.disk(vm)
	if disk == nil || !disk.Info().Complete {
		return nil
	}
	b := make([]byte, disk.Size())
	if err := disk.ReadAt(b, 0); err != nil {
		return nil
	}
	return b
}

// sameAs waits until the others' disks are what the owner's is.
func (d *device) sameAs(vm string, others ...*device) {
	d.t.Helper()
	for _, o := range others {
		until(d.t, o.name+"'s copy to be the disk", func() bool { return bytes.Equal(o.whole(vm), d.whole(vm)) })
	}
}

// scatter writes blocks of noise.
func (d *device) scatter(vm string, r *rand.Rand, blocks ...int64) {
	d.t.Helper()
	for _, x := range blocks {
		b := make([]byte, blockSize)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if err := d.disk(vm).WriteAt(b, x*blockSize, false); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := d.disk(vm).Flush(); err != nil {
		d.t.Fatal(err)
	}
}

// The owner pushes to a device at another site, which it doesn't mirror to, and knows what that has; what was changed travels once.
func TestPushToAnotherSite(t *testing.T) {
	all := fleetOf(t, map[string][]string{"home": {"desk"}, "office": {"laptop"}})
	desk, laptop := all["desk"], all["laptop"]
	v := desk.create("Work")
	r := rand.New(rand.NewPCG(1, 1))
	desk.scatter(v.ID, r, 1, 2, 3, 700)
	desk.sameAs(v.ID, laptop)
	clean := func() bool {
		lag, ok := desk.disk(v.ID).Lag(laptop.engine.host.ID())
		if !ok {
			return false
		}
		defer lag.Release()
		for range lag.Runs() {
			return false
		}
		return lag.Acked == laptop.disk(v.ID).Position()
	}
	until(t, "the owner to know of the first copy", clean)
	before, _ := laptop.engine.host.Traffic(desk.engine.host.ID())
	blocks := r.Perm(testDisk / blockSize)[:200]
	for i := range blocks {
		desk.scatter(v.ID, r, int64(blocks[i]))
	}
	desk.sameAs(v.ID, laptop)
	until(t, "the owner to know of it", clean)
	after, _ := laptop.engine.host.Traffic(desk.engine.host.ID())
	if n := after - before; n < 200*blockSize || n > 2*200*blockSize {
		t.Errorf("%d bytes for 200 blocks", n)
	}
	if sent := desk.engine.vm(v.ID).feed(laptop.engine.host.ID()).stats.Sent.Load(); sent != 0 {
		t.Errorf("%d bytes were mirrored to another site", sent)
	}
	until(t, "the fleet to know where the copy is", func() bool {
		told := laptop.engine.dir.Replicas(v.ID)[laptop.engine.host.ID()]
		return told.Complete && told.StaleBlocks == 0 && vmdisk.Position(told.Position) == laptop.disk(v.ID).Position()
	})
	s, _ := desk.vm("Work")
	if len(s.Replicas) != 1 || s.Replicas[0].State != api.ReplicaWaiting || s.Replicas[0].Remaining != 0 {
		t.Errorf("it is shown as %+v", s.Replicas)
	}
}

// A switch to another site takes what is missing along, as it does within a site.
func TestSwitchToAnotherSite(t *testing.T) {
	all := fleetOf(t, map[string][]string{"home": {"desk"}, "office": {"laptop"}})
	desk, laptop := all["desk"], all["laptop"]
	v := desk.create("Work")
	r := rand.New(rand.NewPCG(2, 1))
	desk.scatter(v.ID, r, 1, 2, 3)
	desk.sameAs(v.ID, laptop)
	desk.scatter(v.ID, r, 4, 5)
	want := desk.whole(v.ID)
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := laptop.ended("Work"); s.Error != nil {
		t.Fatal(s.Error)
	}
	// What hasn't come before it went there comes after it.
	until(t, "the disk to be what it was", func() bool { return bytes.Equal(laptop.whole(v.ID), want) })
	laptop.scatter(v.ID, r, 9)
	laptop.sameAs(v.ID, desk)
}

// Where a copy came from outlives the engine: a postmaster goes on with the owner's changes after a restart.
func TestWhereACopyCameFromIsKept(t *testing.T) {
	_, other, v := twoDevices(t)
	kept := func() bool {
		x := other.engine.vm(v.ID)
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.mirrored && x.mirroredKept
	}
	until(t, "it to be noted", kept)
	other.stop()
	e, err := open(other.options())
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	b, err := e.dir.Local(sourceKey(v.ID))
	if err != nil || string(b) != "true" {
		t.Errorf("noted: %q, %v", b, err)
	}
}
