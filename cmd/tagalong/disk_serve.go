package main

import (
	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disktool"
)

func newDiskServe(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve DIR",
		Short: "Serve a disk over NBD, without the engine",
		Long: `Serve one disk to programs that speak NBD (qemu-img, nbdcopy, qemu-system, nbdinfo),
for rescue and for trying things out, until Ctrl-C. The engine must not have it open.

A disk that this device doesn't own, and one that the memory of a suspended VM
belongs to, is served read-only; the first lines say so.

The socket's directory must be one that only you can enter; it is made if it is
missing.`,
		Example: `  tagalong disk serve ~/disks/scratch --socket ~/nbd/scratch.sock
  tagalong disk serve DIR --socket ~/nbd/rescue.sock --read-only
  nbdinfo 'nbd+unix:///?socket=/home/me/nbd/rescue.sock'`,
		Args: between(1, 1),
	}
	o := disktool.ServeOptions{}
	cmd.Flags().StringVar(&o.Socket, "socket", "", "`path` of the Unix socket to listen on")
	cmd.Flags().StringVar(&o.Export, "export", "", "`name` of the export (default: the nameless one)")
	cmd.Flags().StringVar(&o.Volume, "disk", "", "which `disk`, if there are several (default: the first)")
	cmd.Flags().BoolVar(&o.ReadOnly, "read-only", false, "refuse writes")
	reserve := reserveFlag(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if o.Socket == "" {
			return usage("The socket is missing.", "Say where to listen: --socket ~/nbd/disk.sock")
		}
		if o.Reserve, err = reserve(); err != nil {
			return err
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		o.Dir, o.Log = args[0], c.diskLog()
		return disktool.Serve(ctx, o, func(s api.ServedDisk) {
			if *asJSON {
				_ = c.out.jsonLine(s) // what can't be written, output tells at the end
				return
			}
			c.sayServed(s)
		})
	}
	return cmd
}

func (c *cli) sayServed(s api.ServedDisk) {
	o := c.out
	mode := "for reading and writing"
	if s.ReadOnly {
		mode = "read-only: " + s.Why
	}
	o.say("%s (%s, at %d/%d) is served %s.", s.Dir, size(s.Size), s.Position.Term, s.Position.Barrier, mode)
	uri := shellWord(s.URI)
	o.say("  nbdinfo %s", uri)
	o.say("  qemu-img convert -p -f raw -O qcow2 %s copy.qcow2", uri)
	if !s.ReadOnly {
		o.say("  qemu-system-x86_64 -drive file=%s,format=raw,if=virtio", uri)
	}
	o.say("It ends with Ctrl-C.")
}
