package preflight

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Way is how a VM gets to another device.
type Way string

// The ways, the best first.
const (
	WayTeleport Way = "teleport" // it runs on
	WaySuspend  Way = "suspend"  // its memory is saved, and it goes on there when there is room
	WayRestart  Way = "restart"  // it is shut down, and starts there
	WayHandOver Way = "handover" // it doesn't run, and is only handed over
	WayNone     Way = "none"     // not before something has changed
)

// worse orders the ways.
var worse = []Way{WayTeleport, WaySuspend, WayRestart, WayNone}

// Code names a kind of finding.
type Code string

// The kinds, in the order in which they are told.
const (
	NoHypervisor Code = "hypervisor"
	OldHardware  Code = "hardware"
	NoMachine    Code = "machine"
	NoFirmware   Code = "firmware"
	OtherAccel   Code = "accelerator"
	LackingCPU   Code = "cpu"
	OtherVendor  Code = "cpu-vendor"
	LittleMemory Code = "memory"
	LittleDisk   Code = "disk"
	Attached     Code = "devices"
	NoBridge     Code = "bridge"
	OtherConfig  Code = "config"
	Unknown      Code = "unknown"
)

// Finding is one thing that stands in the way, or that the person should know.
type Finding struct {
	Code     Code
	Sentence string
	Next     string // what to do; "" if nothing can be done
	// Stops says that the VM can't be teleported because of it. Left is then the best way that is left.
	Stops bool
	Left  Way
}

// Report is all that was found.
type Report struct {
	// Way is the best that is left, all findings together.
	Way      Way
	Findings []Finding
}

// Stops is the first finding that stands in the way; nil if there is none.
func (r Report) Stops() *Finding {
	for i := range r.Findings {
		if r.Findings[i].Stops {
			return &r.Findings[i]
		}
	}
	return nil
}

// VM is what is to be moved.
type VM struct {
	Name     string
	Running  bool // its memory is to come along
	CPU      string
	Machine  string
	Firmware string // "uefi", or anything else
	Hardware int    // generation
	Bridged  bool   // its network is to be a bridge's
	Memory   int64  // bytes
	// Lacking is how many bytes of its disk the taker hasn't got room for yet, at most.
	Lacking int64
	// Attached are the restore points that its guest sees as disks.
	Attached []string
}

// Check says what stands in the way of vm from giver to taker. Both may be unknown, but for their names.
func Check(vm VM, giver, taker Device) Report {
	c := check{vm: vm, giver: giver, taker: taker}
	r := Report{Way: WayTeleport, Findings: c.all()}
	for _, f := range r.Findings {
		if f.Stops && slices.Index(worse, f.Left) > slices.Index(worse, r.Way) {
			r.Way = f.Left
		}
	}
	if !vm.Running {
		r.Way = WayHandOver
	}
	return r
}

type check struct {
	vm           VM
	giver, taker Device
}

func (c check) all() []Finding {
	var list []Finding
	for _, look := range []func() *Finding{
		c.hypervisor, c.hardware, c.machine, c.firmware, c.accel, c.cpu, c.vendor, c.memory, c.disk, c.attached, c.bridge, c.unknown,
	} {
		f := look()
		if f == nil {
			continue
		}
		if !c.vm.Running { // it needs nothing there before it is started
			f.Stops, f.Left = false, ""
		}
		list = append(list, *f)
	}
	return list
}

func (c check) hypervisor() *Finding {
	if !c.taker.Probed || c.taker.Hypervisor != "" {
		return nil
	}
	return &Finding{Code: NoHypervisor, Sentence: fmt.Sprintf("There is no usable QEMU on %s.", c.taker.Name),
		Next: "Install QEMU 7.2 or later there and try again.", Stops: true, Left: WayNone}
}

func (c check) hardware() *Finding {
	if c.taker.Hardware == 0 || c.taker.Hardware >= c.vm.Hardware {
		return nil
	}
	return &Finding{Code: OldHardware, Sentence: fmt.Sprintf("Tagalong on %s is too old for the virtual hardware that %s has.", c.taker.Name, c.vm.Name),
		Next: "Update Tagalong there and try again.", Stops: true, Left: WayNone}
}

func (c check) machine() *Finding {
	if len(c.taker.Machines) == 0 || slices.Contains(c.taker.Machines, c.vm.Machine) {
		return nil
	}
	return &Finding{Code: NoMachine, Sentence: fmt.Sprintf("QEMU %s on %s doesn't have the machine that %s is (%s).", c.taker.Hypervisor, c.taker.Name, c.vm.Name, c.vm.Machine),
		Next: "Update QEMU there and try again.", Stops: true, Left: WayNone}
}

func (c check) firmware() *Finding {
	switch {
	case c.vm.Firmware != "uefi":
		return nil
	case c.taker.NoFirmware:
		return &Finding{Code: NoFirmware, Sentence: fmt.Sprintf("%s starts with UEFI, and there is none for VMs on %s.", c.vm.Name, c.taker.Name),
			Next: "Install it there (on Debian and Ubuntu: sudo apt install ovmf) and try again.", Stops: true, Left: WayNone}
	case c.giver.Firmware != "" && c.taker.Firmware != "" && c.giver.Firmware != c.taker.Firmware:
		// What is loaded comes along, and the variables have one format: from its next start on it has the other one.
		return &Finding{Code: NoFirmware, Sentence: fmt.Sprintf("%s and %s have different versions of the UEFI that %s starts with. It goes on with the one that it has, and takes the other at its next start.",
			c.giver.Name, c.taker.Name, c.vm.Name)}
	}
	return nil
}

