//go:build linux && !ci

package ui

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"tagalong.org/tagalong/app/api"
)

// testNotifier shows notifications, as desktops have one.
type testNotifier struct {
	mu    sync.Mutex
	shown []note
}

// openNotifier puts a notifier on the bus.
func openNotifier(t *testing.T, bus string) *testNotifier {
	t.Helper()
	conn, err := dbus.Connect(bus)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	const name = "org.freedesktop.Notifications"
	n := &testNotifier{}
	if err := conn.Export(n, "/org/freedesktop/Notifications", name); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own the notifier's name: %v, %v", reply, err)
	}
	return n
}

// Notify is called over the bus.
func (n *testNotifier) Notify(_ string, _ uint32, _, title, text string, _ []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shown = append(n.shown, note{title, text})
	return uint32(len(n.shown)), nil
}

func (n *testNotifier) all() []note {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.shown)
}

// News of a sync come to the desktop, in the person's language, unless they look at the window.
func TestRealSyncNotices(t *testing.T) {
	need(t, "Xvfb", "dbus-daemon", "xdotool")
	t.Setenv("TAGALONG_UI_SHOTS_LANG", "de_DE.UTF-8")
	display, bus := startX(t), startBus(t)
	engine := newFakeEngine(sample(time.Now()))
	panel, notifier := openPanel(t, bus), openNotifier(t, bus)
	launch(t, serve(t, engine), display, bus, false)
	item := panel.item(t)
	panel.find(t, item, "Work: Läuft auf Laptop")
	engine.tell(syncNews(api.SyncBegun, nil))
	begun := note{"Laptop bekommt Work", "3 GiB fehlen, noch etwa 6 Minuten"}
	until(t, "the beginning", func() bool { return len(notifier.all()) == 1 })
	if got := notifier.all()[0]; got != begun {
		t.Errorf("%+v, want %+v", got, begun)
	}

	panel.click(t, item, "Fenster öffnen")
	until(t, "the window", func() bool { return len(windows(display)) == 1 })
	// Its first button does something only once the window has got the input.
	press(t, display, "Tab")
	press(t, display, "space")
	select {
	case <-engine.answered:
	case <-time.After(patience):
		t.Fatal("no button was pressed")
	}
	engine.tell(syncNews(api.SyncHalf, nil)) // not shown, and heard before what comes next
	engine.say(func(st *api.Status) { st.VMs[0].Name = "Arbeit" })
	panel.find(t, item, "Arbeit: Läuft auf Laptop")
	press(t, display, "ctrl+w")
	until(t, "no window", func() bool { return len(windows(display)) == 0 })
	engine.tell(syncNews(api.SyncDone, func(n *api.SyncNews) { n.Remaining, n.VMs = 0, append(n.VMs, api.SyncVM{ID: "p", Name: "Play"}) }))
	until(t, "the end", func() bool { return len(notifier.all()) > 1 })
	if got, want := notifier.all(), []note{begun, {"Laptop hat alles von Work und Play", ""}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
