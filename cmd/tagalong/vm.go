package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tagalong.org/tagalong/app/api"
)

func newVM(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "vm",
		Short: "Make, see, set up, start, stop and remove VMs",
		Example: `  tagalong vm create Work --disk 20G
  tagalong vm list
  tagalong vm start Work`,
	},
		newVMCreate(c), newVMImport(c), newVMSeed(c), newVMList(c), newVMShow(c),
		newVMAct(c, &cobra.Command{Use: "start VM", Short: "Start a VM on this device",
			Long: `Start a VM that this device has. One that is suspended goes on with its memory, and
one that stands still goes on. To bring one from another device: tagalong switch.`,
			Example: "  tagalong vm start Work"}, (*api.Client).StartVM),
		newVMStop(c), newVMReset(c), newVMOpen(c),
		newVMSuspend(c), newVMResume(c),
		newVMSet(c), newVMRename(c), newVMRollback(c), newVMRemove(c),
	)
}

// withVM finds the VM of the first argument and runs do with its ID.
func (c *cli) withVM(cmd *cobra.Command, args []string, do func(ctx context.Context, client *api.Client, vm api.VM) error) error {
	return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
		st, err := client.Status(ctx)
		if err != nil {
			return err
		}
		vm, err := findVM(st, first(args))
		if err != nil {
			return err
		}
		return do(ctx, client, vm)
	})
}

// sayState tells what has become of a VM.
func (c *cli) sayState(ctx context.Context, client *api.Client, vm api.VM) error {
	st, err := client.Status(ctx)
	if err != nil {
		return err
	}
	for _, now := range st.VMs {
		if now.ID == vm.ID {
			c.out.say("%q is %s.", now.Name, string(now.State))
			return nil
		}
	}
	return nil
}

// newVMAct completes a verb that does one thing to one VM.
func newVMAct(c *cli, cmd *cobra.Command, act func(client *api.Client, ctx context.Context, vm string) error) *cobra.Command {
	cmd.Args = between(1, 1)
	cmd.ValidArgsFunction = c.completeFirst(vmNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withVM(cmd, args, func(ctx context.Context, client *api.Client, vm api.VM) error {
			if err := act(client, ctx, vm.ID); err != nil {
				return err
			}
			return c.sayState(ctx, client, vm)
		})
	}
	return cmd
}

// confirm asks the person to type name, unless yes was given. Without a person it refuses.
func (c *cli) confirm(question, name string, yes bool) error {
	if yes {
		return nil
	}
	f, ok := c.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usage(question, "If you are sure, say so with --yes.")
	}
	_, _ = fmt.Fprintf(c.err, "%s\nType its name to go on: ", clean(question))
	typed, _ := bufio.NewReader(c.in).ReadString('\n')
	if strings.TrimSpace(typed) != name {
		return &api.Error{Code: api.CodeCancelled, Sentence: "Nothing was changed."}
	}
	return nil
}

func newVMList(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List all VMs", Example: "  tagalong vm list\n  tagalong vm list --json", Args: between(0, 0)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			st, err := client.Status(ctx)
			if err != nil {
				return err
			}
			if *asJSON {
				return c.out.json(st.VMs)
			}
			c.vmTable(st)
			return nil
		})
	}
	return cmd
}

// vmTable prints all VMs, and what troubles them.
func (c *cli) vmTable(st *api.Status) {
	if len(st.VMs) == 0 {
		c.out.say("No VM yet. Make one with: tagalong vm create NAME --disk 20G")
		return
	}
	now := time.Now()
	rows := make([][]string, 0, len(st.VMs))
	for _, vm := range st.VMs {
		rows = append(rows, []string{vm.Name, stateWords(vm), whereWords(vm), ownCopyWords(vm, st.Device.ID, now), size(allDisks(vm.Spec))})
	}
	c.out.table([]string{"VM", "STATE", "OWNER", "COPY HERE", "DISK"}, rows)
	for _, vm := range st.VMs {
		if vm.Problem != nil {
			c.out.say("\n%s: %s", vm.Name, vm.Problem.Error())
		}
	}
	for _, vm := range st.VMs {
		for _, line := range append(damageLines(vm, now, false), needs(vm, now)...) {
			c.out.say("\n%s", line)
		}
	}
}

