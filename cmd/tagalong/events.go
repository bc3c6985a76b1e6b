package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newEvents(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what happens, as it happens",
		Long: `Print what happens, as it happens, until Ctrl-C. With --json one object a line.
Ends with exit code 6 when the engine ends.`,
		Example: `  tagalong events
  tagalong events --json --after 0 --count 10`,
		Args: between(0, 0),
	}
	after := cmd.Flags().Uint64("after", 0, "begin after the event with this `number`, as far as it is kept (default: now)")
	count := cmd.Flags().Int("count", 0, "end after this `many` (default: never)")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			if !cmd.Flags().Changed("after") {
				st, err := client.Status(ctx)
				if err != nil {
					return err
				}
				*after = st.Seq
			}
			return c.events(ctx, client, *after, *count, *asJSON)
		})
	}
	return cmd
}

// events prints until count are printed, the person has enough, or the engine is gone. A stream
// that ends while the engine lives is taken up where it ended.
func (c *cli) events(ctx context.Context, client *api.Client, after uint64, count int, asJSON bool) error {
	printed := 0
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		events, err := client.Watch(ctx, after)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for ev := range events {
			after = ev.Seq
			if asJSON {
				if err := c.out.jsonLine(ev); err != nil {
					return err
				}
			} else {
				c.out.say("%s", strings.TrimRight(fmt.Sprintf("%s  %-22s  %s", ev.Time.Local().Format(time.TimeOnly), ev.Kind, ev.Text), " "))
			}
			if printed++; printed == count {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(quickly):
		}
	}
}
