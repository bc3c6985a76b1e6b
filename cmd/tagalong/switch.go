package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// patience is how many snapshots in a row may lack what is followed before it counts as gone.
const patience = 5

func newSwitch(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "switch [VM]",
		Short: "Bring a VM here, or to another device",
		Long: `Move a VM to this device, or to the one named with --to. A running VM keeps
running and takes its memory along. The VM needs no name if there is only one.

At the end it stands still, usually for less than 300 ms. If it writes memory faster
than the connection carries it, it is slowed down, then it may stand still for 1 s,
then for 3 s; each step says why. If that isn't enough either, it stays where it is,
and you read for how long it would have stood still: --pause allows that.

--way says how a running VM moves:

  teleport  as above.
  suspend   it is suspended, its memory goes along with its disk, and it goes on there.
            For an hour after a teleport was too slow, this is chosen by itself.
  postcopy  it goes on there at once, and its memory comes after it. What is open in
            it is lost if the device that it left dies before all of that is there.

Ctrl-C asks to cancel, which works until the last moments; a second Ctrl-C leaves
the switch to itself.

With --check nothing is moved: it says what stands in the way (another processor, too
little memory, an older QEMU, ...), what to do about it, and which way is left; and what
each way would take, by what was seen when its memory was last on its way, or by
measuring the connection for a second.

If the VM's owner is lost or can't be reached, --force takes the VM over without
asking it. First it says what may be lost. If the owner comes back with something
newer, nothing is overwritten: you choose, see "tagalong conflict". --yes doesn't ask,
and prints all the same.`,
		Example: `  tagalong switch
  tagalong switch Work --to laptop
  tagalong switch Work --check
  tagalong switch Work --pause 20s
  tagalong switch Work --way suspend
  tagalong switch Work --way postcopy
  tagalong switch --force Work --start`,
		Args:              between(0, 1),
		ValidArgsFunction: c.completeFirst(vmNames),
	}
	to := cmd.Flags().String("to", "", "the `device` to move it to (default: this one)")
	noWait := cmd.Flags().Bool("no-wait", false, "return when the switch has begun")
	force := cmd.Flags().Bool("force", false, "take the VM over to this device without asking its owner")
	start := cmd.Flags().Bool("start", false, "start it after --force")
	yes := cmd.Flags().Bool("yes", false, "don't ask before --force")
	check := cmd.Flags().Bool("check", false, "only say what stands in the way")
	asJSON := jsonFlag(cmd)
	pause := cmd.Flags().Duration("pause", 0, "for how long it may stand still, this once (default: as set with vm set --pause)")
	way := cmd.Flags().String("way", "", "the `way` in which a running VM moves: teleport, suspend or postcopy (default: chosen)")
	registerCompletion(cmd, "way", cobra.FixedCompletions([]string{string(api.WayTeleport), string(api.WayPostCopy), string(api.WaySuspend)}, cobra.ShellCompDirectiveNoFileComp))
	registerCompletion(cmd, "to", c.completer(deviceNames))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *check && (*force || *noWait || *start || *yes):
			return usage("--check switches nothing.", "Leave the other flags out, or --check.")
		case *check:
			return c.checkSwitch(cmd, args, *to, *asJSON)
		case *force && (*pause != 0 || *way != ""):
			return usage("A VM that is taken over doesn't run while it moves.", "Leave --pause and --way out, or --force.")
		case *force && (*to != "" || *noWait):
			return usage("A VM is taken over to the device where this is said, and at once.", "Leave --to and --no-wait out, or --force.")
		case *force:
			return c.takeOver(cmd, args, *yes, *start, *asJSON)
		case *start || *yes:
			return usage("--start and --yes go with --force only.", "A switched VM goes on by itself.")
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		sw, after, err := beginSwitch(cmd.Context(), client, first(args), *to, api.SwitchVM{Pause: *pause, Way: api.Way(*way)})
		if err != nil {
			return err
		}
		if !*noWait {
			w := &switchWatch{client: client, sw: *sw, progress: newProgress(c.err, *asJSON)}
			if err := w.follow(cmd.Context(), after); err != nil {
				return err
			}
			sw = &w.sw
		}
		if *asJSON {
			if err := c.out.json(sw); err != nil {
				return err
			}
			return switchError(*sw)
		}
		if !sw.Phase.Ended() {
			c.out.say("The switch of %q to %s has begun. Follow it with: tagalong status", sw.VMName, sw.ToName)
			return nil
		}
		if err := switchError(*sw); err != nil {
			return err
		}
		c.out.say("%s", switchSentence(*sw))
		return nil
	}
	return cmd
}

