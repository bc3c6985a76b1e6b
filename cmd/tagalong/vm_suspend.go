package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// watchEvery is how often it is looked how far a suspension is.
const watchEvery = 300 * time.Millisecond

func newVMSuspend(c *cli) *cobra.Command {
	return c.newVMLong(&cobra.Command{
		Use:   "suspend VM",
		Short: "Save a VM's memory and stop it",
		Long: `Save a VM's memory into its disk and stop it. The memory is replicated with the disk,
so that the VM can be resumed on any device that has both: switch it there, then
resume it. Ctrl-C cancels: the VM goes on.`,
		Example: "  tagalong vm suspend Work",
	}, (*api.Client).SuspendVM, "suspend")
}

func newVMResume(c *cli) *cobra.Command {
	return c.newVMLong(&cobra.Command{
		Use:   "resume VM",
		Short: "Let a suspended or paused VM go on",
		Long: `Let a VM go on that is suspended, or stands still. What of its memory isn't on this
device yet is fetched first. Ctrl-C cancels: it stays suspended.`,
		Example: "  tagalong vm resume Work",
	}, (*api.Client).ResumeVM, "resume")
}

// newVMLong completes a verb whose work shows as a job of the kind while it is waited for.
func (c *cli) newVMLong(cmd *cobra.Command, act func(client *api.Client, ctx context.Context, vm string) error, kind string) *cobra.Command {
	cmd.Args = between(1, 1)
	cmd.ValidArgsFunction = c.completeFirst(vmNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withVM(cmd, args, func(ctx context.Context, client *api.Client, vm api.VM) error {
			watch, stop := context.WithCancel(ctx)
			shown := make(chan struct{})
			go func() {
				defer close(shown)
				c.showJob(watch, client, vm.ID, kind)
			}()
			err := act(client, ctx, vm.ID)
			stop()
			<-shown
			if ctx.Err() != nil {
				return &api.Error{Code: api.CodeCancelled, Sentence: "It was cancelled.", Next: "See how the VM is with: tagalong vm list"}
			}
			if err != nil {
				return err
			}
			return c.sayState(ctx, client, vm)
		})
	}
	return cmd
}

// showJob shows the VM's job of that kind, if there is one, until ctx ends.
func (c *cli) showJob(ctx context.Context, client *api.Client, vm, kind string) {
	p := newProgress(c.err, false)
	defer p.clear()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchEvery):
		}
		st, err := client.Status(ctx)
		if err != nil {
			continue // the verb itself tells what is wrong
		}
		for _, job := range st.Jobs {
			if job.VM == vm && job.Kind == kind && !job.Done {
				p.show(step{name: jobWords(job), bytes: job.Bytes, total: job.Total, rate: job.Rate, left: job.ETA})
			}
		}
	}
}
