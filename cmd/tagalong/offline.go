package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newOffline(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "offline",
		Short: "Take VMs along on a journey, without the other devices",
		Long: `Work offline: before a journey this device makes sure that it has everything, becomes the
owner of the VMs that come along, and tells the others, who then leave them alone. What it
doesn't take along it only has a copy of, which must not be started.

Without a verb it shows how things are.`,
		Example: `  tagalong offline on
  tagalong offline on Work --now
  tagalong offline off`,
	}
	group(cmd, newOfflineOn(c), newOfflineOff(c), newOfflineStatus(c))
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.offlineStatus(cmd, *asJSON) }
	return cmd
}

func newOfflineOn(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "on [VM...]",
		Short: "Get ready to work offline, and tell the others",
		Long: `Get ready to work offline. Without names all VMs come along, wherever they are; a running
one keeps running. It waits until everything is here; Ctrl-C calls it off.

--now goes without what isn't here yet and says what that is. It also ends the waiting of
another "offline on".`,
		Example: `  tagalong offline on
  tagalong offline on Work
  tagalong offline on --copy-only`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			names := slices.DeleteFunc(c.complete(cmd, vmNames), func(name string) bool { return slices.Contains(args, name) })
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	now := cmd.Flags().Bool("now", false, "go at once, without what isn't here yet")
	copyOnly := cmd.Flags().Bool("copy-only", false, "leave all VMs where they are and only bring the copies here up to date")
	noWait := cmd.Flags().Bool("no-wait", false, "return when the preparation has begun")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *copyOnly && len(args) > 0 {
			return usage("With --copy-only no VM comes along.", "Leave out either --copy-only or the names.")
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		st, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		req := api.GoOffline{CopyOnly: *copyOnly, Now: *now}
		for _, name := range args {
			vm, err := findVM(st, name)
			if err != nil {
				return err
			}
			req.VMs = append(req.VMs, vm.ID)
		}
		begin := func() (*api.Job, error) { return client.GoOffline(cmd.Context(), req) }
		if *noWait {
			_, err = begin()
		} else {
			_, err = c.followJob(cmd.Context(), client, *asJSON, begin, client.GoOnline)
		}
		if err != nil {
			return err
		}
		if st, err = client.Status(cmd.Context()); err != nil {
			return err
		}
		if *asJSON {
			return c.out.json(st.Offline)
		}
		c.showOffline(st, time.Now())
		return nil
	}
	return cmd
}

func newOfflineOff(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "off",
		Short:   "Work with the other devices again, or call a preparation off",
		Example: "  tagalong offline off",
		Args:    between(0, 0),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			before, err := client.Status(ctx)
			if err != nil {
				return err
			}
			if err := client.GoOnline(ctx); err != nil {
				return err
			}
			switch {
			case *asJSON:
				st, err := client.Status(ctx)
				if err != nil {
					return err
				}
				return c.out.json(st.Offline)
			case before.Offline.On:
				c.out.say("This device works online again. What changed meanwhile is exchanged by itself; see it with: tagalong status")
			case before.Offline.Job != "":
				c.out.say("The preparation is called off. This device works online.")
			default:
				c.out.say("This device works online.")
			}
			return nil
		})
	}
	return cmd
}

func newOfflineStatus(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show whether this device works offline, and what it has along",
		Example: "  tagalong offline status --json",
		Args:    between(0, 0),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.offlineStatus(cmd, *asJSON) }
	return cmd
}

func (c *cli) offlineStatus(cmd *cobra.Command, asJSON bool) error {
	return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
		st, err := client.Status(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return c.out.json(st.Offline)
		}
		c.showOffline(st, time.Now())
		return nil
	})
}

