package ui

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Names on the session bus, and where Fyne's tray puts its item.
const (
	watcherName  = "org.kde.StatusNotifierWatcher"
	watcherPath  = dbus.ObjectPath("/StatusNotifierWatcher")
	itemPath     = "/StatusNotifierItem"
	busName      = "org.freedesktop.DBus"
	busPath      = dbus.ObjectPath("/org/freedesktop/DBus")
	checkPeriod  = 30 * time.Second
	watcherLimit = 5 * time.Second
)

// trayState is what the desktop offers a tray.
type trayState int

const (
	trayImpossible trayState = iota // no session bus: Fyne's tray would crash at the end
	trayHidden                      // a bus, but nobody shows items on it
	trayShown
)

// desktopTray watches the panel that shows tray icons, and puts our icon there again when it has
// lost it: the tray library below Fyne registers at the start and then, at times, never again.
type desktopTray struct {
	conn   *dbus.Conn // ours alone, for signals; nil without a session bus
	log    *slog.Logger
	period time.Duration
}

// openDesktopTray connects to the session bus, if there is one.
func openDesktopTray(log *slog.Logger) *desktopTray {
	d := &desktopTray{log: log, period: checkPeriod}
	// Without an address the library would start a bus of its own, which no panel listens to.
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") == "" {
		if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err != nil {
			return d
		}
	}
	conn, err := dbus.ConnectSessionBus()
	if err != nil {
		log.Info("No session bus, so no tray", "error", err)
		return d
	}
	d.conn = conn
	return d
}

// state says whether a tray is possible and whether somebody would show it now.
func (d *desktopTray) state(ctx context.Context) trayState {
	if d.conn == nil {
		return trayImpossible
	}
	if d.watched(ctx) {
		return trayShown
	}
	return trayHidden
}

func (d *desktopTray) watched(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, watcherLimit)
	defer cancel()
	var has bool
	err := d.conn.Object(busName, busPath).CallWithContext(ctx, busName+".NameHasOwner", 0, watcherName).Store(&has)
	return err == nil && has
}

// serve registers the icon whenever the panel is a new one or doesn't list it, and tells changed
// whether it is shown. It returns when ctx ends or the bus does, and must run only after Fyne has
// put up its tray.
func (d *desktopTray) serve(ctx context.Context, changed func(trayState)) {
	if d.conn == nil {
		return
	}
	signals := make(chan *dbus.Signal, 16)
	d.conn.Signal(signals)
	defer d.conn.RemoveSignal(signals)
	if err := d.conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(busName), dbus.WithMatchInterface(busName),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, watcherName)); err != nil {
		d.log.Warn("Can't watch for the panel", "error", err)
	}
	tick := time.NewTicker(d.period)
	defer tick.Stop()
	for {
		if d.state(ctx) == trayShown {
			d.register(ctx)
			changed(trayShown)
		} else {
			changed(trayHidden)
		}
		select {
		case <-ctx.Done():
			return
		case _, ok := <-signals:
			if !ok {
				return
			}
		case <-tick.C:
		}
	}
}

// register puts the icon up unless the panel lists it. It speaks through the connection that the
// tray library uses and with the library's own words, so that a panel which has it already sees a
// repetition and not a second icon.
func (d *desktopTray) register(ctx context.Context) {
	conn, err := dbus.SessionBus()
	if err != nil {
		d.log.Warn("Tray icon could not be registered", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, watcherLimit)
	defer cancel()
	watcher := conn.Object(watcherName, watcherPath)
	if d.listed(ctx, conn, watcher) {
		return
	}
	if err := watcher.CallWithContext(ctx, watcherName+".RegisterStatusNotifierItem", 0, itemPath).Err; err != nil {
		d.log.Warn("Tray icon could not be registered", "error", err)
		return
	}
	d.log.Info("Tray icon registered")
}

// listed says whether the panel knows our item. Panels write the list in different ways, but all
// have one of our names in it.
func (d *desktopTray) listed(ctx context.Context, conn *dbus.Conn, watcher dbus.BusObject) bool {
	var v dbus.Variant
	err := watcher.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, watcherName,
		"RegisteredStatusNotifierItems").Store(&v)
	items, ok := v.Value().([]string)
	if err != nil || !ok {
		return false
	}
	own := append(conn.Names(), fmt.Sprintf("org.kde.StatusNotifierItem-%d-1", os.Getpid()))
	for _, item := range items {
		for _, name := range own {
			// What follows the name is nothing, or a path, or an @ and a path.
			if rest, ok := strings.CutPrefix(item, name); ok && (rest == "" || strings.ContainsAny(rest[:1], "/@")) {
				return true
			}
		}
	}
	return false
}

// close ends the connection. serve must have returned.
func (d *desktopTray) close() {
	if d.conn != nil {
		_ = d.conn.Close()
	}
}
