package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newDevices(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "devices",
		Aliases: []string{"device"},
		Short:   "List the devices of your fleet, or remove one",
		Example: "  tagalong devices\n  tagalong devices remove laptop",
	}
	group(cmd, newDevicesRemove(c))
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			st, err := client.Status(ctx)
			if err != nil {
				return err
			}
			if *asJSON {
				return c.out.json(allDevices(st))
			}
			c.deviceTable(st)
			return nil
		})
	}
	return cmd
}

// deviceTable prints all devices, and says what to do when there is only this one.
func (c *cli) deviceTable(st *api.Status) {
	now := time.Now()
	var rows [][]string
	others := false
	for _, d := range allDevices(st) {
		seen, trip := "", ""
		switch {
		case d.Self, d.Removed && d.LastSeen.IsZero():
		case d.Connected:
			seen = "now"
			if d.RTTMicros > 0 {
				trip = span(time.Duration(d.RTTMicros) * time.Microsecond)
			}
		default:
			seen = ago(d.LastSeen, now)
		}
		others = others || !d.Self
		rows = append(rows, []string{d.Name, deviceWords(d), seen, trip, d.ID})
	}
	if len(rows) > 0 {
		c.out.table([]string{"DEVICE", "STATE", "SEEN", "ROUND TRIP", "ID"}, rows)
	}
	if !others {
		c.out.say("No other device yet. Pair one with: tagalong pair")
	}
}

func newDevicesRemove(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove DEVICE",
		Short: "Take a device out of your fleet, lost or stolen ones too",
		Long: `Take a device out of your fleet. It gets nothing any more from the others, from the next
time on that each of them hears of this. What it holds stays on it, unless --wipe has it
deleted as soon as any of your devices reaches it.

A device that owns VMs is only removed with --anyway: each of them can then be taken over
with "tagalong switch --force".`,
		Example: `  tagalong devices remove laptop
  tagalong devices remove laptop --wipe --anyway`,
		Args:              between(1, 1),
		ValidArgsFunction: c.completeFirst(otherDeviceNames),
	}
	wipe := cmd.Flags().Bool("wipe", false, "have it delete everything of your fleet as soon as it is reached")
	anyway := cmd.Flags().Bool("anyway", false, "remove it although it owns VMs")
	yes := cmd.Flags().Bool("yes", false, "don't ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			st, err := client.Status(ctx)
			if err != nil {
				return err
			}
			d, err := findDevice(st, args[0])
			if err != nil {
				return err
			}
			if d.ID == st.Device.ID {
				return &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("%q is this device.", d.Name), Next: "Take it out of your fleet with: tagalong leave"}
			}
			c.tell(false, removeLines(st, d, *wipe, *anyway)...)
			if err := c.confirm(fmt.Sprintf("This takes %q out of your fleet.", d.Name), d.Name, *yes); err != nil {
				return err
			}
			if err := client.RemoveDevice(ctx, api.RemoveDevice{Device: d.ID, Wipe: *wipe, Anyway: *anyway}); err != nil {
				return err
			}
			switch {
			case d.Connected:
				c.out.say("%q is removed.", d.Name)
			case *wipe:
				c.out.say("%q is removed. It isn't connected, and will be wiped when one of your devices reaches it.", d.Name)
			default:
				c.out.say("%q is removed. It isn't connected, and will be told when one of your devices reaches it.", d.Name)
			}
			return nil
		})
	}
	return cmd
}

// removeLines say what removing a device does beyond its going.
func removeLines(st *api.Status, d api.Device, wipe, anyway bool) []string {
	var lines []string
	for _, vm := range st.VMs {
		switch {
		case vm.Owner != d.ID || vm.Conflict != nil:
		case anyway:
			lines = append(lines, fmt.Sprintf("%s owns %q. What was written there and isn't on another device yet is then lost; take it over with: tagalong switch --force %s",
				d.Name, vm.Name, shellWord(vm.Name)))
		default:
			lines = append(lines, fmt.Sprintf("%s owns %q. Bring that elsewhere first, or say --anyway.", d.Name, vm.Name))
		}
	}
	if wipe {
		lines = append(lines, fmt.Sprintf("Everything of your fleet on %s is deleted as soon as it is reached: copies of disks, VMs and restore points.", d.Name))
	}
	return lines
}
