package qemu

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"tagalong.org/tagalong/app/hypervisor"
)

// Defaults of a new VM. The machine types, for a BIOS and for an UEFI, are the oldest that every supported QEMU has, the CPU
// model is one that every PC since 2008 can offer, so that a VM can move between unlike PCs.
const (
	DefaultMachine = "pc-i440fx-7.2"
	UEFIMachine    = "pc-q35-7.2"
	DefaultCPU     = "Nehalem"
)

// reconnectSeconds is how long QEMU holds the guest's requests while the engine is away: a day.
const reconnectSeconds = 86400

// EvenMemory turns the memory a person asked for, in KiB, into one that no QEMU corrupts
// when it moves: never a multiple of 256 KiB (see the package comment).
func EvenMemory(kib int64) int64 {
	if kib%256 == 0 {
		return kib - 128
	}
	return kib
}

// paths of a VM's process, all inside its private directory.
func qmpSocket(dir string) string     { return filepath.Join(dir, "qmp.sock") }
func consoleSocket(dir string) string { return filepath.Join(dir, "console.sock") }
func screenSocket(dir string) string  { return filepath.Join(dir, "screen.sock") }
func agentSocket(dir string) string   { return filepath.Join(dir, "agent.sock") }
func memorySocket(dir string) string  { return filepath.Join(dir, "memory.sock") }
func urgentPipes(dir string) string   { return filepath.Join(dir, "urgent") }
func pidFile(dir string) string       { return filepath.Join(dir, "qemu.pid") }
func logFile(dir string) string       { return filepath.Join(dir, "qemu.log") }

// escape doubles commas, QEMU's only separator inside an option.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// host is what of a command line is this device's affair: the guest sees nothing of it.
type host struct {
	accel  string
	netdev string // the network's other end; "" is QEMU's own user-mode network
	spice  bool   // QEMU has SPICE for the screen
	code   string // the UEFI's program
	urgent bool   // an incoming one has a session for urgent commands on the pipes of urgentPipes
}

// argv is the command line of a VM. Everything the guest can see is a function of c alone.
func argv(c hypervisor.Config, h host, incoming bool) (args []string, err error) {
	switch c.Hardware {
	case 0, hypervisor.HardwareFirst:
		args, err = firstHardware(c, h)
	case hypervisor.HardwareNow:
		args, err = hardware2(c, h)
	default:
		err = fmt.Errorf("%w: generation %d", hypervisor.ErrHardware, c.Hardware)
	}
	if err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}
	if incoming {
		args = append(args, "-S", "-incoming", "defer")
		if h.urgent {
			args = append(args, "-chardev", "pipe,id=urgent0,path="+escape(urgentPipes(c.Dir)), "-mon", "chardev=urgent0,mode=control")
		}
	}
	return args, nil
}

