//go:build linux && !ci

package ui

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"tagalong.org/tagalong/app/api"
)

// next waits for what the engine is asked.
func next(t *testing.T, f *fakeEngine, want string) {
	t.Helper()
	select {
	case got := <-f.answered:
		if got != want {
			t.Fatalf("engine was asked %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("engine was never asked %q", want)
	}
}

func TestRealTray(t *testing.T) {
	need(t, "Xvfb", "dbus-daemon", "xdotool")
	display, bus := startX(t), startBus(t)
	engine := newFakeEngine(sample(time.Now()))
	socket := serve(t, engine)
	panel := openPanel(t, bus)
	p := launch(t, socket, display, bus, false)

	item := panel.item(t)
	panel.find(t, item, "Work: Running on Laptop")
	if n := len(windows(display)); n != 0 {
		t.Errorf("%d windows although the tray is there", n)
	}
	w, h, idle := panel.pixels(t, item)
	if w != 64 || h != 64 || len(idle) != 4*64*64 {
		t.Errorf("icon of %d by %d, %d bytes", w, h, len(idle))
	}

	panel.click(t, item, "Switch to this machine")
	next(t, engine, `switch w to ""`)
	engine.say(func(st *api.Status) { st.VMs[0].Switch, st.VMs[0].State = switching(), api.VMSwitching })
	panel.click(t, item, "Cancel the switch")
	next(t, engine, "cancel-switch s1")
	engine.say(func(st *api.Status) {
		st.VMs[0].Switch, st.VMs[0].State = nil, api.VMRunning
		st.VMs[0].Problem = &api.Error{Code: api.CodeSpace, Sentence: "Full."}
	})
	panel.find(t, item, "Work needs your attention")
	until(t, "another icon", func() bool {
		_, _, now := panel.pixels(t, item)
		return !bytes.Equal(now, idle)
	})

	panel.click(t, item, "Open window")
	until(t, "the window", func() bool { return len(windows(display)) == 1 })
	press(t, display, "ctrl+w")
	until(t, "no window", func() bool { return len(windows(display)) == 0 })
	panel.click(t, item, "Open window")
	until(t, "the window again", func() bool { return len(windows(display)) == 1 })

	panel.click(t, item, "Quit (VMs and the engine go on)")
	if err := p.wait(t); err != nil {
		t.Errorf("quit: %v\n%s", err, &p.out)
	}
	if slices.Contains(engine.requests(), "shutdown") {
		t.Error("the engine was ended, too")
	}
}

// A panel that starts again must get the icon again, even after the tray library stopped looking.
func TestRealTrayComesBack(t *testing.T) {
	need(t, "Xvfb", "dbus-daemon")
	display, bus := startX(t), startBus(t)
	socket := serve(t, newFakeEngine(sample(time.Now())))
	panel := openPanel(t, bus)
	launch(t, socket, display, bus, false)
	item := panel.item(t)
	panel.find(t, item, "Switch to this machine")

	// Any signal that isn't the one it waits for ends the library's loop.
	stray := &dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath:        dbus.MakeVariant(dbus.ObjectPath("/test")),
		dbus.FieldInterface:   dbus.MakeVariant("org.tagalong.Test"),
		dbus.FieldMember:      dbus.MakeVariant("Stray"),
		dbus.FieldDestination: dbus.MakeVariant(item),
	}}
	if call := panel.conn.Send(stray, nil); call != nil && call.Err != nil {
		t.Fatal(call.Err)
	}
	// An answer from the same connection shows that the signal has arrived before it.
	if _, err := panel.menu(item); err != nil {
		t.Fatal(err)
	}
	panel.close()

	again := openPanel(t, bus)
	if got := again.item(t); got != item {
		t.Errorf("registered as %s, was %s", got, item)
	}
	again.find(t, item, "Switch to this machine")
	if n := len(again.listed()); n != 1 {
		t.Errorf("%d icons", n)
	}
}
