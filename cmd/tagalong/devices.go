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
		case d.Self:
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
		Short: "Take a device out of your fleet",
		Long: `Take a device out of your fleet. It gets nothing any more from the others, from
the next time on that each of them hears of this. What it holds stays on it.`,
		Example:           "  tagalong devices remove laptop",
		Args:              between(1, 1),
		ValidArgsFunction: c.completeFirst(otherDeviceNames),
	}
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
			if err := c.confirm(fmt.Sprintf("This takes %q out of your fleet.", d.Name), d.Name, *yes); err != nil {
				return err
			}
			if err := client.RemoveDevice(ctx, api.RemoveDevice{Device: d.ID}); err != nil {
				return err
			}
			c.out.say("%q is removed.", d.Name)
			return nil
		})
	}
	return cmd
}
