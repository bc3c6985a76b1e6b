package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
)

func TestWhichBridge(t *testing.T) {
	ctx := context.Background()
	d := newDevice(t, "desk")
	e := d.engine
	has := func(usable string, bridges ...string) {
		d.hv.mu.Lock()
		defer d.hv.mu.Unlock()
		d.hv.usable, d.hv.bridges = usable, bridges
	}
	on := api.Spec{Network: true, Bridged: true}
	is := func(what, bridge, why string) {
		t.Helper()
		e.lookAtHardware(ctx)
		got, no := e.findBridge()
		if got != bridge || !strings.Contains(no, why) || (no == "") != (why == "") {
			t.Errorf("%s: %q, %q", what, got, no)
		}
		if e.bridgeFor(on) != bridge || e.bridgeFor(api.Spec{Network: true}) != "" || e.bridgeFor(api.Spec{Bridged: true}) != "" {
			t.Errorf("%s: a VM is on %q", what, e.bridgeFor(on))
		}
		s, err := e.Status(ctx)
		if err != nil || s.Hypervisor.Bridge != bridge || s.Hypervisor.NoBridge != no {
			t.Errorf("%s: the status has %+v, %v", what, s.Hypervisor, err)
		}
	}
	set := func(name string, code api.Code) {
		t.Helper()
		err := e.SetBridge(ctx, api.SetBridge{Bridge: name})
		var refused *api.Error
		if code == "" && err != nil || code != "" && (!errors.As(err, &refused) || refused.Code != code || refused.Next == "" && code != api.CodeConflict) {
			t.Errorf("set %q: %v", name, err)
		}
	}
	set("br0", api.CodeNotFound)
	is("without one", "", "no network bridge")
	has("br0", "br0")
	is("with one", "br0", "")
	has("br9", "br0")
	is("with one that can't be used", "", "can't be used")
	set("br0", api.CodeConflict)
	set("br1", api.CodeNotFound)
	has("br1", "br0", "br1")
	is("with two", "", "several")
	set("br1", "")
	is("with a choice", "br1", "")
	set(api.BridgeNone, "")
	is("switched off", "", "switched off")

	// The choice outlives the engine; one that can't be read is none.
	d.stop()
	d.start()
	e = d.engine
	is("after a restart", "", "switched off")
	set(api.BridgeAuto, "")
	has("br1", "br1")
	is("found again", "br1", "")
	for _, torn := range []string{"{", `{"version":9,"bridge":"br1"}`} {
		d.stop()
		if err := os.WriteFile(filepath.Join(d.dir, "bridge.json"), []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		d.start()
		e = d.engine
		is("a file like "+torn, "", "switched off")
	}
}
