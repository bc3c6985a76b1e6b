package ui

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// A panel that lost the icon without a restart gets it again.
func TestForgottenIcon(t *testing.T) {
	need(t, "dbus-daemon")
	bus := startBus(t)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", bus)
	panel := openPanel(t, bus)

	tray := openDesktopTray(slog.New(slog.DiscardHandler))
	tray.period = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	states := make(chan trayState, 1)
	var done sync.WaitGroup
	done.Go(func() {
		tray.serve(ctx, func(s trayState) {
			select {
			case states <- s:
			default:
			}
		})
	})
	defer func() {
		cancel()
		done.Wait()
		tray.close()
		if conn, err := dbus.SessionBus(); err == nil {
			_ = conn.Close()
		}
	}()
	if got := <-states; got != trayShown {
		t.Errorf("state %v", got)
	}
	panel.item(t)
	panel.forget()
	panel.item(t)
	panel.close()
	until(t, "word that the panel is gone", func() bool { return <-states == trayHidden })
}

// Where nobody named a bus, there must be no tray: Fyne's would crash at the end.
func TestNoBus(t *testing.T) {
	if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err == nil {
		t.Skip("a bus may be where the system puts it")
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	tray := openDesktopTray(slog.New(slog.DiscardHandler))
	defer tray.close()
	if got := tray.state(context.Background()); got != trayImpossible {
		t.Errorf("state %v", got)
	}
}
