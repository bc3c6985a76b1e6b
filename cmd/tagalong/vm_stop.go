package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tagalong.org/tagalong/app/api"
)

func newVMStop(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stop VM",
		Short: "Ask a VM's guest to shut down",
		Long: `Ask the guest to shut down, as with a PC's power button, and wait until it has.
If it hasn't after 90 seconds, you are asked whether the VM shall be turned off at
once; without a terminal the VM goes on and the exit code is 14.

With --force the VM is turned off at once, as if its plug were pulled: what the
guest has not yet written to its disk is lost. That works also while another
stop still waits.`,
		Example: `  tagalong vm stop Work
  tagalong vm stop Work --force`,
	}
	force := cmd.Flags().Bool("force", false, "stop it at once, like pulling the plug")
	return newVMAct(c, cmd, func(client *api.Client, ctx context.Context, vm string) error {
		err := client.StopVM(ctx, vm, *force)
		if *force || !errors.Is(err, &api.Error{Code: api.CodeUnanswered}) {
			return err
		}
		question := api.AsError(err).Sentence + " Turned off at once it loses what it hasn't written to its disk."
		if yes := c.yesOrNo(question + " Turn it off?"); !yes {
			return err
		}
		return client.StopVM(ctx, vm, true)
	})
}

func newVMReset(c *cli) *cobra.Command {
	return newVMAct(c, &cobra.Command{
		Use:   "reset VM",
		Short: "Start a running VM anew at once, like a PC's reset button",
		Long: `Start a running VM anew at once, like a PC's reset button: for a guest that hangs.
What it has not yet written to its disk is lost. To restart it in order, do that
from inside.`,
		Example: "  tagalong vm reset Work",
	}, (*api.Client).ResetVM)
}

func newVMRemove(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove VM",
		Short: "Delete a VM and its disks on every device",
		Long: `Delete a VM that doesn't run, its disks and its restore points, on every device. A
device that is away deletes what it has when it is back and hears of it; until then
its copy stays on its drive. To keep a copy of a disk, save it before: tagalong
disk export.`,
		Example: "  tagalong vm remove Work",
		Args:    between(1, 1),
	}
	yes := cmd.Flags().Bool("yes", false, "don't ask")
	cmd.ValidArgsFunction = c.completeFirst(vmNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withVM(cmd, args, func(ctx context.Context, client *api.Client, vm api.VM) error {
			if err := c.confirm(removalWords(vm), vm.Name, *yes); err != nil {
				return err
			}
			if err := client.RemoveVM(ctx, vm.ID); err != nil {
				return err
			}
			c.out.say("%q is removed.", vm.Name)
			if away := awayWithCopy(vm); len(away) > 0 {
				c.out.say("%s when back.", clean(enumerate(away))+" "+deletes(len(away)))
			}
			return nil
		})
	}
	return cmd
}

// removalWords says what goes with a VM.
func removalWords(vm api.VM) string {
	text := fmt.Sprintf("This deletes %q and %s on every device, for good.", vm.Name, disksWords(vm.Spec))
	if n := len(vm.RestorePoints); n > 0 {
		text += fmt.Sprintf(" %s on this device, and any on others, go with it.", sentenceCase(pointsWords(vm.RestorePoints)))
	}
	if away := awayWithCopy(vm); len(away) > 0 {
		text += fmt.Sprintf(" %s can't be reached: %s when back.", enumerate(away), deletes(len(away)))
	}
	return text
}

// disksWords are a VM's disks and how large they are.
func disksWords(s api.Spec) string {
	if n := len(s.Disks()); n > 1 {
		return fmt.Sprintf("its %d disks of %s", n, size(allDisks(s)))
	}
	return "its disk of " + size(s.DiskBytes)
}

func deletes(n int) string {
	if n == 1 {
		return "deletes its copy"
	}
	return "delete their copies"
}

// awayWithCopy are the devices that have something of the VM and can't be told now that it is gone.
func awayWithCopy(vm api.VM) []string {
	var names []string
	for _, r := range vm.Replicas {
		if r.State == api.ReplicaAway {
			names = append(names, r.DeviceName)
		}
	}
	return names
}

// enumerate puts names into a sentence.
func enumerate(names []string) string {
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

// yesOrNo asks a person, if there is one; else the answer is no.
func (c *cli) yesOrNo(question string) bool {
	f, ok := c.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	_, _ = fmt.Fprintf(c.err, "%s [y/N] ", clean(question))
	var answer string
	_, _ = fmt.Fscanln(c.in, &answer)
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes")
}
