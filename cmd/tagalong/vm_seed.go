package main

import (
	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newVMSeed(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "seed VM FILE",
		Short: "Fill this device's copy of a VM from a file, so that less has to be fetched",
		Long: `Fill this device's first copy of a VM's disk from a file: a disk carried by hand, an
old image, or what tagalong disk export wrote on another device. Afterwards only the
blocks that differ are fetched from the others.

The file need not be right. What it holds is compared with the VM's disk before any of
it counts, and until all that differs has come this device has no copy that could be
switched to or taken over. It may be smaller than the disk; if it is larger, the rest
must be zeros. Blocks that its drive can't read are fetched.

Once this device has a whole copy there is nothing to fill: that is brought up to date
by itself.`,
		Example: `  tagalong disk export Work /media/stick/work.qcow2     # on a device that has the VM
  tagalong vm seed Work /media/stick/work.qcow2         # on the one that shall get it`,
		Args: between(2, 2),
	}
	format := cmd.Flags().String("format", "", "the file's `format`: raw, qcow2, vdi, vmdk or vhdx (default: found out)")
	noWait := cmd.Flags().Bool("no-wait", false, "return when the work has begun")
	asJSON := jsonFlag(cmd)
	registerCompletion(cmd, "format", cobra.FixedCompletions([]string{"raw", "qcow2", "vdi", "vmdk", "vhdx"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.ValidArgsFunction = c.completeFirst(vmNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, err := imagePath(args[1])
		if err != nil {
			return err
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
		vm, err := findVM(st, args[0])
		if err != nil {
			return err
		}
		begin := func() (*api.Job, error) {
			return client.SeedVM(cmd.Context(), api.SeedVM{VM: vm.ID, File: path, Format: *format})
		}
		var job *api.Job
		if *noWait {
			job, err = begin()
		} else {
			job, err = c.followJob(cmd.Context(), client, *asJSON, begin, nil)
		}
		switch {
		case err != nil:
			return err
		case *asJSON:
			return c.out.json(job)
		case !job.Done:
			c.out.say("The copy of %q is being filled. Follow it with: tagalong status", vm.Name)
			return nil
		}
		c.out.say("What %s has is on this device. Of %q only what differs is fetched now.", path, vm.Name)
		if job.Seed != nil && job.Seed.Unreadable > 0 {
			c.out.say("%s of it couldn't be read and are fetched too: its drive may be failing.", size(job.Seed.Unreadable))
		}
		return nil
	}
	return cmd
}