// needs are sentences about what is out of the ordinary with a VM, each with what to do.
func needs(vm api.VM, now time.Time) []string {
	var lines []string
	name := shellWord(vm.Name)
	if x := vm.Conflict; x != nil {
		lines = append(lines, fmt.Sprintf("%s has %d versions, between which you must choose: tagalong conflict %s", vm.Name, len(x.Sides), name))
	}
	if vm.Orphan {
		lines = append(lines, fmt.Sprintf("%s belongs to %s, which was removed. Take it over with: tagalong switch --force %s", vm.Name, vm.OwnerName, name))
	}
	if vm.Offline && !vm.Here {
		lines = append(lines, fmt.Sprintf("%s is on a journey with %s, since %s.", vm.Name, vm.OwnerName, moment(vm.OfflineSince, now)))
	}
	if s := vm.Second; s != nil && s.State != api.SecondKept && s.State != api.SecondPaused {
		lines = append(lines, fmt.Sprintf("%s is set to wait for a second copy: %s.", vm.Name, syncWords(vm, now)))
	}
	lines = append(lines, hydrationLines(vm)...)
	for _, u := range vm.Unfit {
		lines = append(lines, fmt.Sprintf("%s can't go to %s while it runs. %s See what is left: tagalong switch %s --to %s --check", vm.Name, u.DeviceName, u.Sentence, name, shellWord(u.DeviceName)))
	}
	if len(vm.RestorePoints) > 0 {
		lines = append(lines, fmt.Sprintf("%s has %s here: tagalong restore-points %s", vm.Name, pointsWords(vm.RestorePoints), name))
	}
	return lines
}

// stateWords is a VM's state, and how far its switch is.
func stateWords(vm api.VM) string {
	if vm.Conflict != nil {
		return "two versions"
	}
	if vm.Unopened {
		return "can't be opened"
	}
	if vm.Switch == nil || vm.Switch.Phase.Ended() {
		return string(vm.State)
	}
	text := "switching to " + vm.Switch.ToName
	if part, known := (step{bytes: vm.Switch.Bytes, total: vm.Switch.Total}).permille(); known {
		text += ", " + strconv.FormatInt(part/10, 10) + " %"
	}
	return text
}

func whereWords(vm api.VM) string {
	if vm.Orphan {
		return vm.OwnerName + " (removed)"
	}
	if vm.Here {
		return vm.OwnerName + " (this device)"
	}
	return vm.OwnerName
}

// ownCopyWords says how this device's replica stands.
func ownCopyWords(vm api.VM, self string, now time.Time) string {
	if vm.Here {
		return "owner"
	}
	for _, r := range vm.Replicas {
		if r.Device == self {
			return copyWords(vm, r, now)
		}
	}
	return "none"
}

// copyWords says how a replica stands; one that is a side of a conflict doesn't follow the other.
func copyWords(vm api.VM, r api.Replica, now time.Time) string {
	if x := vm.Conflict; x != nil && slices.ContainsFunc(x.Sides, func(s api.ConflictSide) bool { return s.Owner == r.Device }) {
		return "a version of its own"
	}
	return replicaWords(r, now)
}

func newVMShow(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "show [VM]", Short: "Show all about a VM", Example: "  tagalong vm show Work", Args: between(0, 1),
		ValidArgsFunction: c.completeFirst(vmNames)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.withVM(cmd, args, func(_ context.Context, _ *api.Client, vm api.VM) error {
			if *asJSON {
				return c.out.json(vm)
			}
			c.showVM(vm)
			return nil
		})
	}
	return cmd
}

