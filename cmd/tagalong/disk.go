package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disktool"
	"tagalong.org/tagalong/app/meter"
)

func newDisk(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "disk",
		Short: "Make, see, serve and change disks, most of it also without the engine",
		Long: `Work on a disk itself. A disk is named by its directory (a VM's is vms/ID/disk in the
engine's data directory) or by its VM. These verbs need no engine, unless one has the
disk open: then info, check and export ask it, while the VM runs. Only add, grow and
remove always ask the engine: they change the disks of a VM, which must be stopped.`,
		Example: `  tagalong disk info Work
  tagalong disk export Work work.qcow2
  tagalong disk create ~/disks/scratch --size 20G
  tagalong disk serve ~/disks/scratch --socket ~/nbd/scratch.sock`,
	},
		newDiskCreate(c), newDiskInfo(c), newDiskCheck(c), newDiskExport(c), newDiskServe(c),
		newDiskAdd(c), newDiskGrow(c), newDiskRemove(c),
	)
}

// interruptible ends at the first interrupt, or the system's demand; at the second the program just ends.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// diskLog is where disks tell what a person should know.
func (c *cli) diskLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// localProgress shows work that this process does itself.
func localProgress(p *progress, name string) func(done, total int64) {
	var m meter.Meter
	return func(done, total int64) {
		rate := m.Update(time.Now(), done)
		p.show(step{name: name, bytes: done, total: total, rate: rate, left: meter.TimeLeft(total-done, rate)})
	}
}

// reserveFlag gives a verb that writes its --reserve.
func reserveFlag(cmd *cobra.Command) func() (int64, error) {
	text := cmd.Flags().String("reserve", "1G", "`size` of the space to leave free on this device, or 0")
	return func() (int64, error) {
		if *text == "0" {
			return 0, nil
		}
		return parseSize(*text)
	}
}

func newDiskCreate(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create DIR",
		Short: "Make a disk, empty or from an image",
		Long: `Make a disk in a directory that is empty or isn't there yet. An image is copied and
not changed. The disk is there when it is whole: a copy that fails, or is cancelled
with Ctrl-C, leaves nothing.`,
		Example: `  tagalong disk create ~/disks/scratch --size 20G
  tagalong disk create ~/disks/old-pc --from old-pc.qcow2`,
		Args: between(1, 1),
	}
	sizeText := cmd.Flags().String("size", "", "`size` of the disk (default: the image's)")
	o := disktool.CreateOptions{}
	cmd.Flags().StringVar(&o.From, "from", "", "`image` to copy: raw, qcow2, vdi, vmdk or vhdx")
	cmd.Flags().StringVar(&o.Format, "format", "", "the image's `format` (default: found out)")
	reserve := reserveFlag(cmd)
	asJSON := jsonFlag(cmd)
	registerCompletion(cmd, "format", cobra.FixedCompletions([]string{"raw", "qcow2", "vdi", "vmdk", "vhdx"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if *sizeText != "" {
			if o.Size, err = parseSize(*sizeText); err != nil {
				return err
			}
		}
		if o.Reserve, err = reserve(); err != nil {
			return err
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		p := newProgress(c.err, *asJSON)
		o.Dir, o.Log, o.Progress = args[0], c.diskLog(), localProgress(p, "Copying")
		info, err := disktool.Create(ctx, o)
		p.clear()
		if err != nil {
			return err
		}
		if *asJSON {
			return c.out.json(info)
		}
		c.out.say("A disk of %s is in %s.", size(info.Size), info.Dir)
		return nil
	}
	return cmd
}

func newDiskInfo(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "info VM|DIR",
		Short: "Show all about a disk",
		Example: `  tagalong disk info Work
  tagalong disk info ~/disks/scratch --json`,
		Args: between(1, 1),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var info *api.DiskInfo
		here := func(dir string) (err error) {
			info, err = disktool.Info(dir, c.diskLog())
			return err
		}
		there := func(client *api.Client, disk string) (err error) {
			info, err = client.DiskInfo(cmd.Context(), disk)
			return err
		}
		if err := c.onDisk(cmd.Context(), args[0], here, there); err != nil {
			return err
		}
		if *asJSON {
			return c.out.json(info)
		}
		c.showDisk(info)
		return nil
	}
	return cmd
}

// roleWords says what a disk is to this device.
func roleWords(d *api.DiskInfo) string {
	switch d.Role {
	case api.DiskNew:
		return "new: it never had an owner"
	case api.DiskOwner:
		return "this device owns it"
	case api.DiskReplica:
		if d.Given >= d.Term {
			return "replica: this device gave it away"
		}
		return "replica: another device owns it"
	case api.DiskIncomplete:
		return "incomplete: it isn't whole yet, and of no use before"
	default:
		return string(d.Role)
	}
}

// formatWords lists the versions of what is stored, by name.
func formatWords(formats map[string]int) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(formats)) {
		words = append(words, fmt.Sprintf("%s %d", name, formats[name]))
	}
	return strings.Join(words, ", ")
}

func (c *cli) showDisk(d *api.DiskInfo) {
	o := c.out
	o.say("%s", d.Dir)
	if d.Problem != nil {
		o.say("  Problem   %s", d.Problem.Error())
	}
	if d.NeedsCheck != "" {
		o.say("  Problem   It needs checking since an error of this device's disk: %s. Do it with: tagalong disk check", d.NeedsCheck)
	}
	if d.VM != "" {
		o.say("  VM        %s", d.VMName)
	}
	o.say("  ID        %s", d.ID)
	o.say("  Size      %s, of which %s take space", size(d.Size), size(d.Allocated))
	o.say("  Role      %s", roleWords(d))
	if d.Active {
		o.say("  In use    open for writing")
	}
	o.say("  Term      %d", d.Term)
	written := ""
	if d.Unflushed {
		written = ", and written since"
	}
	o.say("  Position  %d/%d%s", d.Position.Term, d.Position.Barrier, written)
	if d.Before != (api.Position{}) {
		o.say("  Fetching  %s aren't here yet; until they are, it can be rolled back to %d/%d", size(d.Stale), d.Before.Term, d.Before.Barrier)
	}
	o.say("  Formats   %s", formatWords(d.Formats))
	if len(d.Peers) == 0 {
		return
	}
	rows := make([][]string, 0, len(d.Peers))
	for _, p := range d.Peers {
		name := p.DeviceName
		if name == "" {
			name = p.Device
		}
		rows = append(rows, []string{name, p.State, size(p.Lacks), fmt.Sprintf("%d/%d", p.Position.Term, p.Position.Barrier)})
	}
	o.say("")
	o.table([]string{"DEVICE", "REPLICA", "LACKS", "POSITION"}, rows)
}
