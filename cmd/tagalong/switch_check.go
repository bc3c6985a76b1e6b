package main

import (
	"fmt"
	"slices"
	"time"

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
	for _, line := range comparedWords(p) {
		c.out.say("%s", line)
	}
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
		return fmt.Sprintf("%q can go to %s suspended (--way suspend), not while it runs.", p.VMName, p.ToName)
	case api.WayRestart:
		return fmt.Sprintf("%q can go to %s shut down, not while it runs.", p.VMName, p.ToName)
	default:
		return fmt.Sprintf("%q can't go to %s as things are.", p.VMName, p.ToName)
	}
}

// comparedWords compares the ways that a running VM could take, the best one marked; nothing where one is as good as any other for all that is known.
func comparedWords(p *api.Preflight) []string {
	measured := slices.ContainsFunc(p.Ways, func(e api.WayEstimate) bool { return e.There > 0 })
	if len(p.Ways) == 0 || !measured && (p.Best == api.WayTeleport || p.Best == api.WayChosen) {
		return nil
	}
	stopped := slices.ContainsFunc(p.Findings, func(f api.Finding) bool { return f.Stops }) // then the pause isn't what is in the way
	var lines []string
	for _, e := range p.Ways {
		mark := " "
		if e.Way == p.Best {
			mark = "*"
		}
		line := fmt.Sprintf("%s --way %-8s", mark, e.Way)
		switch {
		case !e.Possible && !stopped && e.Pause > 0 && e.Way == api.WayTeleport:
			line += fmt.Sprintf("  would stand still for about %s, longer than it may", span(e.Pause))
		case !e.Possible:
			line += "  not possible"
		case e.There > 0:
			line += fmt.Sprintf("  up to %s to move, there after about %s, stands still for about %s, at full speed after about %s", size(e.Bytes), span(e.There), span(e.Pause), span(e.Full))
		default:
			line += fmt.Sprintf("  up to %s to move", size(e.Bytes))
		}
		lines = append(lines, line)
	}
	if p.Why != "" {
		lines = append(lines, p.Why)
	}
	if p.Basis != nil {
		lines = append(lines, basisWords(p, time.Now()))
	}
	return lines
}

// basisWords says what the figures go by, how old that is, and how rough.
func basisWords(p *api.Preflight, now time.Time) string {
	b := p.Basis
	round := ""
	if b.RoundTrip > 0 {
		round = fmt.Sprintf(", %s there and back", span(b.RoundTrip))
	}
	if b.Trip {
		return fmt.Sprintf("As seen %s, when its memory was last on its way: %s a second%s; it wrote %s a second anew.", ago(b.At, now), size(b.Rate), round, size(b.DirtyRate))
	}
	return fmt.Sprintf("Measured %s, roughly: the connection carries %s a second%s, %s writes %s of memory a second anew. Memory is compressed on its way: mostly it takes less.",
		ago(b.At, now), size(b.Rate), round, p.VMName, size(b.DirtyRate))
}
