package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newVMRollback(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback VM",
		Short: "Go back to what this device had of a VM before a switch",
		Long: `After a switch to a device that lacked some of the VM's disk, the rest is fetched
from the devices that have it. If they don't come back, the VM can go on with what this
device had before: the VM is stopped, and what was written here since is lost.
Should a device with the newer version return, you are asked to choose.`,
		Example: "  tagalong vm rollback Work",
		Args:    between(0, 1),
	}
	yes := cmd.Flags().Bool("yes", false, "don't ask")
	asJSON := jsonFlag(cmd)
	cmd.ValidArgsFunction = c.completeFirst(vmNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withVM(cmd, args, func(ctx context.Context, client *api.Client, vm api.VM) error {
			r, err := client.Rollback(ctx, vm.ID)
			if err != nil {
				return err
			}
			c.tell(*asJSON, factLines(rollbackFacts(r))...)
			if err := c.confirm(fmt.Sprintf("This rolls %q back, and loses for good what was written to it here since the switch.", r.VMName), r.VMName, *yes); err != nil {
				return err
			}
			if err := client.RollBack(ctx, api.RollBackVM{VM: r.VM, Token: r.Token}); err != nil {
				return err
			}
			if *asJSON {
				return c.out.json(r)
			}
			c.out.say("%q is what this device had before the switch. Start it with: tagalong vm start %s", r.VMName, shellWord(r.VMName))
			return nil
		})
	}
	return cmd
}

// rollbackFacts is what a person reads before a VM is rolled back.
func rollbackFacts(r *api.Rollback) []fact {
	facts := []fact{
		{"Now", "position " + positionWords(r.Position) + ", " + size(r.Remaining) + " of it aren't here"},
		{"Back to", "position " + positionWords(r.To)},
		{"Lost for good", size(r.Written) + " written here since the switch"},
	}
	switch {
	case r.Running:
		facts = append(facts, fact{"The VM", "is stopped as if its plug were pulled"})
	case r.Suspended:
		facts = append(facts, fact{"Saved memory", "is lost"})
	}
	if names := holderNames(r.Holders, func(api.HydrationHolder) bool { return true }); names != "" {
		facts = append(facts, fact{"Newer version", "on " + names + ": when it returns you are asked to choose"})
	}
	return facts
}

// holderNames are the names of those that are chosen.
func holderNames(holders []api.HydrationHolder, chosen func(api.HydrationHolder) bool) string {
	var names []string
	for _, h := range holders {
		if chosen(h) {
			names = append(names, h.DeviceName)
		}
	}
	return strings.Join(names, ", ")
}

// lendingLine says what a VM's owner still needs from this device.
func lendingLine(l *api.Lending, name string) string {
	switch {
	case l.Memory:
		return fmt.Sprintf("%s runs %s, and gets the rest of its memory from this device: leave it on, or what is open in %s is lost.", l.ToName, name, name)
	case l.Remaining > 0 && l.Silent:
		return fmt.Sprintf("%s can't be heard. When it last was, it needed %s of %s from this device: leave it on.", l.ToName, size(l.Remaining), name)
	case l.Remaining > 0 && !l.Needed:
		return fmt.Sprintf("%s fetches the rest of %s from this device, %s to go. Others have it too.", l.ToName, name, size(l.Remaining))
	case l.Remaining > 0:
		return fmt.Sprintf("%s still needs %s of %s from this device: leave it on.", l.ToName, size(l.Remaining), name)
	}
	return fmt.Sprintf("%s fetches the rest of %s from this device: don't switch it off yet.", l.ToName, name)
}

// trailingLine says how much of a VM's memory is still to come, and who mustn't leave.
func trailingLine(x *api.Trailing, name string) string {
	if x.Waiting {
		return fmt.Sprintf("Some of %s's memory is on %s, and the connection is lost: it may stand still until that is back, and what is open in it is lost if %s is switched off. If it never comes back, turn %s off, which loses that too, and start it: tagalong vm stop --force", name, x.FromName, x.FromName, name)
	}
	text := fmt.Sprintf("%s: its memory still comes from %s", name, x.FromName)
	if x.Remaining > 0 {
		text += ", " + size(x.Remaining) + " to go"
	}
	if x.Rate > 0 {
		text += ", " + size(x.Rate) + "/s"
	}
	if x.ETA > 0 {
		text += ", " + x.ETA.Round(time.Second).String() + " left"
	}
	return text + ". Don't switch " + x.FromName + " off before, or what is open in it is lost."
}

// hydrationLines say how far a VM's disk and memory are from being whole, and who mustn't leave; none if they are.
func hydrationLines(vm api.VM) []string {
	if l := vm.Lending; l != nil {
		return []string{lendingLine(l, vm.Name)}
	}
	var lines []string
	if vm.Trailing != nil {
		lines = append(lines, trailingLine(vm.Trailing, vm.Name))
	}
	h := vm.Hydration
	if h == nil {
		return lines
	}
	text := fmt.Sprintf("%s: %s of its disk are still to come", vm.Name, size(h.Remaining))
	if from := holderNames(h.From, func(x api.HydrationHolder) bool { return x.Connected }); from != "" {
		text += " from " + from
	}
	if h.Rate > 0 && !h.Waiting && h.Paused == "" {
		text += ", " + size(h.Rate) + "/s"
	}
	if h.ETA > 0 && h.Paused == "" {
		text += ", " + h.ETA.Round(time.Second).String() + " left"
	}
	lines = append(lines, text+".")
	if h.Paused != "" && !h.Waiting {
		lines = append(lines, h.Paused+" What the VM reads comes all the same; the rest with: tagalong sync now")
	}
	helps := holderNames(h.From, func(x api.HydrationHolder) bool { return x.Helps })
	if h.Nobodys > 0 && helps != "" {
		lines = append(lines, fmt.Sprintf("%s of it are on no device that can be reached now, but on %s.", size(h.Nobodys), helps))
	}
	needed := holderNames(h.From, func(x api.HydrationHolder) bool { return x.Needed })
	switch {
	case h.Waiting && cmp.Or(helps, needed) != "":
		lines = append(lines, fmt.Sprintf("What isn't here waits: bring %s back, or roll back: tagalong vm rollback %s", cmp.Or(helps, needed), shellWord(vm.Name)))
	case h.Waiting && len(h.From) > 0:
		could := holderNames(h.From, func(api.HydrationHolder) bool { return true })
		lines = append(lines, fmt.Sprintf("What isn't here waits for one of those who may have it: %s. Bring one back, or roll back: tagalong vm rollback %s", could, shellWord(vm.Name)))
	case h.Waiting:
		lines = append(lines, fmt.Sprintf("What isn't here waits: nobody who has it is there. You may roll back: tagalong vm rollback %s", shellWord(vm.Name)))
	case needed != "":
		lines = append(lines, fmt.Sprintf("Don't switch off %s yet.", needed))
	}
	return lines
}
