package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newDevices(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "devices",
		Aliases: []string{"device"},
		Short:   "List the devices of your fleet and where they are, say where one is or what network it has, or remove one",
		Example: "  tagalong devices\n  tagalong devices site laptop Home\n  tagalong devices bridge br0\n  tagalong devices remove laptop",
	}
	group(cmd, newDevicesSite(c), newDevicesBridge(c), newDevicesRemove(c))
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
	others, placed := false, false
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
		where := siteWords(st, d)
		placed = placed || where != ""
		rows = append(rows, []string{d.Name, deviceWords(d), seen, trip, deviceCopies(st, d.ID, now), where, d.ID})
	}
	if len(rows) > 0 {
		heading := []string{"DEVICE", "STATE", "SEEN", "ROUND TRIP", "COPIES", "SITE", "ID"}
		if !placed {
			heading = slices.Delete(heading, 5, 6)
			for i := range rows {
				rows[i] = slices.Delete(rows[i], 5, 6)
			}
		}
		c.out.table(heading, rows)
	}
	if !others {
		c.out.say("No other device yet. Pair one with: tagalong pair")
	}
}

func newDevicesSite(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "site DEVICE NAME|auto",
		Short: "Say at which site a device is, or let Tagalong see for itself",
		Long: `Devices that see each other on a local network are at one site: changes go to each of them
at once, and to another site only through one device, the postmaster. Tagalong sees by itself
who is together. Where it can't (a VPN, a network that devices can't see each other on), give
a name: devices with the same one are together, whatever is seen, and with nobody else.

With "auto" a device is where it is seen again.`,
		Example: `  tagalong devices site laptop Home
  tagalong devices site laptop auto`,
		Args:              between(2, 2),
		ValidArgsFunction: c.completeFirst(deviceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
				st, err := client.Status(ctx)
				if err != nil {
					return err
				}
				d, err := findDevice(st, args[0])
				if err != nil {
					return err
				}
				if err := client.PinDevice(ctx, api.PinDevice{Device: d.ID, Site: args[1]}); err != nil {
					return err
				}
				if args[1] == "auto" {
					c.out.say("%q is where it is seen.", d.Name)
				} else {
					c.out.say("%q is at %q, with all that you say this of.", d.Name, args[1])
				}
				return nil
			})
		},
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