// beginSwitch finds what is meant and asks for the switch, req with the VM and the device filled in. after is the last event before it.
func beginSwitch(ctx context.Context, client *api.Client, name, to string, req api.SwitchVM) (sw *api.Switch, after uint64, err error) {
	st, err := client.Status(ctx)
	if err != nil {
		return nil, 0, err
	}
	vm, err := findVM(st, name)
	if err != nil {
		return nil, 0, err
	}
	req.VM = vm.ID
	if to != "" {
		device, err := findDevice(st, to)
		if err != nil {
			return nil, 0, err
		}
		req.To = device.ID
	}
	sw, err = client.Switch(ctx, req)
	return sw, st.Seq, err
}

// switchWatch follows one switch.
type switchWatch struct {
	client   *api.Client
	sw       api.Switch
	progress *progress
	chosen   bool // that the way was chosen has been told
	missing  int
}

func (w *switchWatch) follow(ctx context.Context, after uint64) error {
	defer w.progress.clear()
	if w.take(w.sw) {
		return nil
	}
	f := &follower{client: w.client, after: after, read: w.read, interrupted: w.interrupted,
		heard: func(ev api.Event, fresh bool) (bool, error) {
			news := ev.Switch != nil && ev.Switch.ID == w.sw.ID && (fresh || ev.Switch.Phase.Ended())
			return news && w.take(*ev.Switch), nil
		}}
	return f.follow(ctx)
}

// take shows news of the switch and says whether it has ended.
func (w *switchWatch) take(sw api.Switch) bool {
	if sw.Chosen && !w.chosen {
		w.chosen = true
		w.progress.note(fmt.Sprintf("While it runs, %s would stand still for longer than it may: so it is suspended, and goes on there. (--way teleport tries all the same.)", sw.VMName))
	}
	if sw.Why != w.sw.Why && sw.Why != "" && !sw.Phase.Ended() {
		w.progress.note(sw.Why)
	}
	w.sw, w.missing = sw, 0
	if !sw.Phase.Ended() {
		w.progress.show(step{name: phaseWords(sw.Phase), bytes: sw.Bytes, total: sw.Total, rate: sw.Rate, left: sw.ETA,
			unmeasured: sw.Phase == api.PhasePreflight || sw.Phase == api.PhaseHandOff})
	}
	return sw.Phase.Ended()
}

func (w *switchWatch) read(st *api.Status) (bool, error) {
	for _, vm := range st.VMs {
		if vm.ID != w.sw.VM {
			continue
		}
		if vm.Switch != nil && vm.Switch.ID == w.sw.ID {
			return w.take(*vm.Switch), nil
		}
		if vm.Owner == w.sw.To { // it ended, and another has taken its place in the snapshot
			w.sw.Phase = api.PhaseDone
			return true, nil
		}
	}
	if w.missing++; w.missing < patience {
		return false, nil
	}
	return false, &api.Error{Code: api.CodeInternal, Sentence: "The engine has lost sight of the switch.",
		Next: "See where the VM is with: tagalong status"}
}

func (w *switchWatch) interrupted(ctx context.Context, n int) error {
	if n > 1 {
		return &api.Error{Code: api.CodeCancelled, Sentence: "Left; the switch goes on.", Next: "See how it goes with: tagalong status"}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := w.client.CancelSwitch(ctx, w.sw.ID); err != nil {
		w.progress.note(err.Error())
		return nil
	}
	w.progress.note("Cancelling. Press Ctrl-C again to leave at once.")
	return nil
}

// switchError is the failure of a switch that ended, or nil.
func switchError(sw api.Switch) error {
	switch sw.Phase {
	case api.PhaseCancelled:
		if sw.Kind == "suspend" && sw.Error != nil { // it may not have gone on
			return sw.Error
		}
		return &api.Error{Code: api.CodeCancelled, Sentence: fmt.Sprintf("The switch was cancelled; %q stays on %s.", sw.VMName, sw.FromName)}
	case api.PhaseFailed:
		if sw.Error != nil {
			return sw.Error
		}
		return &api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("The switch of %q failed.", sw.VMName),
			Next: "See what happened with: tagalong history " + sw.VMName}
	}
	return nil
}

// switchSentence tells how a switch went.
func switchSentence(sw api.Switch) string {
	text := fmt.Sprintf("%q is on %s now.", sw.VMName, sw.ToName)
	if sw.Kind != "baton" && sw.Pause > 0 { // a VM that didn't run can't stand still
		text += fmt.Sprintf(" It stood still for %s.", span(sw.Pause))
	}
	if took := sw.Ended.Sub(sw.Started); sw.Bytes > 0 && took > 0 {
		text += fmt.Sprintf(" %s moved in %s.", size(sw.Bytes), span(took))
	}
	return text
}

// first is the first argument, or "".
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
