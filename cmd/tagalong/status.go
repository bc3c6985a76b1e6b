package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newStatus(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show this device, its VMs and the other devices, and what needs you",
		Example: "  tagalong status\n  tagalong status --json",
		Args:    between(0, 0),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			st, err := client.Status(ctx)
			if err != nil {
				return err
			}
			if *asJSON {
				return c.out.json(st)
			}
			c.showStatus(st)
			return nil
		})
	}
	return cmd
}

func (c *cli) showStatus(st *api.Status) {
	o := c.out
	o.say("This device is %s (Tagalong %s).", st.Device.Name, st.Version)
	o.say("Hypervisor: %s", hypervisorWords(st.Hypervisor))
	if l := st.Leaving; l != nil {
		o.say("%s", l.Text)
	}
	if p := st.Problem; p != nil {
		o.say("%s %s", p.Sentence, p.Next)
	}
	if st.Offline.On || st.Offline.Job != "" {
		o.say("%s", offlineWords(st, time.Now()))
	}
	if p := st.Pairing; p != nil && !p.Done && p.Code != "" {
		o.say("Pairing: the code is %s, for another %s.", p.Code, span(max(0, time.Until(p.Expires))))
	}
	for _, job := range st.Jobs {
		if !job.Done && job.ID != st.Offline.Job {
			o.say("%s: %s", job.VMName, step{name: jobWords(job), bytes: job.Bytes, total: job.Total, rate: job.Rate, left: job.ETA}.words())
		}
	}
	o.say("")
	c.vmTable(st)
	o.say("")
	c.deviceTable(st)
}
