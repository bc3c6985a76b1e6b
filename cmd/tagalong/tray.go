//go:build !nogui

package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/viewer"
	"tagalong.org/tagalong/ui"
)

// tray shows the tray until the person quits it.
func (c *cli) tray(cmd *cobra.Command) error {
	dir, err := api.DataDir(c.dataFlag)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	socket := api.SocketPath(dir)
	client := api.NewClient(socket)
	defer client.Close()
	return ui.Run(ctx, ui.Options{
		Client:      client,
		Viewer:      screens{client, dir},
		StartEngine: func() error { return spawnEngine(dir) },
		Log:         slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
		ShowWindow:  c.openFlag,
		Socket:      socket,
	})
}

// screens shows screens for the tray.
type screens struct {
	client *api.Client
	dir    string
}

func (s screens) Show(ctx context.Context, vm string) error {
	_, err := viewer.Session{Engine: s.client, VM: vm}.Run(ctx)
	return err
}

func (s screens) Auto() (bool, error) {
	set, err := viewer.Load(s.dir)
	return set.Auto, err
}

func (s screens) SetAuto(auto bool) error { return viewer.Settings{Auto: auto}.Save(s.dir) }
