package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// What --network takes.
const (
	networkUser   = "user"
	networkBridge = "bridge"
	networkNone   = "none"
)

// createFlags are what vm create and vm import have in common.
type createFlags struct {
	memory, format      string
	cpus                int
	noScreen, noNetwork bool
	network, firmware   string
	cpu                 string
	noWait              bool
	json                *bool
}

func (f *createFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.memory, "memory", "2G", "`size` of its memory")
	cmd.Flags().IntVar(&f.cpus, "cpus", 2, "`number` of its CPUs")
	cmd.Flags().StringVar(&f.format, "format", "", "the image's `format`: raw, qcow2, vdi, vmdk or vhdx (default: found out)")
	cmd.Flags().BoolVar(&f.noScreen, "no-screen", false, "make it without a screen")
	cmd.Flags().BoolVar(&f.noNetwork, "no-network", false, "make it without a network")
	cmd.Flags().StringVar(&f.network, "network", networkUser, "its `kind` of network: user (behind the device that it is on), bridge (on the local network itself) or none")
	cmd.Flags().StringVar(&f.firmware, "firmware", api.FirmwareBIOS, "what it starts with: `bios` or uefi; an image starts only with the one that it was installed under")
	cmd.Flags().StringVar(&f.cpu, "cpu", "", "its processor, a QEMU CPU `model` (default: the newest that all your devices can be)")
	registerCompletion(cmd, "network", cobra.FixedCompletions([]string{networkUser, networkBridge, networkNone}, cobra.ShellCompDirectiveNoFileComp))
	registerCompletion(cmd, "firmware", cobra.FixedCompletions([]string{api.FirmwareBIOS, api.FirmwareUEFI}, cobra.ShellCompDirectiveNoFileComp))
	registerCompletion(cmd, "cpu", cobra.NoFileCompletions)
	cmd.Flags().BoolVar(&f.noWait, "no-wait", false, "return when the work has begun")
	f.json = jsonFlag(cmd)
	registerCompletion(cmd, "format", cobra.FixedCompletions([]string{"raw", "qcow2", "vdi", "vmdk", "vhdx"}, cobra.ShellCompDirectiveNoFileComp))
}

// wholeMiB reads an amount of memory.
func wholeMiB(text string) (int64, error) {
	memory, err := parseSize(text)
	if err != nil {
		return 0, err
	}
	if memory == 0 || memory%(1<<20) != 0 {
		return 0, usage("A VM's memory is counted in whole MiB.", "Write it like 512M or 2G.")
	}
	return memory >> 20, nil
}

// request is what the flags ask for, but the disk.
func (f *createFlags) request(name string) (api.CreateVM, error) {
	memory, err := wholeMiB(f.memory)
	if err != nil {
		return api.CreateVM{}, err
	}
	if f.cpus < 1 {
		return api.CreateVM{}, usage("A VM needs a CPU at least.", "Say how many with --cpus.")
	}
	req := api.CreateVM{Name: name, CPUs: f.cpus, MemoryMiB: memory, Format: f.format, Screen: !f.noScreen, Network: !f.noNetwork, CPU: f.cpu}
	switch f.network {
	case networkUser:
	case networkBridge:
		req.Bridged = req.Network
	case networkNone:
		req.Network = false
	default:
		return req, usage(fmt.Sprintf("%q isn't a choice for --network.", f.network), "Use user, bridge or none.")
	}
	switch f.firmware {
	case api.FirmwareBIOS:
	case api.FirmwareUEFI:
		req.Firmware = f.firmware
	default:
		return req, usage(fmt.Sprintf("%q isn't a choice for --firmware.", f.firmware), "Use bios or uefi.")
	}
	return req, nil
}

