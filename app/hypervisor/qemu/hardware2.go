package qemu

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/hypervisor"
)

// hardware2 is generation 2, what a desktop of today needs. It is never changed: there are guests that know it. Its PCI bus:
//
//	0x02 screen    0x05 network      0x08 sound            0x18 with an UEFI: four ports for disks
//	0x03 disk 1    0x06 USB          0x09 balloon               that come and go while it runs
//	0x04 random    0x07 virtio-serial  0x11.. disks 2 to 8
//
// On virtio-serial are two ports whose other ends are in this process's directory or in the screen's server: for the guest's agent
// (org.qemu.guest_agent.0) and for the screen's (com.redhat.spice.0). That a device has no SPICE, the guest doesn't see.
//
// With the balloon the guest tells which memory it doesn't use (free-page-reporting): that needs no room here and nothing of it
// travels when the guest moves.
func hardware2(c hypervisor.Config, h host) ([]string, error) {
	machine, firmware, err := firmwareArgs(c, h)
	if err != nil {
		return nil, err
	}
	args, err := common(c, h, machine)
	if err != nil {
		return nil, err
	}
	args = append(args, firmware...)
	drives, err := driveArgs(c.Disks, 0x10)
	if err != nil {
		return nil, err
	}
	args = append(args, drives...)
	args = append(args, randomArgs()...)
	args = append(args, networkArgs(c, h)...)
	args = append(args,
		"-device", "virtio-serial-pci,id=vser0,addr=0x7",
		"-chardev", "socket,id=agent0,server=on,wait=off,path="+escape(agentSocket(c.Dir)),
		"-device", "virtserialport,bus=vser0.0,nr=1,chardev=agent0,name=org.qemu.guest_agent.0",
		"-device", "virtio-balloon-pci,id=balloon0,addr=0x9,free-page-reporting=on",
		"-device", "vmgenid,guid="+historyID(c))
	ports := hotplugPorts(c)
	for i, port := range ports {
		args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=%s,bus=pcie.0,chassis=%d,addr=0x18.%d,multifunction=on", port, i+1, i))
	}
	for i, d := range c.Extra {
		bus := ""
		if len(ports) > 0 {
			if i >= len(ports) {
				return nil, fmt.Errorf("%w: more than %d further disks", hypervisor.ErrHardware, len(ports))
			}
			bus = ports[i]
		}
		more, err := extraArgs(d, bus)
		if err != nil {
			return nil, err
		}
		args = append(args, more...)
	}
	args = append(args, checkArgs(c)...)
	args = append(args, "-display", "none")
	if c.Screen {
		args = append(args, screenArgs(c, h)...)
	}
	return args, nil
}

// screenArgs are the screen with what belongs to it. Who may look is told over QMP: until then nobody may.
func screenArgs(c hypervisor.Config, h host) []string {
	socket := escape(screenSocket(c.Dir))
	server := []string{"-vnc", "unix:" + socket + ",password=on", "-chardev", "null,id=vdagent0", "-audiodev", "none,id=snd0"}
	if h.spice {
		// It is looked at on this device: nothing is worth compressing.
		server = []string{
			"-spice", "unix=on,addr=" + socket + ",disable-ticketing=off,image-compression=off,streaming-video=off,playback-compression=off,seamless-migration=off",
			"-chardev", "spicevmc,id=vdagent0,name=vdagent", "-audiodev", "spice,id=snd0",
		}
	}
	return append(server,
		"-device", "virtserialport,bus=vser0.0,nr=2,chardev=vdagent0,name=com.redhat.spice.0",
		"-device", "virtio-vga,addr=0x2",
		"-device", "qemu-xhci,id=usb0,addr=0x6",
		"-device", "usb-tablet,bus=usb0.0,port=1",
		"-device", "intel-hda,id=hda0,addr=0x8",
		"-device", "hda-duplex,bus=hda0.0,cad=0,audiodev=snd0")
}

// firmwareArgs are what an UEFI needs beside the machine's own BIOS: its program, the same file on every device, and its variables,
// which are one of the VM's disks.
func firmwareArgs(c hypervisor.Config, h host) (machine string, args []string, err error) {
	var vars []hypervisor.Disk
	for _, d := range c.Disks {
		if d.Kind == hypervisor.DiskVars {
			vars = append(vars, d)
		}
	}
	switch c.Firmware {
	case "", hypervisor.FirmwareBIOS:
		return "", nil, nil
	case hypervisor.FirmwareUEFI:
	default:
		return "", nil, fmt.Errorf("%w: firmware %q", hypervisor.ErrHardware, c.Firmware)
	}
	switch {
	case len(vars) != 1 || vars[0].Bytes != hypervisor.FirmwareVarsBytes:
		return "", nil, fmt.Errorf("%w: an UEFI needs one disk of %d bytes for its variables", hypervisor.ErrHardware, hypervisor.FirmwareVarsBytes)
	case h.code == "":
		return "", nil, hypervisor.ErrNoFirmware
	}
	store := blockdev("vars0", vars[0].Socket)
	store["cache"] = map[string]any{"direct": true, "no-flush": false}
	for _, node := range []map[string]any{{"driver": "file", "node-name": "code0", "filename": h.code, "read-only": true}, store} {
		b, err := json.Marshal(node)
		if err != nil {
			return "", nil, fmt.Errorf("describe the firmware: %w", err)
		}
		args = append(args, "-blockdev", string(b))
	}
	return ",pflash0=code0,pflash1=vars0", args, nil
}

// hotplugPorts are the buses that a disk can be added to while the guest runs; none if the machine's own takes one anywhere.
func hotplugPorts(c hypervisor.Config) []string {
	if c.Hardware < hypervisor.HardwareNow || !strings.HasPrefix(c.Machine, "pc-q35-") {
		return nil
	}
	ports := make([]string, 4)
	for i := range ports {
		ports[i] = "rp" + strconv.Itoa(i)
	}
	return ports
}

// historyID changes when the guest's disk is set back to before something that the guest has seen.
func historyID(c hypervisor.Config) string {
	sum := blake3.Sum256(fmt.Appendf(nil, "tagalong history v1\x00%s\x00%s", c.VM, c.Fork))
	b := sum[:16]
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
