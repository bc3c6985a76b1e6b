package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newSync(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Show and choose when and how fast changes go to your other sites",
		Long: `Changes go to devices of the same site at once, whatever is set here. To other sites they go
through one device, the postmaster, when a VM isn't being worked with or has waited for long;
over a metered connection not at all, and on battery slowly, unless you choose otherwise.

What is set is this device's: it holds back what goes from here, and what comes here.
Without a verb it shows what applies now, and why.`,
		Example: `  tagalong sync
  tagalong sync now
  tagalong sync pause --for 2h
  tagalong sync limit --up 500KB/s`,
	}
	group(cmd, newSyncNow(c), newSyncPause(c), newSyncResume(c), newSyncLimit(c), newSyncSchedule(c), newSyncMetered(c), newSyncBattery(c), newSyncReset(c))
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.syncStatus(cmd, *asJSON) }
	return cmd
}

// syncStatus shows what applies.
func (c *cli) syncStatus(cmd *cobra.Command, asJSON bool) error {
	return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
		st, err := client.Status(ctx)
		if err != nil {
			return err
		}
		if st.Sync == nil {
			return &api.Error{Code: api.CodeInternal, Sentence: "The engine doesn't say how sync stands.", Next: "Use the same version of Tagalong for the engine and its command line."}
		}
		if asJSON {
			return c.out.json(st.Sync)
		}
		for _, line := range syncLines(st, time.Now()) {
			c.out.say("%s", line)
		}
		return nil
	})
}

// syncLines say what applies now, what is under way, and what is set.
func syncLines(st *api.Status, now time.Time) []string {
	s := st.Sync
	var lines []string
	switch {
	case s.Problem != nil:
		lines = append(lines, s.Problem.Sentence)
		if s.Problem.Next != "" {
			lines = append(lines, "  "+s.Problem.Next)
		}
		return lines
	case s.May && s.Text == "":
		lines = append(lines, "Changes go to your other sites.")
	case s.May:
		lines = append(lines, "Changes go to your other sites: "+s.Text)
	default:
		lines = append(lines, "Nothing goes to your other sites now: "+s.Text)
	}
	switch {
	case s.Asked:
		lines = append(lines, "You asked for it now: for one round that goes first.")
	case !s.May && s.Why != "looking":
		lines = append(lines, "Send anyway, once, with: tagalong sync now")
	}
	for _, vm := range st.VMs {
		for _, r := range vm.Replicas {
			if r.State == api.ReplicaPushing || r.State == api.ReplicaWaiting {
				lines = append(lines, fmt.Sprintf("%s on %s: %s", vm.Name, r.DeviceName, replicaWords(r, now)))
			}
		}
	}
	set := s.Settings
	lines = append(lines, "", fmt.Sprintf("Limit:     %s up, %s down", rateWords(set.Up), rateWords(set.Down)))
	for i, t := range set.Schedule {
		head := "Schedule:  "
		if i > 0 {
			head = "           "
		}
		lines = append(lines, head+timesWords(t))
	}
	return append(lines, "Metered:   "+meteredWords(s), "Battery:   "+batteryWords(s))
}

func rateWords(n int64) string {
	if n == 0 {
		return "none"
	}
	return size(n) + "/s"
}

func timesWords(t api.SyncTimes) string {
	switch t.Do {
	case "off":
		return t.When + " nothing"
	case "only":
		return "only " + t.When
	}
	return fmt.Sprintf("%s %s up, %s down", t.When, rateWords(t.Up), rateWords(t.Down))
}

func meteredWords(s *api.Sync) string {
	words, is := "not used", "isn't"
	if s.Settings.Metered == "allow" {
		words = "used like others"
	}
	if s.Metered {
		is = "is"
	}
	return words + " (this connection " + is + " metered, as far as is known)"
}

func batteryWords(s *api.Sync) string {
	b, words := s.Settings.Battery, "all the same"
	if !b.Ignore {
		var parts []string
		if b.Below > 0 {
			parts = append(parts, fmt.Sprintf("nothing below %d %%", b.Below))
		}
		if b.Rate > 0 {
			parts = append(parts, "at most "+size(b.Rate)+"/s")
		}
		if len(parts) > 0 {
			words = strings.Join(parts, ", otherwise ")
		}
	}
	switch {
	case s.OnBattery && s.Percent > 0:
		return fmt.Sprintf("%s (on battery, %d %%)", words, s.Percent)
	case s.OnBattery:
		return words + " (on battery)"
	}
	return words
}

