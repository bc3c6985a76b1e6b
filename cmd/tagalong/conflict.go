package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// conflictOf is a VM and its conflict, for scripts.
type conflictOf struct {
	VM       string        `json:"vm"`
	VMName   string        `json:"vm_name"`
	Conflict *api.Conflict `json:"conflict"`
}

func newConflict(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "conflict [VM]",
		Short: "Show the two versions of a VM between which you must choose",
		Long: `A VM that was taken over from a device that then came back with something newer has two
versions. Nothing of either is lost or overwritten: this shows both sides, and you choose
with "tagalong resolve". Without a name it shows every VM that needs a choice.`,
		Example:           "  tagalong conflict\n  tagalong conflict Work",
		Args:              between(0, 1),
		ValidArgsFunction: c.completeFirst(conflictNames),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			st, err := client.Status(ctx)
			if err != nil {
				return err
			}
			vms := st.VMs
			if len(args) > 0 {
				vm, err := findVM(st, args[0])
				if err != nil {
					return err
				}
				vms = []api.VM{vm}
			}
			found := []conflictOf{}
			for _, vm := range vms {
				if vm.Conflict != nil {
					found = append(found, conflictOf{vm.ID, vm.Name, vm.Conflict})
				}
			}
			switch {
			case *asJSON:
				return c.out.json(found)
			case len(found) == 0 && len(args) > 0:
				c.out.say("%q has one version. There is nothing to choose.", vms[0].Name)
			case len(found) == 0:
				c.out.say("Every VM has one version. There is nothing to choose.")
			}
			for i, f := range found {
				if i > 0 {
					c.out.say("")
				}
				c.showConflict(f, time.Now())
			}
			return nil
		})
	}
	return cmd
}

func (c *cli) showConflict(f conflictOf, now time.Time) {
	o, x := c.out, f.Conflict
	o.say("%q went two ways after position %s.", f.VMName, positionWords(x.Since))
	if !x.Found.IsZero() {
		o.say("That was found %s. Nothing of either side is lost before you choose.", ago(x.Found, now))
	}
	o.say("")
	rows := make([][]string, 0, len(x.Sides))
	for _, s := range x.Sides {
		written := "unknown"
		if !s.At.IsZero() {
			written = ago(s.At, now)
		}
		wrote := "unknown"
		if s.Changed != nil {
			wrote = size(*s.Changed)
		}
		rows = append(rows, []string{sideName(s), sideBegan(s.Kind), written, wrote, sideState(s), shortBranch(s.Branch)})
	}
	o.table([]string{"SIDE", "IT", "LAST WRITTEN", "WROTE SINCE", "THE VM THERE", "BRANCH"}, rows)
	vm := shellWord(f.VMName)
	one := "DEVICE"
	if len(x.Sides) > 0 {
		one = shellWord(sideWord(x, x.Sides[0]))
	}
	o.say("\nChoose with one of these. What is given up stays as a restore point on its device:")
	choices := make([]fact, 0, len(x.Sides)+3)
	for _, s := range x.Sides {
		choices = append(choices, fact{"--keep " + shellWord(sideWord(x, s)), ""})
	}
	choices = append(choices, fact{"--keep " + one + " --open", "and see the other's disk in it, to copy files out"},
		fact{"--keep " + one + " --repair", "and check and mend the disk"}, fact{"--both", "make two VMs of it"})
	for _, line := range factLines(choices) {
		o.say("  tagalong resolve %s%s", vm, strings.TrimPrefix(line, " "))
	}
}

// branchDigits is how much of a branch's hash tells it apart for a person.
const branchDigits = 10

func shortBranch(hash string) string {
	if len(hash) > branchDigits {
		return hash[:branchDigits]
	}
	return hash
}

// sideWord is the shortest that --keep understands as this side: its device, or its branch where a device has two.
func sideWord(x *api.Conflict, s api.ConflictSide) string {
	for _, o := range x.Sides {
		if o.Branch != s.Branch && (o.Owner == s.Owner || strings.EqualFold(o.OwnerName, s.OwnerName)) {
			return shortBranch(s.Branch)
		}
	}
	return s.OwnerName
}

