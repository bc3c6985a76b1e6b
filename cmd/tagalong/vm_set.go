package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// newVMSet has a flag for each setting; those that are given are changed.
func newVMSet(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set VM",
		Short: "Change a VM's settings, also while it runs",
		Long: `Change settings of a VM, on the device that has it. They count at once, also while it
runs, and go along when it is switched.

--sync says on how many devices a write must be safe before the VM is told that it is
(when it asks: databases and file systems do, with what is called a flush).

  one   on the device that runs it. The others follow, a moment later. If its drive or
        the whole device is lost for good, the last moments may be.
  two   on one other device too. What the VM was told is safe survives the loss of any
        one device. Each flush takes a trip through the network and a second drive: to
        another site and back, if no other device is near.
        While no other device has the last writes the VM waits; after 10 seconds it
        stands still, and goes on by itself as soon as one has them. It doesn't wait
        when there is nobody to wait for: alone in the fleet, offline (tagalong
        offline), before another device has had a first whole copy, and while this
        device itself still fetches its disk; tagalong vm show says so.`,
		Example: `  tagalong vm set Work --sync two
  tagalong vm set Work --sync one      # go on with one copy`,
		Args: between(1, 1),
	}
	req := api.SetVM{}
	cmd.Flags().StringVar(&req.Sync, "sync", "", "on how many devices a flush must be safe before it is answered: `one` or two")
	registerCompletion(cmd, "sync", cobra.FixedCompletions([]string{api.SyncOne, api.SyncTwo}, cobra.ShellCompDirectiveNoFileComp))
	cmd.ValidArgsFunction = c.completeFirst(vmNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch req.Sync {
		case api.SyncOne, api.SyncTwo:
		case "":
			return usage("Nothing to change was given.", "See what can be changed: tagalong vm set --help")
		default:
			return usage(fmt.Sprintf("%q isn't a choice for --sync.", req.Sync), "Use one or two.")
		}
		return c.withVM(cmd, args, func(ctx context.Context, client *api.Client, vm api.VM) error {
			req.VM = vm.ID
			if err := client.SetVM(ctx, req); err != nil {
				return err
			}
			st, err := client.Status(ctx)
			if err != nil {
				return err
			}
			for _, now := range st.VMs {
				if now.ID == vm.ID {
					c.out.say("%q: %s.", now.Name, syncWords(now, time.Now()))
				}
			}
			return nil
		})
	}
	return cmd
}

// syncWords says on how many devices a flush is safe, and what becomes of that now.
func syncWords(vm api.VM, now time.Time) string {
	if !vm.Spec.Two() {
		return "one, a flush waits for no other device"
	}
	two := "two, a flush waits for one other device"
	if vm.Second == nil {
		return two
	}
	switch vm.Second.State {
	case api.SecondWaiting:
		return two + "; one has been waiting for " + span(max(0, now.Sub(vm.Second.Since)))
	case api.SecondPaused:
		return two + "; the VM stands still until one has its last writes"
	case api.SecondAlone:
		return "two, but there is no other device: flushes don't wait"
	case api.SecondOffline:
		return "two, but this device works offline: flushes don't wait"
	case api.SecondFilling:
		return "two, but this device still fetches parts of the disk: flushes don't wait until it has all"
	case api.SecondUncopied:
		return "two, but no other device has a whole copy yet: flushes don't wait until one has"
	}
	return two
}
