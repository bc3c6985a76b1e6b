package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newSyncSchedule(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schedule [--only TIMES]... [--off TIMES]... [--limit TIMES=RATE]... | schedule none",
		Short: "Choose times of the week",
		Long: `Choose times of the week in which changes go to other sites (--only), don't (--off), or go no
faster than a rate in either direction (--limit). What is given replaces the schedule; "none" ends it.

Times are by this device's clock: "22:00-6:00" is of every day, "mon-fri 8:00-18:00" and
"sat,sun 0:00-24:00" are of some. Those that go past midnight belong to the day on which
they begin. Each option can be given more than once; where times overlap, the stricter counts.`,
		Example: `  tagalong sync schedule --only 22:00-6:00
  tagalong sync schedule --off "mon-fri 9:00-12:00" --limit "mon-fri 12:00-18:00=200KB/s"
  tagalong sync schedule none`,
		Args: between(0, 1), ValidArgs: []string{"none"},
	}
	only := cmd.Flags().StringArray("only", nil, "`times` outside of which nothing goes")
	off := cmd.Flags().StringArray("off", nil, "`times` in which nothing goes")
	limit := cmd.Flags().StringArray("limit", nil, "`times=rate`: no faster than that")
	cmd.RunE = c.tellSync(func(ctx context.Context, client *api.Client, args []string) (string, error) {
		times := []api.SyncTimes{}
		for _, when := range *only {
			times = append(times, api.SyncTimes{When: when, Do: "only"})
		}
		for _, when := range *off {
			times = append(times, api.SyncTimes{When: when, Do: "off"})
		}
		for _, text := range *limit {
			when, rate, _ := strings.Cut(text, "=")
			n, err := parseLimit(rate)
			if err != nil {
				return "", err
			}
			if n == 0 {
				return "", usage(fmt.Sprintf("%q limits nothing.", text), `Write it like "mon-fri 8:00-18:00=200KB/s".`)
			}
			times = append(times, api.SyncTimes{When: when, Do: "limit", Up: n, Down: n})
		}
		switch {
		case len(args) == 1 && (args[0] != "none" || len(times) > 0), len(args) == 0 && len(times) == 0:
			return "", usage("This is no schedule.", "Say --only, --off or --limit with times, or none. What is set shows: tagalong sync")
		case len(args) == 1:
			return "There is no schedule.", client.SetSync(ctx, api.SetSync{Schedule: &times})
		}
		if err := client.SetSync(ctx, api.SetSync{Schedule: &times}); err != nil {
			return "", err
		}
		return "The schedule is set. See what it does now with: tagalong sync", nil
	})
	return cmd
}

// parseLimit reads a rate in bytes a second: "500KB/s", "2M", "8Mbit/s"; "none" is 0.
func parseLimit(text string) (int64, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	if s == "none" {
		return 0, nil
	}
	s = strings.TrimSuffix(s, "/s")
	bits, isBits := strings.CutSuffix(s, "bit")
	if !isBits {
		n, err := parseSize(s)
		return tooSlow(text, n, err)
	}
	unit := 1.0
	for _, u := range []struct {
		name string
		unit float64
	}{{"k", 1e3}, {"m", 1e6}, {"g", 1e9}} {
		if rest, ok := strings.CutSuffix(bits, u.name); ok {
			bits, unit = rest, u.unit
			break
		}
	}
	bits = strings.TrimSpace(bits)
	v, err := strconv.ParseFloat(bits, 64)
	if err != nil || strings.Trim(bits, "0123456789.") != "" || v*unit > 1e12 {
		return 0, usage(fmt.Sprintf("%q is not a rate.", text), "Write it like 500KB/s, 2M or 8Mbit/s, or none.")
	}
	return tooSlow(text, int64(v*unit/8), nil)
}

// tooSlow refuses rates that can't be kept.
func tooSlow(text string, n int64, err error) (int64, error) {
	switch {
	case err != nil:
		return 0, usage(fmt.Sprintf("%q is not a rate.", text), "Write it like 500KB/s, 2M or 8Mbit/s, or none.")
	case n < 1<<10:
		return 0, usage("This is too slow: a limit is 1KB/s at least.", "To send nothing, say: tagalong sync pause")
	case n > 1<<40:
		return 0, usage("This is faster than any limit.", "Say none.")
	}
	return n, nil
}
