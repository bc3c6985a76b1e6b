package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disktool"
)

func newDiskExport(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export VM|DIR FILE",
		Short: "Copy a disk into a raw or qcow2 file, also while its VM runs",
		Long: `Write a copy of a disk into a file that any other program can use. The disk of a VM
is copied by the engine while the VM runs: the copy is the disk as it was at one
moment, as after pulling the plug, and what is written meanwhile isn't in it.

The file has its name only when it is whole; a copy that fails, or is cancelled with
Ctrl-C, leaves nothing. Holes stay holes.`,
		Example: `  tagalong disk export Work /backup/work.qcow2 --format qcow2
  tagalong disk export ~/disks/scratch scratch.raw --rate 50M`,
		Args: between(2, 2),
	}
	var req api.ExportDisk
	format := cmd.Flags().String("format", "", "`format` of the file: raw or qcow2 (default: qcow2 if it is called so, else raw)")
	position := cmd.Flags().String("position", "", "which `position` of the disk, as in disk info (default: the present one)")
	cmd.Flags().StringVar(&req.Volume, "disk", "", "which `disk`, if there are several (default: the first)")
	rate := cmd.Flags().String("rate", "", "`size` a second to copy at most (default: no limit)")
	cmd.Flags().BoolVar(&req.Force, "force", false, "replace the file if there is one")
	asJSON := jsonFlag(cmd)
	registerCompletion(cmd, "format", cobra.FixedCompletions([]string{"raw", "qcow2"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if req.File, err = filepath.Abs(args[1]); err != nil {
			return usage(fmt.Sprintf("%q isn't a path.", args[1]), "Name a file.")
		}
		req.Format = api.DiskFormat(*format)
		if *format == "" && strings.EqualFold(filepath.Ext(req.File), ".qcow2") {
			req.Format = api.DiskQcow2
		}
		if req.Position, err = parsePosition(*position); err != nil {
			return err
		}
		if req.Rate, err = parseRate(*rate); err != nil {
			return err
		}
		// Refused before anybody is asked, with the engine's own words.
		if err := disktool.CheckExport(&req); err != nil {
			return err
		}
		var made *api.DiskExport
		here := func(dir string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			p := newProgress(c.err, *asJSON)
			defer p.clear()
			req.Disk = dir
			made, err = disktool.ExportClosed(ctx, req, c.diskLog(), localProgress(p, "Export"))
			return err
		}
		there := func(client *api.Client, disk string) error {
			req.Disk = disk
			job, err := c.followJob(cmd.Context(), client, *asJSON, func() (*api.Job, error) { return client.ExportDisk(cmd.Context(), req) }, nil)
			if err == nil {
				made = job.Export
			}
			return err
		}
		switch err := c.onDisk(cmd.Context(), args[0], here, there); {
		case err != nil:
			return err
		case *asJSON:
			return c.out.json(made)
		case made != nil:
			c.out.say("The disk, as it was at %d/%d, is in %s (%s of %s).", made.Position.Term, made.Position.Barrier, made.File, size(made.Allocated), size(made.Size))
		}
		return nil
	}
	return cmd
}

// parsePosition reads "3/120"; "" is the zero Position.
func parsePosition(text string) (p api.Position, err error) {
	if text == "" {
		return p, nil
	}
	term, barrier, ok := strings.Cut(text, "/")
	if p.Term, err = strconv.ParseUint(term, 10, 64); err == nil {
		p.Barrier, err = strconv.ParseUint(barrier, 10, 64)
	}
	if !ok || err != nil {
		return api.Position{}, usage(fmt.Sprintf("%q is not a position.", text), "Write it like 3/120, as tagalong disk info does.")
	}
	return p, nil
}

// parseRate reads a size; "" is no limit.
func parseRate(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	return parseSize(strings.TrimSuffix(text, "/s"))
}
