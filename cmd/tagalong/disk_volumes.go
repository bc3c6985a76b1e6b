package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// parseNewDisk reads what --disk takes: a size, or an image with or without one (FILE,size=40G).
func parseNewDisk(text string) (d api.NewDisk, err error) {
	if d.Bytes, err = parseSize(text); err == nil {
		return d, nil
	}
	file, bytes, sized := strings.Cut(text, ",size=")
	if sized {
		if d.Bytes, err = parseSize(bytes); err != nil {
			return d, err
		}
	} else if !strings.ContainsAny(text, "./\\") {
		return d, err // meant as a size
	}
	d.Image, err = imagePath(file)
	return d, err
}

func newDiskAdd(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add VM SIZE|IMAGE",
		Short: "Give a stopped VM one more disk, empty or from an image",
		Long: `Give a VM that is stopped, and on this device, one more disk: an empty one of a
size, or a copy of an image. All disks of a VM are replicated together: every copy
has all of them as they were at one moment.`,
		Example: `  tagalong disk add Work 100G --name data
  tagalong disk add Work photos.vdi`,
		Args: between(2, 2), ValidArgsFunction: c.completeFirst(vmNames),
	}
	var req api.AddDisk
	cmd.Flags().StringVar(&req.Name, "name", "", "what the disk is `called` (default: disk2, disk3, …)")
	format := cmd.Flags().String("format", "", "the image's `format`: raw, qcow2, vdi, vmdk or vhdx (default: found out)")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := parseNewDisk(args[1])
		if err != nil {
			return err
		}
		req.Bytes, req.Image, req.Format = d.Bytes, d.Image, *format
		return c.withVM(cmd, args[:1], func(ctx context.Context, client *api.Client, vm api.VM) error {
			req.VM = vm.ID
			job, err := c.followJob(cmd.Context(), client, *asJSON, func() (*api.Job, error) { return client.AddDisk(ctx, req) }, nil)
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.out.json(job)
			}
			c.out.say("%q has a new disk. Start it with: tagalong vm start %s", vm.Name, shellWord(vm.Name))
			return nil
		})
	}
	return cmd
}

func newDiskGrow(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "grow VM [DISK] SIZE",
		Short: "Make a disk of a stopped VM larger",
		Long: `Make a disk of a VM that is stopped, and on this device, larger. Without a name it is
the first disk. What is on it stays as it is; to use the new room, enlarge the last
partition and its file system inside the VM. A disk can't become smaller.`,
		Example: `  tagalong disk grow Work 80G
  tagalong disk grow Work data 200G`,
		Args: between(2, 3), ValidArgsFunction: c.completeFirst(vmNames),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		req := api.GrowDisk{}
		if req.Bytes, err = parseSize(args[len(args)-1]); err != nil {
			return err
		}
		if len(args) == 3 {
			req.Disk = args[1]
		}
		return c.withVM(cmd, args[:1], func(ctx context.Context, client *api.Client, vm api.VM) error {
			req.VM = vm.ID
			if err := client.GrowDisk(ctx, req); err != nil {
				return err
			}
			c.out.say("The disk has %s now. Enlarge its last partition inside %q to use them.", size(req.Bytes), vm.Name)
			return nil
		})
	}
	return cmd
}

func newDiskRemove(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove VM DISK",
		Short:   "Take a disk away from a stopped VM, with all that is on it",
		Long:    "Take a disk away from a VM that is stopped, and on this device, and delete what is on it\non every device, for good. The first disk stays.",
		Example: "  tagalong disk remove Work data",
		Args:    between(2, 2), ValidArgsFunction: c.completeFirst(vmNames),
	}
	yes := cmd.Flags().Bool("yes", false, "don't ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withVM(cmd, args[:1], func(ctx context.Context, client *api.Client, vm api.VM) error {
			for _, d := range vm.Spec.Disks() {
				if d.ID != args[1] && d.Name != args[1] {
					continue
				}
				question := fmt.Sprintf("This deletes the disk %s (%s) of %q on every device, for good.", d.Called(), size(d.Bytes()), vm.Name)
				if err := c.confirm(question, d.Called(), *yes); err != nil {
					return err
				}
				if err := client.RemoveDisk(ctx, api.RemoveDisk{VM: vm.ID, Disk: d.ID}); err != nil {
					return err
				}
				c.out.say("The disk %s of %q is removed.", d.Called(), vm.Name)
				return nil
			}
			return &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("%q has no disk %q.", vm.Name, args[1]), Next: "It has: " + diskNames(vm.Spec)}
		})
	}
	return cmd
}

// diskNames are a VM's disks, in a line.
func diskNames(s api.Spec) string {
	var names []string
	for _, d := range s.Disks() {
		names = append(names, d.Called())
	}
	return strings.Join(names, ", ")
}

// allDisks is how large all disks of a VM are together.
func allDisks(s api.Spec) int64 {
	var n int64
	for _, d := range s.Disks() {
		n += d.Bytes()
	}
	return n
}

// sayDisks lists a VM's disks; the first is told of by the caller.
func (c *cli) sayDisks(vm api.VM) {
	disks := vm.Spec.Disks()
	if len(disks) < 2 {
		return
	}
	for _, d := range disks[1:] {
		c.out.say("            %s (%s)", size(d.Bytes()), d.Called())
	}
}
