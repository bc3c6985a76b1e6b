package main

import (
	"context"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newDevicesBridge(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bridge [NAME|auto|none]",
		Short: "Say on which network bridge of this device VMs are",
		Long: `A VM that was made with --network bridge is on the local network itself, with an address of
its own, on each device that has a network bridge with its network card on it. Where there is
none it is hidden behind the device, as other VMs are, and goes on.

With "auto" it is the only bridge there is, with "none" VMs are hidden behind this device. It
counts when a VM starts or comes here. Without a word it says how it is.`,
		Example: `  tagalong devices bridge
  tagalong devices bridge br0`,
		Args:              between(0, 1),
		ValidArgsFunction: cobra.FixedCompletions([]string{api.BridgeAuto, api.BridgeNone}, cobra.ShellCompDirectiveNoFileComp),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			if len(args) == 1 {
				if err := client.SetBridge(ctx, api.SetBridge{Bridge: args[0]}); err != nil {
					return err
				}
			}
			st, err := client.Status(ctx)
			if err != nil {
				return err
			}
			switch h := st.Hypervisor; {
			case h.Bridge != "":
				c.out.say("VMs that are to be on the local network are on %s here.", h.Bridge)
			case h.NoBridge != "":
				c.out.say("VMs are hidden behind this device: %s.", h.NoBridge)
			default:
				c.out.say("Whether VMs can be on a bridge here isn't known yet.")
			}
			return nil
		})
	}
	return cmd
}