// tellSync makes a verb that tells the engine one thing and says that it is so.
func (c *cli) tellSync(tell func(ctx context.Context, client *api.Client, args []string) (done string, err error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			done, err := tell(ctx, client, args)
			if err == nil {
				c.out.say("%s", done)
			}
			return err
		})
	}
}

func newSyncNow(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "now [VM]",
		Short: "Send what changed to your other sites now",
		Long: `Send what changed of a VM, or of all, to your other sites now, though somebody works with it.
For one round this goes before a pause, the schedule, a metered connection and the battery;
limits stay. If nothing comes of it in ten minutes, it is forgotten.`,
		Example:           "  tagalong sync now\n  tagalong sync now Work",
		Args:              between(0, 1),
		ValidArgsFunction: c.completeFirst(vmNames),
		RunE: c.tellSync(func(ctx context.Context, client *api.Client, args []string) (string, error) {
			if len(args) == 0 {
				return "What changed goes to your other sites now. See how with: tagalong sync", client.SyncNow(ctx, api.SyncNow{})
			}
			st, err := client.Status(ctx)
			if err != nil {
				return "", err
			}
			vm, err := findVM(st, args[0])
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("What changed of %q goes to your other sites now. See how with: tagalong sync", vm.Name), client.SyncNow(ctx, api.SyncNow{VM: vm.ID})
		}),
	}
}

func newSyncPause(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "pause",
		Short:   "Hold back what goes to other sites",
		Long:    "Hold back what goes from here to other sites and what comes here from them, until you say\n\"tagalong sync resume\", or for a time. What is under way goes on afterwards where it was.",
		Example: "  tagalong sync pause\n  tagalong sync pause --for 2h",
		Args:    between(0, 0),
	}
	length := cmd.Flags().Duration("for", 0, "for this `time` (30m, 2h), and not until you resume")
	cmd.RunE = c.tellSync(func(ctx context.Context, client *api.Client, _ []string) (string, error) {
		if cmd.Flags().Changed("for") && *length < time.Second {
			return "", usage("A pause takes a second at least.", "Write it like --for 30m or --for 2h.")
		}
		if *length == 0 {
			return "Sync is paused. Go on with: tagalong sync resume", client.PauseSync(ctx, api.PauseSync{})
		}
		return "Sync is paused for " + span(*length) + ".", client.PauseSync(ctx, api.PauseSync{Seconds: int64(*length / time.Second)})
	})
	return cmd
}

func newSyncResume(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "resume",
		Short:   "End a pause",
		Example: "  tagalong sync resume",
		Args:    between(0, 0),
		RunE: c.tellSync(func(ctx context.Context, client *api.Client, _ []string) (string, error) {
			return "Sync goes on.", client.ResumeSync(ctx)
		}),
	}
}

func newSyncLimit(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "limit [--up RATE|none] [--down RATE|none]",
		Short: "Limit how fast it goes",
		Long: `Limit how fast changes go to other sites (up) and come from them (down), all together. Rates
are a second: 500KB/s or 2M, in binary units, or 8Mbit/s, as lines are sold. At least 1KB/s.

A limit is this device's own, and the devices at both ends keep theirs: what is sent from here goes
no faster than "up" here and "down" there. But which device of a site sends to the others, its
postmaster, may change (tagalong devices shows it), so set "up" on each device of a site that shares
a line, and "down" too. Mirroring within a site isn't limited.`,
		Example: "  tagalong sync limit --up 500KB/s --down none\n  tagalong sync limit --up 2Mbit/s",
		Args:    between(0, 0),
	}
	up := cmd.Flags().String("up", "", "`rate` to other sites, or none")
	down := cmd.Flags().String("down", "", "`rate` from other sites, or none")
	cmd.RunE = c.tellSync(func(ctx context.Context, client *api.Client, _ []string) (string, error) {
		var req api.SetSync
		var said []string
		for _, way := range []struct {
			name, text string
			into       **int64
		}{{"up", *up, &req.Up}, {"down", *down, &req.Down}} {
			if !cmd.Flags().Changed(way.name) {
				continue
			}
			n, err := parseLimit(way.text)
			if err != nil {
				return "", err
			}
			*way.into = &n
			said = append(said, rateWords(n)+" "+way.name)
		}
		if len(said) == 0 {
			return "", usage("No limit is given.", "Say --up RATE or --down RATE, or none in place of a rate. What is set shows: tagalong sync")
		}
		return "Limit: " + strings.Join(said, ", ") + ".", client.SetSync(ctx, req)
	})
	return cmd
}