func newVMCreate(c *cli) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a VM, with an empty disk or from an image",
		Example: `  tagalong vm create Work --disk 20G
  tagalong vm create Work --disk 40G --memory 4G --cpus 4 --image debian.qcow2
  tagalong vm create New --disk 60G --firmware uefi --network bridge
  tagalong vm create Work --disk debian.qcow2 --disk 100G --disk photos.vdi`,
		Args:              between(1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.add(cmd)
	disks := cmd.Flags().StringArray("disk", nil, "`size` of its disk (default: the image's); once more for each further disk: SIZE, or IMAGE, or IMAGE,size=SIZE")
	image := cmd.Flags().String("image", "", "`file` to copy the first disk from")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := f.request(args[0])
		if err != nil {
			return err
		}
		if len(*disks) == 0 && *image == "" {
			return usage("The size of the disk is missing.", "Say it with --disk 20G, or name an image with --image FILE.")
		}
		for i, text := range *disks {
			d, err := parseNewDisk(text)
			switch {
			case err != nil:
				return err
			case i > 0:
				req.Disks = append(req.Disks, d)
			default:
				req.DiskBytes, req.Image = d.Bytes, d.Image
			}
		}
		if *image != "" {
			if req.Image != "" {
				return usage("There are two images for the first disk.", "Name one with --image, or with the first --disk.")
			}
			if req.Image, err = imagePath(*image); err != nil {
				return err
			}
		}
		return c.create(cmd, req, &f)
	}
	return cmd
}

func newVMImport(c *cli) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Make a VM from a disk image",
		Long: `Make a VM from a disk image: raw, qcow2, vdi, vmdk or vhdx. The image is copied
and not changed.`,
		Example: `  tagalong vm import ~/vms/work.qcow2
  tagalong vm import old.vdi --name Work --memory 4G`,
		Args: between(1, 1),
	}
	f.add(cmd)
	name := cmd.Flags().String("name", "", "what the VM is `called` (default: as the file)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, err := imagePath(args[0])
		if err != nil {
			return err
		}
		if *name == "" {
			*name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		}
		req, err := f.request(*name)
		if err != nil {
			return err
		}
		req.Image = path
		return c.create(cmd, req, &f)
	}
	return cmd
}

// imagePath is the absolute path of a file that can be read: the engine has another directory.
func imagePath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", &api.Error{Code: api.CodeInternal, Sentence: "The image can't be found.", Cause: err.Error()}
	}
	// Asked first: to open a pipe waits for somebody at its other end.
	info, err := os.Stat(abs)
	if err == nil && (info.IsDir() || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeCharDevice) != 0) {
		return "", usage(fmt.Sprintf("%q is not a disk image.", path), "Name a file.")
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(abs)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no file %q.", path), Next: "Check the path."}
	case err != nil:
		return "", usage(fmt.Sprintf("The file %q can't be read.", path), "Make sure that you may read it.")
	}
	_ = file.Close() // it was only looked whether it opens
	return abs, nil
}

// create asks for the VM and follows the work.
func (c *cli) create(cmd *cobra.Command, req api.CreateVM, f *createFlags) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	begin := func() (*api.Job, error) { return client.CreateVM(cmd.Context(), req) }
	var job *api.Job
	if f.noWait {
		job, err = begin()
	} else {
		job, err = c.awaitJob(cmd.Context(), client, *f.json, begin, nil)
	}
	if err != nil {
		return err
	}
	if *f.json {
		if err := c.out.json(job); err != nil {
			return err
		}
	}
	switch {
	case job.Error != nil:
		return job.Error
	case *f.json:
	case job.Done:
		c.out.say("%q is ready. Start it with: tagalong vm start %s", req.Name, shellWord(req.Name))
	default:
		c.out.say("%q is being made. Follow it with: tagalong status", req.Name)
	}
	return nil
}

// shellWord quotes a name where a shell would take it apart.
func shellWord(name string) string {
	plain := func(r rune) bool {
		return r == '-' || r == '_' || r == '.' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || r > 0x7f
	}
	if name != "" && strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) < 0 {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
