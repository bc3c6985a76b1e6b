package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// checkSwitch says what stands in a switch's way, and switches nothing. Whatever it finds, it has done what it was asked to.
func (c *cli) checkSwitch(cmd *cobra.Command, args []string, to string, asJSON bool) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	st, err := client.Status(cmd.Context())
	if err != nil {
		return err
	}
	vm, err := findVM(st, first(args))
	if err != nil {
		return err
	}
	req := api.SwitchVM{VM: vm.ID, To: st.Device.ID}
	if to != "" {
		device, err := findDevice(st, to)
		if err != nil {
			return err
		}
		req.To = device.ID
	}
	p, err := client.CheckSwitch(cmd.Context(), req)
	if err != nil {
		return err
	}
	if asJSON {
		return c.out.json(p)
	}
	for _, f := range p.Findings {
		c.out.say("%s", f.Sentence)
		if f.Next != "" {
			c.out.say("  %s", f.Next)
		}
	}
	c.out.say("%s", wayWords(p))
	return nil
}

// wayWords is the best way that is left, as a person reads it.
func wayWords(p *api.Preflight) string {
	switch p.Way {
	case api.WayTeleport:
		return fmt.Sprintf("%q can go to %s while it runs.", p.VMName, p.ToName)
	case api.WayHandOver:
		return fmt.Sprintf("%q doesn't run: it can be handed over to %s.", p.VMName, p.ToName)
	case api.WaySuspend:
		return fmt.Sprintf("%q can go to %s suspended, not while it runs.", p.VMName, p.ToName)
	case api.WayRestart:
		return fmt.Sprintf("%q can go to %s shut down, not while it runs.", p.VMName, p.ToName)
	default:
		return fmt.Sprintf("%q can't go to %s as things are.", p.VMName, p.ToName)
	}
}
