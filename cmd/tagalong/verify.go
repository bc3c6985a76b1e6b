package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

func newVerify(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [VM]",
		Short: "Compare a VM's disk with its copies on the other devices, and repair damage",
		Long: `Compare the disk of a VM that is on this device with all copies, without moving them,
while the VM goes on: those at other sites with all that they have, as far as
"tagalong sync" allows it now. What is proven to be damaged is repaired
from a copy that is right. Where two differ and nothing says which is right, both are
left as they are, and you are told; --overwrite then makes the copies what the VM's
disk is. Without VM, all that are on this device are verified, one after the other.

The same goes on in the background once a week, while the VMs are quiet. tagalong vm show tells how far
that is, when each device's copy was last verified, and what was found.

The exit code is 0 if nothing is wrong, or not any more, and 1 if something is.`,
		Example: `  tagalong verify Work
  tagalong verify --rate 50M --json`,
		Args:              between(0, 1),
		ValidArgsFunction: c.completeFirst(vmNames),
	}
	var req api.VerifyVM
	cmd.Flags().BoolVar(&req.Overwrite, "overwrite", false, "make copies what the VM's disk is, also where nothing says which is right")
	rate := cmd.Flags().String("rate", "", "`size` a second to read at most (default: what the VMs leave)")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if req.Rate, err = parseRate(*rate); err != nil {
			return err
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		names := args
		if len(args) == 0 {
			if names, err = vmsHere(cmd.Context(), client); err != nil {
				return err
			}
		}
		return c.verify(cmd.Context(), client, req, names, *asJSON)
	}
	return cmd
}

// vmsHere are the VMs that this device owns.
func vmsHere(ctx context.Context, client *api.Client) (ids []string, err error) {
	st, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range st.VMs {
		if v.Here {
			ids = append(ids, v.ID)
		}
	}
	if len(ids) == 0 {
		return nil, &api.Error{Code: api.CodeNotFound, Sentence: "There is no VM on this device.", Next: "Verify a VM on the device that has it: tagalong vm list"}
	}
	return ids, nil
}

// verify verifies one VM after the other, and shows what was found, also of one that was cut short.
func (c *cli) verify(ctx context.Context, client *api.Client, req api.VerifyVM, vms []string, asJSON bool) error {
	var wrong error
	all := []*api.Verification{}
	for _, req.VM = range vms {
		job, err := c.awaitJob(ctx, client, asJSON, func() (*api.Job, error) { return client.VerifyVM(ctx, req) }, nil)
		if err != nil {
			return err
		}
		found := job.Verification
		if found != nil {
			all = append(all, found)
			if !asJSON {
				c.showVerification(found)
			}
			if !found.Clean {
				wrong = &api.Error{Code: api.CodeDamaged, Sentence: found.Sentence, Next: nextOf(found)}
			}
		}
		if job.Error != nil {
			wrong = job.Error
			break
		}
	}
	if asJSON {
		if err := c.out.json(all); err != nil {
			return err
		}
	}
	return wrong
}

// nextOf is the first advice of a verification.
func nextOf(v *api.Verification) string {
	for _, f := range v.Findings {
		if f.Open && f.Next != "" {
			return f.Next
		}
	}
	return "See what was found above."
}

func (c *cli) showVerification(v *api.Verification) {
	o := c.out
	o.say("%s  %s in %s", v.VMName, size(v.Read), span(time.Since(v.Started)))
	rows := make([][]string, 0, len(v.Copies))
	for _, x := range v.Copies {
		switch {
		case x.Missing != "" && x.Until > 0:
			x.Missing = fmt.Sprintf("%s (compared up to %s)", x.Missing, size(x.Until))
		case x.Missing == "" && x.Busy > 0:
			x.Missing = fmt.Sprintf("but %s that were written too often to tell", size(x.Busy))
		}
		if x.Missing == "" && x.Behind > 0 {
			x.Missing = fmt.Sprintf("but %s that it doesn't have yet", size(x.Behind))
		}
		rows = append(rows, []string{x.DeviceName, size(x.Equal), x.Missing})
	}
	if len(rows) > 0 {
		o.table([]string{"DEVICE", "EQUAL", ""}, rows)
	}
	for _, f := range v.Findings {
		o.say("  %s", f.Sentence)
		if f.Next != "" {
			o.say("    %s", f.Next)
		}
	}
	if v.MoreFindings > 0 {
		o.say("  Damage was found in further %s.", size(v.MoreFindings))
	}
	if v.AsRecorded > 0 {
		o.say("  %s are as this device recorded them earlier.", size(v.AsRecorded))
	}
	o.say("  %s", v.Sentence)
}