func newSyncMetered(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:       "metered allow|avoid",
		Short:     "Choose whether metered connections are used",
		Long:      "Choose whether changes go to other sites over connections that cost by the byte, as your\nnetwork manager says (a phone's hotspot, a modem). They don't, unless you allow it.",
		Example:   "  tagalong sync metered allow",
		Args:      between(1, 1),
		ValidArgs: []string{"allow", "avoid"},
		RunE: c.tellSync(func(ctx context.Context, client *api.Client, args []string) (string, error) {
			switch args[0] {
			case "allow":
				return "Metered connections are used like others.", client.SetSync(ctx, api.SetSync{Metered: &args[0]})
			case "avoid":
				return "Nothing goes to other sites over metered connections.", client.SetSync(ctx, api.SetSync{Metered: &args[0]})
			}
			return "", usage(fmt.Sprintf("%q can't be said of metered connections.", args[0]), "Say allow or avoid.")
		}),
	}
}

func newSyncBattery(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "battery [--below PERCENT] [--limit RATE|none] | battery ignore",
		Short:   "Choose what happens on battery",
		Long:    "Choose what happens while this device runs on its battery: below a charge nothing goes to\nother sites, and above it slowly. \"ignore\" makes it all the same.",
		Example: "  tagalong sync battery --below 50 --limit 200KB/s\n  tagalong sync battery ignore",
		Args:    between(0, 1), ValidArgs: []string{"ignore"},
	}
	below := cmd.Flags().String("below", "", "charge in `percent` under which nothing goes; 0 is none")
	limit := cmd.Flags().String("limit", "", "`rate` both ways above that, or none")
	cmd.RunE = c.tellSync(func(ctx context.Context, client *api.Client, args []string) (string, error) {
		given := cmd.Flags().Changed("below") || cmd.Flags().Changed("limit")
		if given == (len(args) == 1) || len(args) == 1 && args[0] != "ignore" {
			return "", usage("This says nothing of the battery.", "Say --below PERCENT, --limit RATE, or ignore.")
		}
		st, err := client.Status(ctx)
		if err != nil {
			return "", err
		}
		b := api.SyncBattery{Below: 30, Rate: 1 << 20}
		if st.Sync != nil {
			b = st.Sync.Settings.Battery
		}
		b.Ignore = !given
		if cmd.Flags().Changed("below") {
			if b.Below, err = strconv.Atoi(strings.TrimSuffix(*below, "%")); err != nil || b.Below < 0 || b.Below > 100 {
				return "", usage(fmt.Sprintf("%q is not a charge.", *below), "Write it in percent, like 30.")
			}
		}
		if cmd.Flags().Changed("limit") {
			if b.Rate, err = parseLimit(*limit); err != nil {
				return "", err
			}
		}
		return "On battery: " + batteryWords(&api.Sync{Settings: api.SyncSettings{Battery: b}}) + ".", client.SetSync(ctx, api.SetSync{Battery: &b})
	})
	return cmd
}

func newSyncReset(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "reset",
		Short:   "Forget all that was set, also a pause",
		Long:    "Forget all that was set about sync, also a pause. If it can't be read it is put aside first, next\nto where it was, with \".unreadable\" after its name.",
		Example: "  tagalong sync reset",
		Args:    between(0, 0),
		RunE: c.tellSync(func(ctx context.Context, client *api.Client, _ []string) (string, error) {
			return "Nothing is set about sync any more.", client.SetSync(ctx, api.SetSync{Reset: true})
		}),
	}
}
