package main

import (
	"context"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/viewer"
)

func newVMOpen(c *cli) *cobra.Command {
	return newVMDo(c, &cobra.Command{
		Use:   "open VM",
		Short: "Show a VM's screen in a window, on the device that runs it",
		Long: `Show the screen of a VM that runs on this device, in a window of remote-viewer
(package virt-viewer), until the window is closed, the VM is switched away or it
stops. With SPICE and the guest's spice-vdagent there are a common clipboard,
sound, and a resolution that follows the window; see also: tagalong viewer.`,
		Example: "  tagalong vm open Work",
	}, func(ctx context.Context, client *api.Client, vm api.VM) error {
		end, err := viewer.Session{Engine: client, VM: vm.ID}.Run(ctx)
		if err != nil || end == viewer.EndClosed {
			return err
		}
		return c.sayWhere(context.WithoutCancel(ctx), client, vm)
	})
}

// sayWhere tells what has become of a VM, and where it is.
func (c *cli) sayWhere(ctx context.Context, client *api.Client, vm api.VM) error {
	st, err := client.Status(ctx)
	if err != nil {
		return err
	}
	for _, now := range st.VMs {
		if now.ID == vm.ID && !now.Here {
			c.out.say("%q is on %s now.", now.Name, now.OwnerName)
			return nil
		}
	}
	return c.sayState(ctx, client, vm)
}

// newVMDo completes a verb that does one thing to one VM and says itself what became of it.
func newVMDo(c *cli, cmd *cobra.Command, do func(ctx context.Context, client *api.Client, vm api.VM) error) *cobra.Command {
	cmd.Args = between(1, 1)
	cmd.ValidArgsFunction = c.completeFirst(vmNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.withVM(cmd, args, do) }
	return cmd
}

// viewerSettings is what tagalong viewer prints for scripts.
type viewerSettings struct {
	Auto bool `json:"auto"`
}

func newViewer(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "viewer [auto|never]",
		Short: "Say whether a VM's screen is shown by itself on this device",
		Long: `Say whether the screen of a VM is shown by itself when the VM starts on this device
or is switched to it. It is the tray that shows it, and closes it when the VM
leaves; without the tray, and whenever it is closed: tagalong vm open.

  auto    show it (as it is from the start)
  never   only when it is asked for

Without a word it says what is set.`,
		Example: "  tagalong viewer\n  tagalong viewer never",
		Args:    between(0, 1),
	}
	asJSON := jsonFlag(cmd)
	cmd.ValidArgsFunction = cobra.FixedCompletions([]string{"auto", "never"}, cobra.ShellCompDirectiveNoFileComp)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		dir, err := api.DataDir(c.dataFlag)
		if err != nil {
			return err
		}
		switch first(args) {
		case "":
		case "auto", "never":
			if err := (viewer.Settings{Auto: args[0] == "auto"}).Save(dir); err != nil {
				return &api.Error{Code: api.CodeInternal, Sentence: "What you set couldn't be kept, so it isn't set.", Next: "Check that the disk isn't full, and try again.", Cause: err.Error()}
			}
		default:
			return usage("A screen is shown auto or never.", "Use one of these two words.")
		}
		s, err := viewer.Load(dir)
		if err != nil {
			return &api.Error{Code: api.CodeConflict, Sentence: "What you set about screens can't be read.", Next: "Set it anew: tagalong viewer auto", Cause: err.Error()}
		}
		if *asJSON {
			return c.out.json(viewerSettings{Auto: s.Auto})
		}
		if s.Auto {
			c.out.say("The screen of a VM is shown when it starts here or comes here.")
		} else {
			c.out.say("The screen of a VM is shown only when that is asked for.")
		}
		return nil
	}
	return cmd
}
