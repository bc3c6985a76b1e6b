//go:build linux && !ci

package ui

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"tagalong.org/tagalong/app/api"
)

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

// The toggle of disconnected mode, as a panel sees it: its mark, and the icon.
func TestRealTrayOffline(t *testing.T) {
	need(t, "Xvfb", "dbus-daemon")
	display, bus := startX(t), startBus(t)
	st := sample(time.Now())
	st.VMs[0].Here, st.VMs[0].Owner, st.VMs[0].OwnerName = true, "D", "Desk"
	engine := newFakeEngine(st)
	panel := openPanel(t, bus)
	launch(t, serve(t, engine), display, bus, false)
	item := panel.item(t)
	if panel.find(t, item, "Work offline").Checked {
		t.Error("marked before it is on")
	}
	_, _, idle := panel.pixels(t, item)
	panel.click(t, item, "Work offline")
	next(t, engine, "offline [] copy=false now=false")
	engine.say(preparing)
	panel.find(t, item, "Getting ready to work offline: 40 %, about 4 minutes left")
	panel.find(t, item, "Go now anyway…")
	engine.say(func(st *api.Status) { st.Jobs, st.Offline = nil, api.Offline{On: true} })
	until(t, "the mark", func() bool { return panel.find(t, item, "Work offline").Checked })
	until(t, "the icon of a journey", func() bool {
		_, _, now := panel.pixels(t, item)
		return !bytes.Equal(now, idle)
	})
	panel.click(t, item, "Work offline")
	next(t, engine, "online")
	engine.say(func(st *api.Status) { st.Offline = api.Offline{} })
	until(t, "no mark", func() bool { return !panel.find(t, item, "Work offline").Checked })
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

// menuItem is one line of the menu that the panel sees.
type menuItem struct {
	ID      int32
	Label   string
	Enabled bool
	Checked bool
}

// menu reads the icon's menu as a panel does.
func (p *testPanel) menu(item string) ([]menuItem, error) {
	var path dbus.Variant
	if err := p.conn.Object(item, itemPath).Call("org.freedesktop.DBus.Properties.Get", 0, "org.kde.StatusNotifierItem", "Menu").Store(&path); err != nil {
		return nil, err
	}
	at, ok := path.Value().(dbus.ObjectPath)
	if !ok {
		return nil, fmt.Errorf("menu at %v", path)
	}
	var revision uint32
	var root struct {
		ID         int32
		Properties map[string]dbus.Variant
		Children   []dbus.Variant
	}
	call := p.conn.Object(item, at).Call("com.canonical.dbusmenu.GetLayout", 0, int32(0), int32(-1), []string{})
	if err := call.Store(&revision, &root); err != nil {
		return nil, err
	}
	var items []menuItem
	for _, child := range root.Children {
		fields, ok := child.Value().([]any)
		if !ok || len(fields) != 3 {
			return nil, fmt.Errorf("item %v", child)
		}
		props, ok := fields[1].(map[string]dbus.Variant)
		if !ok {
			return nil, fmt.Errorf("item %v", child)
		}
		it := menuItem{Enabled: true}
		it.ID, _ = fields[0].(int32)
		it.Label, _ = props["label"].Value().(string)
		if v, ok := props["enabled"].Value().(bool); ok {
			it.Enabled = v
		}
		if v, ok := props["toggle-state"].Value().(int32); ok {
			it.Checked = v == 1
		}
		items = append(items, it)
	}
	return items, nil
}

// find waits for an item of that label.
func (p *testPanel) find(t *testing.T, item, label string) menuItem {
	t.Helper()
	var found menuItem
	until(t, "the menu's "+label, func() bool {
		items, err := p.menu(item)
		if err != nil {
			return false
		}
		for _, it := range items {
			if it.Label == label {
				found = it
				return true
			}
		}
		return false
	})
	return found
}

func (p *testPanel) click(t *testing.T, item, label string) {
	t.Helper()
	it := p.find(t, item, label)
	if !it.Enabled {
		t.Fatalf("%s can't be clicked", label)
	}
	call := p.conn.Object(item, "/StatusNotifierMenu").Call("com.canonical.dbusmenu.Event", 0, it.ID, "clicked", dbus.MakeVariant(""), uint32(time.Now().Unix()))
	if call.Err != nil {
		t.Fatal(call.Err)
	}
}

// pixels is the icon that the panel would draw.
func (p *testPanel) pixels(t *testing.T, item string) (width, height int32, data []byte) {
	t.Helper()
	var v dbus.Variant
	if err := p.conn.Object(item, itemPath).Call("org.freedesktop.DBus.Properties.Get", 0, "org.kde.StatusNotifierItem", "IconPixmap").Store(&v); err != nil {
		t.Fatal(err)
	}
	var icons []struct {
		W, H int32
		Pix  []byte
	}
	if err := v.Store(&icons); err != nil || len(icons) != 1 {
		t.Fatalf("icons: %v, %v", v, err)
	}
	return icons[0].W, icons[0].H, icons[0].Pix
}
