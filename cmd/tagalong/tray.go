//go:build !nogui

package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
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
		StartEngine: func() error { return spawnEngine(dir) },
		Log:         slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
		ShowWindow:  c.openFlag,
		Socket:      socket,
	})
}
