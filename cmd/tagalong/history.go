package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newHistory(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "history [VM]",
		Short:             "Show which devices a VM has been on",
		Example:           "  tagalong history Work",
		Args:              between(0, 1),
		ValidArgsFunction: c.completeFirst(vmNames),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withVM(cmd, args, func(ctx context.Context, client *api.Client, vm api.VM) error {
			entries, err := client.History(ctx, vm.ID)
			if err != nil {
				return err
			}
			if *asJSON {
				return c.out.json(entries)
			}
			if len(entries) == 0 {
				c.out.say("Nothing is known of where %q has been.", vm.Name)
				return nil
			}
			rows := make([][]string, 0, len(entries))
			for _, e := range entries {
				rows = append(rows, []string{e.At.Local().Format(time.DateTime), fmt.Sprint(e.Term), e.Kind, e.FromName, e.OwnerName,
					fmt.Sprintf("%d/%d", e.Position.Term, e.Position.Barrier)})
			}
			c.out.table([]string{"TIME", "TERM", "WHAT", "FROM", "OWNER", "POSITION"}, rows)
			return nil
		})
	}
	return cmd
}
