package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newHistory(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history [VM]",
		Short: "Show which devices a VM has been on, and how it came there",
		Long: `Show a VM's chain of owners from the oldest on: who gave it to whom, how, how long the guest
stood still and what moved for it. Where it went two ways, the side is indented; an empty
circle marks what was given up. Times are by the clocks of the devices that told them.`,
		Example:           "  tagalong history Work\n  tagalong history Work --json",
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
			var rows [][]string
			for _, l := range api.HistoryTree(entries) {
				stood := ""
				if l.Pause > 0 {
					stood = span(l.Pause)
				}
				when := ""
				if !l.At.IsZero() {
					when = l.At.Local().Format("2006-01-02 15:04")
				}
				rows = append(rows, []string{fmt.Sprint(l.Number), l.Tree + " " + historyWords(l, vm.Conflict), when, l.How, stood, moved(l.Memory, l.Disk)})
			}
			c.out.table([]string{"#", "WHAT", "WHEN", "HOW", "STOOD STILL", "MOVED"}, rows)
			if vm.Conflict != nil {
				c.out.say("\nChoose between its versions: tagalong conflict %s", shellWord(vm.Name))
			}
			return nil
		})
	}
	return cmd
}

// historyWords says what happened, and where it matters what became of it.
func historyWords(l api.HistoryLine, x *api.Conflict) string {
	var text string
	switch l.Kind {
	case "created":
		text = "created on " + l.OwnerName
	case "switch":
		text = l.FromName + " → " + l.OwnerName
	case "returned":
		text = l.FromName + " gave it back to " + l.OwnerName
	case "takeover":
		text = l.OwnerName + " took it over from " + l.FromName
		if l.From == l.Owner || l.FromName == "" {
			text = l.OwnerName + " took it back"
		}
	case "kept":
		text = l.OwnerName + " kept its own"
	case "resolved":
		text = "you chose the side of " + l.OwnerName
		if len(l.OverLines) > 0 {
			text += " over " + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(l.OverLines)), ", "), "[]")
		}
	default:
		text = strings.TrimSpace(l.Kind + " " + l.OwnerName)
	}
	switch {
	case l.GivenUpBy > 0:
		text += fmt.Sprintf(" (given up by %d)", l.GivenUpBy)
	case l.Lost && l.Newest:
		text += " (given up)"
	case x != nil && slices.ContainsFunc(x.Sides, func(s api.ConflictSide) bool { return s.Branch == l.Hash }):
		text += " (waits for your choice)"
	}
	return text
}

// moved is what a hand-off took along.
func moved(memory, disk int64) string {
	var parts []string
	if memory > 0 {
		parts = append(parts, size(memory)+" memory")
	}
	if disk > 0 {
		parts = append(parts, size(disk)+" disk")
	}
	return strings.Join(parts, ", ")
}
