package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// takenOver is what a takeover prints for scripts: what was read and accepted, and whether the VM was started.
type takenOver struct {
	Takeover *api.Takeover `json:"takeover"`
	Started  bool          `json:"started"`
}

// takeOver takes a VM over after the person has read what that may cost.
func (c *cli) takeOver(cmd *cobra.Command, args []string, yes, start, asJSON bool) error {
	return c.withVM(cmd, args, func(ctx context.Context, client *api.Client, vm api.VM) error {
		t, err := client.Takeover(ctx, vm.ID)
		if err != nil {
			return err
		}
		if !asJSON || !yes {
			c.tell(asJSON, fmt.Sprintf("Taking %q over from %s without asking it:", t.VMName, t.OwnerName))
			c.tell(asJSON, "")
			c.tell(asJSON, factLines(takeoverFacts(t, vm.Orphan, time.Now()))...)
			c.tell(asJSON, "")
			for _, w := range t.Warnings {
				c.tell(asJSON, "  ! "+w.Text)
			}
			if len(t.Warnings) > 0 {
				c.tell(asJSON, "")
			}
			c.tell(asJSON, "If "+t.OwnerName+" turns out to have something newer, nothing is overwritten: you are asked to choose.")
		}
		if err := c.confirm(fmt.Sprintf("This makes this device the owner of %q without the consent of %s.", t.VMName, t.OwnerName), t.VMName, yes); err != nil {
			return err
		}
		if err := client.TakeOver(ctx, api.TakeOverVM{VM: t.VM, Token: t.Token}); err != nil {
			return err
		}
		if !asJSON {
			c.out.say("%q is on this device now.", t.VMName)
		}
		if start {
			if err := client.StartVM(ctx, t.VM); err != nil {
				return err
			}
		}
		switch {
		case asJSON:
			return c.out.json(takenOver{Takeover: t, Started: start})
		case start:
			return c.sayState(ctx, client, vm)
		}
		c.out.say("It isn't started. Start it with: tagalong vm start %s", shellWord(t.VMName))
		return nil
	})
}

// tell prints lines for a person, beside what scripts read if that is asked for.
func (c *cli) tell(beside bool, lines ...string) {
	for _, line := range lines {
		if beside {
			_, _ = fmt.Fprintln(c.err, clean(line))
		} else {
			c.out.say("%s", line)
		}
	}
}
