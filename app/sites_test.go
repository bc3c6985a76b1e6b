package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p/site"
)

func (d *device) site(of *device) api.DeviceSite {
	d.t.Helper()
	s, err := d.engine.Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, dev := range append(s.Devices, s.Device) {
		if dev.ID == of.engine.host.ID() && dev.Site != nil {
			return *dev.Site
		}
	}
	return api.DeviceSite{}
}

// TestPostmasterSaysGoodbye goes through a site's life: devices that the person has put together (there is no multicast here)
// agree on a postmaster, and on the next one as soon as that goes.
func TestPostmasterSaysGoodbye(t *testing.T) {
	devices := []*device{newDevice(t, "desk"), newDevice(t, "laptop"), newDevice(t, "attic")}
	for _, d := range devices {
		d.stop()
		d.prepare = func(e *Engine) { e.goodbye = time.Minute }
		d.start()
	}
	pair(t, devices[0], devices[1])
	pair(t, devices[0], devices[2])
	linked(t, devices...)
	for _, d := range devices {
		if err := devices[1].engine.PinDevice(t.Context(), api.PinDevice{Device: d.name, Site: "Home"}); err != nil {
			t.Fatal(err)
		}
	}
	agree := func(all []*device) (post string) {
		until(t, "all to agree", func() bool {
			first := all[0].site(all[0])
			for _, d := range all {
				for _, of := range all {
					at := d.site(of)
					if len(at.Devices) != len(all) || !slices.Equal(at.Devices, first.Devices) || at.Postmaster == "" || at.Postmaster != first.Postmaster || at.Name != "Home" || !at.Here || !at.Pinned {
						return false
					}
				}
				d.engine.sites.mu.Lock()
				acting := d.engine.sites.view.Acting
				d.engine.sites.mu.Unlock()
				if acting != (d.engine.host.ID() == first.Postmaster) {
					return false
				}
			}
			post = first.Postmaster
			return true
		})
		return post
	}
	post := agree(devices)
	i := slices.IndexFunc(devices, func(d *device) bool { return d.engine.host.ID() == post })
	left := slices.Delete(slices.Clone(devices), i, i+1)
	devices[i].stop()
	for _, d := range left { // stop has waited until somebody knew
		for _, rec := range d.engine.dir.Devices() {
			if r, err := site.Decode(rec.Site); rec.ID == post && (err != nil || r.Claim != 0 || len(r.Sees) > 0) {
				t.Errorf("%s knows nothing of the goodbye: %+v, %v", d.name, r, err)
			}
		}
	}
	began := left[0].engine.sites.now()
	if next := agree(left); next == post {
		t.Error("who has gone is still postmaster")
	}
	if took := left[0].engine.sites.now() - began; took >= site.LeaveAfter {
		t.Errorf("the post was handed on only after %v, as if nobody had said goodbye", took)
	}
	// Where it is pinned is known of one that is away, too; where it would be seen isn't.
	if at := left[0].site(devices[i]); at.Name != "Home" || at.Here {
		t.Errorf("one that is away is at %+v", at)
	}
	if err := left[0].engine.PinDevice(t.Context(), api.PinDevice{Device: devices[i].name, Site: "auto"}); err != nil {
		t.Fatal(err)
	}
	if at := left[0].site(devices[i]); at.ID != "" {
		t.Errorf("one that is away is at %+v", at)
	}
}

func (s *sites) now() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock.now()
}

func TestPinDeviceRefuses(t *testing.T) {
	d := newDevice(t, "desk")
	for _, c := range []struct {
		device, site string
		code         api.Code
	}{
		{"nobody", "Home", api.CodeNotFound},
		{"desk", "a\x07b", api.CodeUsage},
	} {
		var e *api.Error
		if err := d.engine.PinDevice(t.Context(), api.PinDevice{Device: c.device, Site: c.site}); !errors.As(err, &e) || e.Code != c.code || e.Sentence == "" {
			t.Errorf("%q at %q: %v", c.device, c.site, err)
		}
	}
	if err := d.engine.PinDevice(t.Context(), api.PinDevice{Device: "desk", Site: " Home "}); err != nil {
		t.Fatal(err)
	}
	d.stop()
	d.start()
	if at := d.site(d); at.Name != "Home" || !at.Pinned {
		t.Errorf("after a restart it is at %+v", at)
	}
}

// TestNewerProgramsSiteIsLeftAlone: what a newer program has written of where this device is isn't written over by this one.
func TestNewerProgramsSiteIsLeftAlone(t *testing.T) {
	d := newDevice(t, "desk")
	newer := []byte(`{"v":99,"pins":"in a way of tomorrow"}`)
	d.engine.sites.mu.Lock()
	d.engine.sites.node, d.engine.sites.raw = nil, newer
	d.engine.sites.mu.Unlock()
	d.engine.announce()
	d.stop()
	d.start()
	d.engine.announce()
	own := d.engine.dir.Devices()
	if i := slices.IndexFunc(own, func(r directory.Device) bool { return r.ID == d.engine.host.ID() }); i < 0 || !bytes.Equal(own[i].Site, newer) {
		t.Errorf("the records are %+v", own)
	}
	if at := d.site(d); !at.Here || len(at.Devices) != 1 {
		t.Errorf("it is at %+v", at)
	}
	if err := d.engine.PinDevice(t.Context(), api.PinDevice{Device: "desk", Site: "Home"}); !errors.Is(err, &api.Error{Code: api.CodeConflict}) {
		t.Errorf("pinned all the same: %v", err)
	}
	if !json.Valid(own[0].Site) {
		t.Errorf("%s", own[0].Site)
	}
}

func TestSleepIsNoticedByTheWallClock(t *testing.T) {
	for _, c := range []struct{ steady, wall, want time.Duration }{
		{time.Second, time.Second, time.Second},
		{time.Second, 2 * time.Second, time.Second},            // the wall clock is corrected
		{time.Second, -time.Hour, time.Second},                 // or set back
		{time.Second, 10 * time.Minute, 10 * time.Minute},      // a sleep in which the steady clock stood still
		{10 * time.Minute, 10 * time.Minute, 10 * time.Minute}, // one in which it didn't
	} {
		if got := passed(c.steady, c.wall); got != c.want {
			t.Errorf("%v and %v: %v, want %v", c.steady, c.wall, got, c.want)
		}
	}
}
