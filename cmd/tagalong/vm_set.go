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
		Short: "Change a VM's settings",
		Long: `Change settings of a VM. They go along when it is switched. If another device has the
VM and is connected, it is asked to make the change.

--memory and --cpus can only be changed while the VM is stopped. A PC that has less
memory than the VM can't run it any more.

--pause says for how long the VM may stand still when it is switched (usually 300ms). A
VM that writes much memory is slowed down rather than left standing for longer.

--sync says on how many devices a write must be safe before the VM is told that it is
(when it asks: databases and file systems do, with what is called a flush). It counts
at once, also while the VM runs.

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
		Example: `  tagalong vm set Work --memory 4G --cpus 4
  tagalong vm set Work --sync two
  tagalong vm set Work --pause 1s
  tagalong vm set Work --sync one      # go on with one copy`,
		Args: between(1, 1),
	}
	req, memory := api.SetVM{}, ""
	cmd.Flags().StringVar(&req.Sync, "sync", "", "on how many devices a flush must be safe before it is answered: `one` or two")
	cmd.Flags().StringVar(&memory, "memory", "", "`size` of its memory")
	cmd.Flags().IntVar(&req.CPUs, "cpus", 0, "`number` of its CPUs")
	cmd.Flags().DurationVar(&req.Pause, "pause", 0, "for how long it may stand still in a switch: 50ms to 10m")
	registerCompletion(cmd, "sync", cobra.FixedCompletions([]string{api.SyncOne, api.SyncTwo}, cobra.ShellCompDirectiveNoFileComp))
	cmd.ValidArgsFunction = c.completeFirst(vmNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch req.Sync {
		case "", api.SyncOne, api.SyncTwo:
		default:
			return usage(fmt.Sprintf("%q isn't a choice for --sync.", req.Sync), "Use one or two.")
		}
		if memory != "" {
			var err error
			if req.MemoryMiB, err = wholeMiB(memory); err != nil {
				return err
			}
		}
		if cmd.Flags().Changed("pause") && req.Pause <= 0 {
			return usage("A VM stands still for a moment at least when it is switched.", "Say for how long it may with --pause: 50ms to 10m.")
		}
		if cmd.Flags().Changed("cpus") && req.CPUs < 1 {
			return usage("A VM needs a CPU at least.", "Say how many with --cpus.")
		}
		if req == (api.SetVM{}) {
			return usage("Nothing to change was given.", "See what can be changed: tagalong vm set --help")
		}
		return c.withVM(cmd, args, func(ctx context.Context, client *api.Client, vm api.VM) error {
			req.VM = vm.ID
			if err := client.SetVM(ctx, req); err != nil {
				return err
			}
			now := vm
			st, err := client.Status(ctx)
			if err != nil {
				return err
			}
			for _, known := range st.VMs {
				if known.ID == vm.ID {
					now = known
				}
			}
			c.saySettings(now, req)
			return nil
		})
	}
	return cmd
}

// saySettings tells what was changed. What another device changed may not have come back yet.
func (c *cli) saySettings(vm api.VM, req api.SetVM) {
	if req.MemoryMiB != 0 {
		c.out.say("%q: %s of memory.", vm.Name, size(req.MemoryMiB<<20))
	}
	if req.CPUs != 0 {
		c.out.say("%q: %d CPUs.", vm.Name, req.CPUs)
	}
	if req.Pause != 0 {
		c.out.say("%q: it may stand still for %s in a switch.", vm.Name, req.Pause)
	}
	if req.Sync != "" {
		vm.Spec.Sync = req.Sync
		c.out.say("%q: %s.", vm.Name, syncWords(vm, time.Now()))
	}
}

func newVMRename(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rename VM NAME",
		Short: "Call a VM something else, on every device",
		Long: `Call a VM something else, on every device; also while it runs. If another device has
it, that one must be connected: it is asked to make the change.`,
		Example: "  tagalong vm rename Work Office",
		Args:    between(2, 2),
	}
	cmd.ValidArgsFunction = c.completeFirst(vmNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withVM(cmd, args, func(ctx context.Context, client *api.Client, vm api.VM) error {
			if args[1] == "" {
				return usage("A VM needs a name.", "Say what it shall be called: tagalong vm rename Work Office")
			}
			if err := client.SetVM(ctx, api.SetVM{VM: vm.ID, Name: args[1]}); err != nil {
				return err
			}
			c.out.say("%q is called %q now.", vm.Name, args[1])
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