// recordedWords say how much of the disk damage is found in without asking other devices.
func recordedWords(vm api.VM) string {
	if vm.Recorded == 0 {
		return ""
	}
	return fmt.Sprintf(", of which %s have recorded hashes on this device", size(vm.Recorded))
}

// hardwareWords say what is out of the ordinary with a VM's virtual hardware.
func hardwareWords(s api.Spec) string {
	var words []string
	if s.Firmware == api.FirmwareUEFI {
		words = append(words, "UEFI")
	}
	if s.Bridged {
		words = append(words, "on the local network (bridge)")
	}
	return strings.Join(words, ", ")
}

// agentWords say what the agent inside a VM means to its clock.
func agentWords(a api.AgentState) string {
	const late = "the guest's clock is late after a pause until its own time service sets it"
	switch a {
	case api.AgentAnswers:
		return "answers: the guest's clock is set after a switch and after a pause"
	case api.AgentRefuses:
		return "doesn't set the clock: " + late
	case api.AgentSilent:
		return "none answers: " + late + "; install qemu-guest-agent in it"
	}
	return ""
}

func (c *cli) showVM(vm api.VM) {
	o := c.out
	o.say("%s: %s on %s", vm.Name, stateWords(vm), whereWords(vm))
	if vm.Problem != nil {
		o.say("  Problem   %s", vm.Problem.Error())
	}
	o.say("  ID        %s", vm.ID)
	o.say("  Position  term %d, barrier %d", vm.Position.Term, vm.Position.Barrier)
	o.say("  CPUs      %d (%s, %s)", vm.Spec.CPUs, vm.Spec.CPU, vm.Spec.Machine)
	if words := hardwareWords(vm.Spec); words != "" {
		o.say("  Hardware  %s", words)
	}
	o.say("  Memory    %s", size(vm.Spec.MemoryKiB<<10))
	o.say("  Disk      %s%s", size(vm.Spec.DiskBytes), recordedWords(vm))
	c.sayDisks(vm)
	o.say("  Sync      %s", syncWords(vm, time.Now()))
	now := time.Now()
	if vm.Verifying != nil {
		o.say("  Verified  %s", verifyingWords(vm.Verifying, now))
	}
	if vm.Screen != "" {
		o.say("  Screen    %s", vm.Screen)
	}
	if vm.Console != "" {
		o.say("  Console   %s", vm.Console)
	}
	if words := agentWords(vm.Agent); words != "" {
		o.say("  Agent     %s", words)
	}
	for i, line := range damageLines(vm, now, true) {
		if i == 0 {
			o.say("")
		}
		o.say("%s", line)
	}
	for _, line := range needs(vm, now) {
		o.say("\n%s", line)
	}
	if len(vm.Replicas) == 0 {
		return
	}
	head, rows := []string{"DEVICE", "REPLICA", "POSITION", "HEARD OF"}, make([][]string, 0, len(vm.Replicas))
	told := slices.ContainsFunc(vm.Replicas, func(r api.Replica) bool { return !r.At.IsZero() })
	verified := slices.ContainsFunc(vm.Replicas, func(r api.Replica) bool { return !r.Verified.IsZero() })
	if told {
		head = append(head, "AS OF")
	}
	if verified {
		head = append(head, "VERIFIED")
	}
	for _, r := range vm.Replicas {
		row := []string{r.DeviceName, copyWords(vm, r, now), fmt.Sprintf("%d/%d", r.Position.Term, r.Position.Barrier), ago(r.Heard, now)}
		switch {
		case told && r.At.IsZero():
			row = append(row, "now")
		case told:
			row = append(row, ago(r.At, now))
		}
		if verified {
			row = append(row, ago(r.Verified, now))
		}
		rows = append(rows, row)
	}
	o.say("")
	o.table(head, rows)
}