func (c check) accel() *Finding {
	if c.giver.Accel == "" || c.taker.Accel == "" || c.giver.Accel == c.taker.Accel {
		return nil
	}
	slow := c.taker
	if c.giver.Accel == "tcg" {
		slow = c.giver
	}
	return &Finding{Code: OtherAccel, Sentence: fmt.Sprintf("%s has to emulate a PC in software and the other device doesn't, so running memory can't move between them.", slow.Name),
		Next: c.restart(), Stops: true, Left: WayRestart}
}

func (c check) cpu() *Finding {
	if len(c.taker.CPUModels) == 0 || slices.Contains(c.taker.CPUModels, c.vm.CPU) {
		return nil
	}
	return &Finding{Code: LackingCPU, Sentence: fmt.Sprintf("The processor of %s lacks something of the one that %s has (%s).", c.taker.Name, c.vm.Name, c.vm.CPU),
		Next: c.restart(), Stops: true, Left: WayRestart}
}

// vendor is no reason not to try: a named CPU model is the same on all makers' processors, but for what nobody should rely on.
func (c check) vendor() *Finding {
	if c.giver.Vendor == "" || c.taker.Vendor == "" || c.giver.Vendor == c.taker.Vendor || c.giver.Accel == "tcg" || c.taker.Accel == "tcg" {
		return nil
	}
	return &Finding{Code: OtherVendor, Sentence: fmt.Sprintf("The processors of %s and %s are of different makers. %s has one that both can be, and is likely to go on.", c.giver.Name, c.taker.Name, c.vm.Name),
		Next: "Save your work in it first."}
}

func (c check) memory() *Finding {
	switch {
	case c.taker.Memory != 0 && c.taker.Memory < c.vm.Memory:
		return &Finding{Code: LittleMemory, Sentence: fmt.Sprintf("%s needs %s of memory, and %s has %s altogether.", c.vm.Name, mib(c.vm.Memory), c.taker.Name, mib(c.taker.Memory)),
			Next: fmt.Sprintf("Shut it down, give it less (tagalong vm set %s --memory), switch it, and start it there.", quote(c.vm.Name)), Stops: true, Left: WayRestart}
	case c.taker.FreeMemory != 0 && c.taker.FreeMemory < c.vm.Memory:
		return &Finding{Code: LittleMemory, Sentence: fmt.Sprintf("There isn't enough free memory on %s: %s needs %s, and there are %s.", c.taker.Name, c.vm.Name, mib(c.vm.Memory), mib(c.taker.FreeMemory)),
			Next:  fmt.Sprintf("Close something there and try again, or bring it suspended (tagalong switch %s --way suspend) and resume it there when there is room.", quote(c.vm.Name)),
			Stops: true, Left: WaySuspend}
	}
	return nil
}

func (c check) disk() *Finding {
	if c.taker.FreeDisk == 0 || c.taker.FreeDisk >= c.vm.Lacking {
		return nil
	}
	// How much of it overwrites what is there already isn't known, and a VM that finds no room stands still without losing anything.
	return &Finding{Code: LittleDisk, Sentence: fmt.Sprintf("The disk of %s may be too full: up to %s of %s are still to come, and there are %s. Without room it stands still there.", c.taker.Name, mib(c.vm.Lacking), c.vm.Name, mib(c.taker.FreeDisk)),
		Next: "Free some space there."}
}

func (c check) attached() *Finding {
	if len(c.vm.Attached) == 0 {
		return nil
	}
	return &Finding{Code: Attached, Sentence: fmt.Sprintf("%s sees a restore point of %s as a disk, and that can't come along.", c.vm.Name, c.giver.Name),
		Next: fmt.Sprintf("Take it away there first: tagalong restore-points close %s", strings.Join(c.vm.Attached, " ")), Stops: true, Left: WayNone}
}

func (c check) bridge() *Finding {
	if !c.vm.Bridged || c.taker.Bridge != "" || c.taker.NoBridge == "" {
		return nil
	}
	return &Finding{Code: NoBridge, Sentence: fmt.Sprintf("%s is on the local network itself, and on %s it can't be (%s): there it is hidden behind %s, and connections to it break.",
		c.vm.Name, c.taker.Name, c.taker.NoBridge, c.taker.Name), Next: "Name a bridge there: tagalong devices bridge NAME"}
}

func (c check) unknown() *Finding {
	var silent []string
	for _, d := range []Device{c.giver, c.taker} {
		if !d.Probed && d.Hypervisor == "" {
			silent = append(silent, d.Name)
		}
	}
	if len(silent) == 0 {
		return nil
	}
	return &Finding{Code: Unknown, Sentence: fmt.Sprintf("What %s can do isn't known yet.", strings.Join(silent, " and "))}
}

func (c check) restart() string {
	q := quote(c.vm.Name)
	return fmt.Sprintf("Shut it down (tagalong vm stop %s), switch it, and start it there (tagalong vm start %s).", q, q)
}

func quote(name string) string { return strconv.Quote(name) }

// mib is a number of bytes as a person reads it.
func mib(n int64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
