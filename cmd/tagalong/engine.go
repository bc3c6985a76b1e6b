package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// engineOptions is what the engine is started with.
type engineOptions struct {
	// DataDir is absolute; the engine creates it.
	DataDir string
	// Socket is where the local API listens.
	Socket string
	// Name is what this device is called; "" for the host's name.
	Name string
	// Listen are the "host:port" addresses for other devices; none for any address and a free port.
	Listen []string
	// Accel is auto, kvm or tcg; "" leaves it to $TAGALONG_ACCEL, and that to auto.
	Accel string
	// Version is this binary's, for Status.
	Version string
	Log     *slog.Logger
}

func newEngine(c *cli) *cobra.Command {
	var o engineOptions
	var level slog.Level
	cmd := &cobra.Command{
		Use:   "engine",
		Short: "Run the engine in this terminal",
		Long: `Run the engine: it keeps the disks, talks to the other devices and runs the VMs.

It may end and come back at any moment; VMs that run go on without it, and it
finds them again. It ends with Ctrl-C or with: tagalong engine stop`,
		Example: `  tagalong engine
  tagalong engine --name desk --listen 0.0.0.0:4646
  tagalong engine stop`,
	}
	group(cmd, newEngineStop(c))
	cmd.Flags().StringVar(&o.Name, "name", "", "what this device is `called` (default: the host's name)")
	cmd.Flags().StringArrayVar(&o.Listen, "listen", nil, "`address` for other devices, host:port; may be repeated (default: any address, a free port)")
	cmd.Flags().StringVar(&o.Accel, "accel", "", "`how` VMs run: auto, kvm, or tcg, which is software emulation (default: $TAGALONG_ACCEL, else auto)")
	cmd.Flags().TextVar(&level, "log-level", slog.LevelInfo, "how much to log: debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := api.DataDir(c.dataFlag)
		if err != nil {
			return err
		}
		o.DataDir, o.Socket, o.Version = dir, api.SocketPath(dir), ownVersion().Version
		o.Log = slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return runEngine(ctx, o)
	}
	return cmd
}

func newEngineStop(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "stop",
		Short:   "End the engine; VMs that run go on",
		Example: "  tagalong engine stop",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
				if err := client.Shutdown(ctx); err != nil {
					return err
				}
				c.out.say("The engine ends. VMs that run go on.")
				return nil
			})
		},
	}
}