// What a machine type and a CPU model may be called: a VM's record, where they are from, may be another device's, and all else here is more than a name
// to QEMU.
var (
	machineName = regexp.MustCompile(`^pc-(i440fx|q35)-[0-9A-Za-z.]+$`)
	cpuName     = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]*$`)
)

// checkNames says whether a VM is one that a command line can be made of. Errors: hypervisor.ErrHardware.
func checkNames(c hypervisor.Config) error {
	switch {
	case !machineName.MatchString(c.Machine):
		return fmt.Errorf("%w: machine %.60q", hypervisor.ErrHardware, c.Machine)
	case !cpuName.MatchString(c.CPU):
		return fmt.Errorf("%w: processor %.60q", hypervisor.ErrHardware, c.CPU)
	case c.CPUs < 1 || c.MemoryKiB < 1:
		return fmt.Errorf("%w: %d processors, %d KiB of memory", hypervisor.ErrHardware, c.CPUs, c.MemoryKiB)
	case strings.ContainsRune(c.Name, 0):
		return fmt.Errorf("%w: name %.60q", hypervisor.ErrHardware, c.Name)
	}
	return nil
}

// common is what the command lines of all generations begin with. machine has more of the machine's properties.
func common(c hypervisor.Config, h host, machine string) ([]string, error) {
	if err := checkNames(c); err != nil {
		return nil, err
	}
	uuid, err := vmUUID(c.VM)
	if err != nil {
		return nil, err
	}
	return []string{
		"-name", "guest=" + escape(c.Name),
		"-uuid", uuid,
		"-no-user-config", "-nodefaults",
		"-machine", c.Machine + ",usb=off,dump-guest-core=off" + machine,
		"-accel", h.accel,
		"-cpu", c.CPU,
		"-smp", strconv.Itoa(c.CPUs),
		"-m", strconv.FormatInt(c.MemoryKiB, 10) + "K",
		"-rtc", "base=utc",
		"-msg", "timestamp=on",
		"-pidfile", pidFile(c.Dir),
		"-qmp", "unix:" + escape(qmpSocket(c.Dir)) + ",server=on,wait=off",
		"-chardev", "socket,id=console0,server=on,wait=off,path=" + escape(consoleSocket(c.Dir)),
		"-device", "isa-serial,chardev=console0",
	}, nil
}

// firstHardware is generation 1. It is never changed: there are guests that know it.
func firstHardware(c hypervisor.Config, h host) ([]string, error) {
	if c.Firmware != "" && c.Firmware != hypervisor.FirmwareBIOS {
		return nil, fmt.Errorf("%w: generation 1 has no firmware %q", hypervisor.ErrHardware, c.Firmware)
	}
	args, err := common(c, h, "")
	if err != nil {
		return nil, err
	}
	drives, err := driveArgs(c.Disks, 0x7)
	if err != nil {
		return nil, err
	}
	args = append(args, drives...)
	args = append(args, randomArgs()...)
	args = append(args, networkArgs(c, h)...)
	for _, d := range c.Extra {
		more, err := extraArgs(d, "")
		if err != nil {
			return nil, err
		}
		args = append(args, more...)
	}
	args = append(args, checkArgs(c)...)
	if c.Screen {
		args = append(args,
			"-device", "VGA,addr=0x2",
			"-device", "qemu-xhci,id=usb0,addr=0x6",
			"-device", "usb-tablet,bus=usb0.0,port=1",
			"-display", "none",
			"-vnc", "unix:"+escape(screenSocket(c.Dir)))
	} else {
		args = append(args, "-display", "none")
	}
	return args, nil
}

func randomArgs() []string {
	return []string{"-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0,addr=0x4"}
}

// networkArgs are the card, and where its other end is.
func networkArgs(c hypervisor.Config, h host) []string {
	if !c.Network {
		return nil
	}
	backend := h.netdev
	if backend == "" {
		backend = "user,id=net0"
	}
	return []string{"-netdev", backend, "-device", "virtio-net-pci,netdev=net0,addr=0x5,romfile=,mac=" + mac(c.VM)}
}

// checkArgs has the guest check its file systems.
func checkArgs(c hypervisor.Config) []string {
	if !c.CheckFileSystems {
		return nil
	}
	return []string{"-fw_cfg", "name=opt/org.tagalong/fsck,string=force", "-smbios", "type=11" +
		",value=io.systemd.credential:fsck.mode=force" +
		",value=io.systemd.stub.kernel-cmdline-extra=fsck.mode=force" +
		",value=io.systemd.boot.kernel-cmdline-extra=fsck.mode=force"}
}

// maxDrives is how many drives a VM may have: as many as have a fixed place on its bus.
const maxDrives = 8

// driveArgs describes the VM's own drives. The first has the place and the names it always had; those after it have places of their own that
// nothing else uses, from places+1 on, so that a guest finds each where it was, whichever others there are.
func driveArgs(disks []hypervisor.Disk, places int) ([]string, error) {
	var args []string
	n := 0
	for _, d := range disks {
		if d.Kind != hypervisor.DiskDrive {
			continue
		}
		if n == maxDrives {
			return nil, fmt.Errorf("qemu: more than %d disks", maxDrives)
		}
		node, device := "disk0", "virtio-blk-pci,drive=disk0,id=vd0,addr=0x3,bootindex=0"
		if n > 0 {
			if _, _, err := extraNames(d.ID); err != nil {
				return nil, err
			}
			node = "drive-" + d.ID
			device = fmt.Sprintf("virtio-blk-pci,drive=%s,id=vd-%s,serial=%s,addr=%#x", node, d.ID, d.ID, places+n)
		}
		own := blockdev(node, d.Socket)
		own["discard"], own["detect-zeroes"] = "unmap", "unmap"
		own["cache"] = map[string]any{"direct": true, "no-flush": false}
		b, err := json.Marshal(own)
		if err != nil {
			return nil, fmt.Errorf("qemu: describe a disk: %w", err)
		}
		args = append(args, "-blockdev", string(b), "-device", device+",write-cache=on,werror=stop,rerror=stop,"+geometry(d.Bytes))
		n++
	}
	if n == 0 {
		return nil, errors.New("qemu: a VM without a disk")
	}
	return args, nil
}

// geometry spares the guess that QEMU would otherwise make by reading the disk's first sector
// from a replica that isn't active yet.
func geometry(bytes int64) string {
	const heads, secs = 16, 63
	cyls := min(max(bytes/(heads*secs*512), 2), 16383)
	return fmt.Sprintf("cyls=%d,heads=%d,secs=%d", cyls, heads, secs)
}

func vmUUID(id string) (string, error) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != 16 {
		return "", fmt.Errorf("qemu: %q isn't a VM's ID (32 hexadecimal digits)", id)
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// mac is the guest's network address: its own, and the same wherever it runs.
func mac(vm string) string {
	return fmt.Sprintf("52:54:00:%s:%s:%s", vm[0:2], vm[2:4], vm[4:6])
}