// showOffline says how this device stands to the others, and what it has of each VM.
func (c *cli) showOffline(st *api.Status, now time.Time) {
	c.out.say("%s", offlineWords(st, now))
	o := st.Offline
	if len(o.VMs) == 0 {
		return
	}
	rows := make([][]string, 0, len(o.VMs))
	lacking, copies := false, false
	for _, v := range o.VMs {
		missing := "nothing"
		if v.Missing == nil || *v.Missing > 0 {
			missing, lacking = amount(v.Missing), true
		}
		along := "is here"
		switch {
		case v.Taken && o.On:
			along = "is along"
		case !v.Taken && o.Job != "":
			along = "still with " + v.OwnerName
		case !v.Taken:
			along, copies = "only a copy; "+v.OwnerName+" owns it", true
		}
		asOf := ""
		if !v.Taken {
			asOf = ago(v.At, now)
			if v.At.IsZero() {
				asOf = "unknown"
			}
		}
		rows = append(rows, []string{v.VMName, along, missing, asOf})
	}
	if o.On || o.Job != "" {
		c.out.say("")
	} else {
		c.out.say("If it went offline now:\n")
	}
	c.out.table([]string{"VM", "HERE", "MISSING", "COPY OF"}, rows)
	if o.On && lacking {
		c.out.say("\nWhat is missing can't be read until the device that has it is reached again.")
	}
	if o.On && len(o.Unaware) > 0 {
		c.out.say("\nNot told yet: %s", strings.Join(o.Unaware, ", "))
	}
	if o.On && copies {
		c.out.say("\nA copy must not be started: its owner may be writing to the VM. If it must be: tagalong switch --force VM")
	}
}

// offlineWords is how this device stands to the others, in one line.
func offlineWords(st *api.Status, now time.Time) string {
	switch o := st.Offline; {
	case o.On:
		text := "This device works offline"
		if !o.Since.IsZero() {
			text += ", since " + moment(o.Since, now)
		}
		return text + "."
	case o.Job != "":
		s := step{name: "Getting ready to work offline"}
		for _, job := range st.Jobs {
			if job.ID == o.Job {
				s = step{name: s.name, bytes: job.Bytes, total: job.Total, rate: job.Rate, left: job.ETA}
			}
		}
		return s.words() + ". Go at once with: tagalong offline on --now"
	default:
		return "This device works online."
	}
}

func newLeave(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take this device out of your fleet",
		Long: `Take this device out of your fleet: it tells the others, which give it nothing any more, and is
a fleet of one again. A VM that is on it and that others have copies of has to be brought to
one of them first. Its copies of other VMs stay as disks that nothing updates, or are deleted
with --delete.`,
		Example: "  tagalong leave\n  tagalong leave --delete",
		Args:    between(0, 0),
	}
	del := cmd.Flags().Bool("delete", false, "delete the copies of VMs that this device doesn't own")
	yes := cmd.Flags().Bool("yes", false, "don't ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			st, err := client.Status(ctx)
			if err != nil {
				return err
			}
			c.tell(false, leaveLines(st, *del)...)
			if err := c.confirm(fmt.Sprintf("This takes %q, which is this device, out of your fleet.", st.Device.Name), st.Device.Name, *yes); err != nil {
				return err
			}
			if err := client.LeaveFleet(ctx, api.LeaveFleet{Delete: *del}); err != nil {
				return err
			}
			c.out.say("This device is a fleet of one.")
			return nil
		})
	}
	return cmd
}

// leaveLines say what leaving does to each VM.
func leaveLines(st *api.Status, del bool) []string {
	var lines []string
	for _, vm := range st.VMs {
		switch {
		case vm.Here:
			lines = append(lines, fmt.Sprintf("%q is on this device. If others have copies of it, bring it to one of them first; otherwise it stays here.", vm.Name))
		case del:
			lines = append(lines, fmt.Sprintf("The copy of %q here is deleted; it stays with %s.", vm.Name, vm.OwnerName))
		default:
			lines = append(lines, fmt.Sprintf("The copy of %q here stays as a disk that nothing updates.", vm.Name))
		}
	}
	return lines
}
