package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disktool"
)

func newDiskCheck(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check VM|DIR",
		Short: "Verify a disk's files, and its content against what is recorded",
		Long: `Verify all that a disk keeps in its directory, and read its content through: what
was recorded earlier, and not written since, must still be the same. With --record
what has no record yet gets one. The disk of a VM is checked by the engine while the
VM runs. Nothing is repaired.

The exit code is 0 if nothing is wrong, and 1 if something is.`,
		Example: `  tagalong disk check Work
  tagalong disk check ~/disks/scratch --record --json`,
		Args: between(1, 1),
	}
	var req api.CheckDisk
	cmd.Flags().BoolVar(&req.Record, "record", false, "record what has no record yet, for the next check")
	rate := cmd.Flags().String("rate", "", "`size` a second to read at most (default: no limit)")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if req.Rate, err = parseRate(*rate); err != nil {
			return err
		}
		var found *api.DiskCheck
		here := func(dir string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			p := newProgress(c.err, *asJSON)
			defer p.clear()
			req.Disk = dir
			found, err = disktool.CheckClosed(ctx, req, c.diskLog(), localProgress(p, "Check"))
			return err
		}
		there := func(client *api.Client, disk string) error {
			req.Disk = disk
			job, err := c.followJob(cmd.Context(), client, *asJSON, func() (*api.Job, error) { return client.CheckDisk(cmd.Context(), req) }, nil)
			if err == nil {
				found = job.Check
			}
			return err
		}
		if err := c.onDisk(cmd.Context(), args[0], here, there); err != nil || found == nil {
			return err
		}
		if *asJSON {
			err = c.out.json(found)
		} else {
			c.showCheck(found)
		}
		if err == nil && !found.Clean {
			err = &api.Error{Code: api.CodeDamaged, Sentence: fmt.Sprintf("Something is wrong with the disk in %s.", found.Dir),
				Next: "Copy it away before you try anything: tagalong disk export"}
		}
		return err
	}
	return cmd
}

func (c *cli) showCheck(f *api.DiskCheck) {
	o := c.out
	o.say("%s", f.Dir)
	for _, x := range slices.Concat(f.Findings, f.Notes) {
		if x.File != "" {
			x.Sentence = x.File + ": " + x.Sentence
		}
		o.say("  %s", x.Sentence)
		if x.Next != "" {
			o.say("    %s", x.Next)
		}
	}
	o.say("  Verified    %s", size(f.Verified))
	if f.Unverified > f.Recorded {
		o.say("  Unverified  %s have no record to compare with (--record makes one)", size(f.Unverified-f.Recorded))
	}
	if f.Recorded > 0 {
		o.say("  Recorded    %s, for the next check", size(f.Recorded))
	}
	if f.Busy > 0 {
		o.say("  Busy        %s were written meanwhile or lately, so nothing counts as recorded", size(f.Busy))
	}
	if f.Cleared {
		o.say("  It had to be checked since an error, and now it has been.")
	}
	if f.Clean {
		o.say("  Nothing is wrong.")
	}
}
