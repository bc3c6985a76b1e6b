package qemu

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"tagalong.org/tagalong/app/hypervisor"
)

// Defaults of a new VM. The machine type is the oldest that every supported QEMU has, the CPU
// model one that every PC since 2008 can offer, so that a VM can move between unlike PCs.
const (
	DefaultMachine = "pc-i440fx-7.2"
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
func memorySocket(dir string) string  { return filepath.Join(dir, "memory.sock") }
func pidFile(dir string) string       { return filepath.Join(dir, "qemu.pid") }
func logFile(dir string) string       { return filepath.Join(dir, "qemu.log") }

// escape doubles commas, QEMU's only separator inside an option.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// argv is the command line of a VM. Everything the guest can see is a function of c alone.
func argv(c hypervisor.Config, accel string, incoming bool) ([]string, error) {
	uuid, err := vmUUID(c.VM)
	if err != nil {
		return nil, err
	}
	own := blockdev("disk0", c.Disk)
	own["discard"], own["detect-zeroes"] = "unmap", "unmap"
	own["cache"] = map[string]any{"direct": true, "no-flush": false}
	disk, err := json.Marshal(own)
	if err != nil {
		return nil, fmt.Errorf("qemu: describe the disk: %w", err)
	}
	args := []string{
		"-name", "guest=" + escape(c.Name),
		"-uuid", uuid,
		"-no-user-config", "-nodefaults",
		"-machine", c.Machine + ",usb=off,dump-guest-core=off",
		"-accel", accel,
		"-cpu", c.CPU,
		"-smp", strconv.Itoa(c.CPUs),
		"-m", strconv.FormatInt(c.MemoryKiB, 10) + "K",
		"-rtc", "base=utc",
		"-msg", "timestamp=on",
		"-pidfile", pidFile(c.Dir),
		"-qmp", "unix:" + escape(qmpSocket(c.Dir)) + ",server=on,wait=off",
		"-chardev", "socket,id=console0,server=on,wait=off,path=" + escape(consoleSocket(c.Dir)),
		"-device", "isa-serial,chardev=console0",
		"-blockdev", string(disk),
		"-device", "virtio-blk-pci,drive=disk0,id=vd0,addr=0x3,bootindex=0,write-cache=on,werror=stop,rerror=stop," + geometry(c.DiskBytes),
		"-object", "rng-random,id=rng0,filename=/dev/urandom",
		"-device", "virtio-rng-pci,rng=rng0,addr=0x4",
	}
	if c.Network {
		args = append(args, "-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,addr=0x5,romfile=,mac="+mac(uuid))
	}
	for _, d := range c.Extra {
		more, err := extraArgs(d)
		if err != nil {
			return nil, err
		}
		args = append(args, more...)
	}
	if c.CheckFileSystems {
		args = append(args, "-fw_cfg", "name=opt/org.tagalong/fsck,string=force", "-smbios", "type=11"+
			",value=io.systemd.credential:fsck.mode=force"+
			",value=io.systemd.stub.kernel-cmdline-extra=fsck.mode=force"+
			",value=io.systemd.boot.kernel-cmdline-extra=fsck.mode=force")
	}
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
	if incoming {
		args = append(args, "-S", "-incoming", "defer")
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
func mac(uuid string) string {
	u := strings.ReplaceAll(uuid, "-", "")
	return fmt.Sprintf("52:54:00:%s:%s:%s", u[0:2], u[2:4], u[4:6])
}
