//go:build !linux

package ui

import (
	"context"
	"log/slog"
)

// trayState is what the desktop offers a tray.
type trayState int

const (
	trayImpossible trayState = iota // the system has none
	trayHidden                      // nobody shows it now
	trayShown
)

// desktopTray stands for a tray that is simply there, as on Windows and macOS.
type desktopTray struct{}

func openDesktopTray(*slog.Logger) *desktopTray { return &desktopTray{} }

func (d *desktopTray) state(context.Context) trayState { return trayShown }

func (d *desktopTray) serve(context.Context, func(trayState)) {}

func (d *desktopTray) close() {}
