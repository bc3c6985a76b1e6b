package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newRestorePoints(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "restore-points [VM]",
		Aliases: []string{"restore-point"},
		Short:   "List earlier or given-up states of VMs on this device, look into or delete them",
		Long: `A restore point is a state of a VM's disk that this device keeps until you delete it, such as
the side of a conflict that you gave up. Opened, it is a read-only disk in the VM.`,
		Example: `  tagalong restore-points
  tagalong restore-points open Work 4f0c2a9b71de
  tagalong restore-points delete Work 4f0c2a9b71de`,
		ValidArgsFunction: c.completeFirst(vmNames),
	}
	cmd.AddCommand(newPointVerb(c, "open", "Show a restore point to its VM as a read-only disk", "%q is open in %q, read-only.", (*api.Client).OpenRestorePoint),
		newPointVerb(c, "close", "Take an open restore point away from its VM again", "%q is closed in %q.", (*api.Client).CloseRestorePoint),
		newPointDelete(c))
	asJSON := jsonFlag(cmd)
	list := &cobra.Command{Use: "list [VM]", Short: "List them, as without a verb", Example: "  tagalong restore-points list Work", Args: between(0, 1),
		ValidArgsFunction: c.completeFirst(vmNames)}
	listJSON := jsonFlag(list)
	list.RunE = func(cmd *cobra.Command, args []string) error { return c.listPoints(cmd, args, *listJSON) }
	cmd.AddCommand(list)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 { // most likely a verb with a slip
			return noSuchVerb(cmd, args)
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.listPoints(cmd, args, *asJSON) }
	return cmd
}

// listPoints prints the restore points on this device, of one VM or of all.
func (c *cli) listPoints(cmd *cobra.Command, args []string, asJSON bool) error {
	return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
		st, err := client.Status(ctx)
		if err != nil {
			return err
		}
		vms := st.VMs
		if len(args) > 0 {
			vm, err := findVM(st, args[0])
			if err != nil {
				return err
			}
			vms = []api.VM{vm}
		}
		points := []api.RestorePoint{}
		for _, vm := range vms {
			points = append(points, vm.RestorePoints...)
		}
		switch {
		case asJSON:
			return c.out.json(points)
		case len(points) == 0:
			c.out.say("There is no restore point on this device.")
			return nil
		}
		rows, now := make([][]string, 0, len(points)), time.Now()
		for _, p := range points {
			open := ""
			if p.Open {
				open = "open"
			}
			rows = append(rows, []string{p.VMName, p.ID, ago(p.At, now), positionWords(p.Position), size(p.Bytes), open, p.Why})
		}
		c.out.table([]string{"VM", "POINT", "MADE", "POSITION", "TAKES", "", "WHY"}, rows)
		return nil
	})
}

// withPoint finds the restore point of the arguments, by its ID or the beginning of it. Without a VM all have their say.
func (c *cli) withPoint(cmd *cobra.Command, args []string, do func(ctx context.Context, client *api.Client, p api.RestorePoint) error) error {
	return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
		st, err := client.Status(ctx)
		if err != nil {
			return err
		}
		points, of, text := []api.RestorePoint{}, "", args[len(args)-1]
		for _, vm := range st.VMs {
			points = append(points, vm.RestorePoints...)
		}
		if len(args) > 1 {
			vm, err := findVM(st, args[0])
			if err != nil {
				return err
			}
			points, of = vm.RestorePoints, fmt.Sprintf(" of %q", vm.Name)
		}
		var ids []string
		var fit []api.RestorePoint
		for _, p := range points {
			ids = append(ids, p.ID)
			switch {
			case p.ID == text:
				return do(ctx, client, p)
			case strings.HasPrefix(p.ID, text):
				fit = append(fit, p)
			}
		}
		switch {
		case len(fit) == 1:
			return do(ctx, client, fit[0])
		case len(fit) > 1:
			return usage(fmt.Sprintf("More than one restore point%s begins with %q.", of, text), "Say which one: "+strings.Join(ids, ", "))
		case len(ids) == 0:
			return &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no restore point%s on this device.", of),
				Next: "See them all with: tagalong restore-points"}
		}
		return &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no restore point%s called %q on this device.", of, text),
			Next: "There are: " + strings.Join(ids, ", ")}
	})
}

func newPointVerb(c *cli, verb, short, done string, act func(*api.Client, context.Context, api.RestorePointRef) error) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " [VM] POINT", Short: short, Example: "  tagalong restore-points " + verb + " Work 4f0c2a9b71de",
		Args: between(1, 2), ValidArgsFunction: c.completePoint}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withPoint(cmd, args, func(ctx context.Context, client *api.Client, p api.RestorePoint) error {
			if err := act(client, ctx, api.RestorePointRef{VM: p.VM, ID: p.ID}); err != nil {
				return err
			}
			c.out.say(done, p.ID, p.VMName)
			return nil
		})
	}
	return cmd
}

func newPointDelete(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "delete [VM] POINT", Short: "Delete a restore point for good", Example: "  tagalong restore-points delete Work 4f0c2a9b71de",
		Args: between(1, 2), ValidArgsFunction: c.completePoint}
	yes := cmd.Flags().Bool("yes", false, "don't ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withPoint(cmd, args, func(ctx context.Context, client *api.Client, p api.RestorePoint) error {
			question := fmt.Sprintf("This deletes the restore point %s of %q for good: %s, made %s. %s", p.ID, p.VMName, size(p.Bytes), ago(p.At, time.Now()), p.Why)
			if err := c.confirm(question, p.ID, *yes); err != nil {
				return err
			}
			if err := client.DeleteRestorePoint(ctx, api.RestorePointRef{VM: p.VM, ID: p.ID}); err != nil {
				return err
			}
			c.out.say("The restore point %s of %q is deleted.", p.ID, p.VMName)
			return nil
		})
	}
	return cmd
}

// completePoint offers VMs that have restore points, and those points.
func (c *cli) completePoint(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	names := func(st *api.Status) []string {
		var vms, points []string
		for _, vm := range st.VMs {
			if len(vm.RestorePoints) == 0 || len(args) > 0 && !strings.EqualFold(vm.Name, args[0]) && vm.ID != args[0] {
				continue
			}
			vms = append(vms, vm.Name)
			for _, p := range vm.RestorePoints {
				points = append(points, p.ID)
			}
		}
		if len(args) > 0 {
			return points
		}
		return append(vms, points...)
	}
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.complete(cmd, names), cobra.ShellCompDirectiveNoFileComp
}