func newResolve(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resolve VM",
		Short: "Choose which of a VM's two versions goes on",
		Long: `Choose between the two versions of a VM, see "tagalong conflict". --keep names the side that
goes on: "this" device's, the "other" one, a device, or a branch. The side that is given up
stays as a restore point on its device until you delete it.

  --keep SIDE           go on with that side
  --keep SIDE --open    and show the other side's disk in the VM, read-only, to copy files out
  --keep SIDE --repair  and check every block, mend from the other copies, and let the guest check
  --both                keep both: the other side becomes a VM of its own`,
		Example: `  tagalong resolve Work --keep this
  tagalong resolve Work --keep laptop --open
  tagalong resolve Work --both --name "Work of the journey"`,
		Args:              between(1, 1),
		ValidArgsFunction: c.completeFirst(conflictNames),
	}
	keep := cmd.Flags().String("keep", "", "the `side` to go on with: this, other, a device or a branch")
	both := cmd.Flags().Bool("both", false, "make two VMs of it; --keep says which keeps the name (default: this device's)")
	open := cmd.Flags().Bool("open", false, "show the other side's disk in the VM, read-only")
	repair := cmd.Flags().Bool("repair", false, "check and mend the disk")
	name := cmd.Flags().String("name", "", "the other VM's `name` with --both")
	yes := cmd.Flags().Bool("yes", false, "don't ask")
	asJSON := jsonFlag(cmd)
	registerCompletion(cmd, "keep", c.completer(sideNames))
	registerCompletion(cmd, "name", cobra.NoFileCompletions)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		how, err := resolution(*both, *open, *repair, *keep, *name)
		if err != nil {
			return err
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		st, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		vm, err := findVM(st, args[0])
		if err != nil {
			return err
		}
		if vm.Conflict == nil {
			return &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("%q has one version. There is nothing to choose.", vm.Name),
				Next: "See where it has been with: tagalong history " + shellWord(vm.Name)}
		}
		side, err := findSide(vm.Conflict, *keep, how == api.ResolveBoth)
		if err != nil {
			return err
		}
		others := slices.DeleteFunc(slices.Clone(vm.Conflict.Sides), func(s api.ConflictSide) bool { return s.Branch == side.Branch })
		if !*asJSON || !*yes {
			c.tell(*asJSON, resolutionWords(how, side, others, vm.Name, *name)...)
		}
		if err := c.confirm(fmt.Sprintf("This is the choice between the versions of %q.", vm.Name), vm.Name, *yes); err != nil {
			return err
		}
		job, err := c.followJob(cmd.Context(), client, *asJSON,
			func() (*api.Job, error) {
				return client.Resolve(cmd.Context(), api.ResolveConflict{VM: vm.ID, How: how, Keep: side.Branch, Name: *name})
			},
			func(context.Context) error {
				return &api.Error{Code: api.CodeCancelled, Sentence: "Left; the choice stands, and the rest goes on.", Next: "See how it goes with: tagalong status"}
			})
		switch {
		case err != nil:
			return err
		case *asJSON:
			return c.out.json(job)
		}
		c.out.say("%q has one version again, that of %s.", vm.Name, side.OwnerName)
		if how == api.ResolveBoth {
			c.out.say("The other is a VM of its own, or becomes one when its device is back: tagalong vm list")
		}
		return nil
	}
	return cmd
}

// resolution is what the flags choose.
func resolution(both, open, repair bool, keep, name string) (api.Resolution, error) {
	chosen := 0
	for _, b := range []bool{both, open, repair} {
		if b {
			chosen++
		}
	}
	switch {
	case chosen > 1:
		return "", usage("Only one of --both, --open and --repair can be chosen.", "See: tagalong resolve --help")
	case name != "" && !both:
		return "", usage("A name is only needed with --both.", "See: tagalong resolve --help")
	case keep == "" && !both:
		return "", usage("Which side shall go on is missing.", "Say it with --keep this, --keep other or --keep DEVICE, or keep --both. See the sides with: tagalong conflict")
	case both:
		return api.ResolveBoth, nil
	case open:
		return api.ResolveOpen, nil
	case repair:
		return api.ResolveRepair, nil
	}
	return api.ResolveKeep, nil
}

// findSide is the side that text means. With orFirst, nothing means this device's, or the first where it has none.
func findSide(x *api.Conflict, text string, orFirst bool) (api.ConflictSide, error) {
	words := make([]string, len(x.Sides))
	for i, s := range x.Sides {
		words[i] = sideWord(x, s)
	}
	here := slices.DeleteFunc(slices.Clone(x.Sides), func(s api.ConflictSide) bool { return !s.Here })
	away := slices.DeleteFunc(slices.Clone(x.Sides), func(s api.ConflictSide) bool { return s.Here })
	var fit []api.ConflictSide
	switch {
	case text == "" && orFirst && len(here) != 1 && len(x.Sides) > 0:
		return x.Sides[0], nil
	case text == "" || text == "this":
		fit = here
	case text == "other":
		fit = away
	default:
		for _, s := range x.Sides {
			if strings.EqualFold(s.OwnerName, text) || s.Owner == text || len(text) >= 6 && strings.HasPrefix(s.Branch, text) {
				fit = append(fit, s)
			}
		}
	}
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		return api.ConflictSide{}, &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no side called %q.", text),
			Next: "The sides are: " + strings.Join(words, ", ")}
	default:
		return api.ConflictSide{}, usage(fmt.Sprintf("More than one side is meant by %q.", text), "Say which one: "+strings.Join(words, ", "))
	}
}

func conflictNames(st *api.Status) []string {
	var names []string
	for _, vm := range st.VMs {
		if vm.Conflict != nil {
			names = append(names, vm.Name)
		}
	}
	return names
}

func sideNames(st *api.Status) []string {
	names := []string{"this", "other"}
	for _, vm := range st.VMs {
		if vm.Conflict == nil {
			continue
		}
		for _, s := range vm.Conflict.Sides {
			if w := sideWord(vm.Conflict, s); !slices.Contains(names, w) {
				names = append(names, w)
			}
		}
	}
	return names
}
