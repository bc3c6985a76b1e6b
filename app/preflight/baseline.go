package preflight

import "slices"

// ladder are the CPU models that a new VM may be given, from the oldest on. Each has all that those before it have. They are named
// after Intel's processors, but others can be them too, if they have the same features.
var ladder = []string{
	"Nehalem", "Westmere", "SandyBridge", "IvyBridge", "Haswell-noTSX", "Broadwell-noTSX", "Skylake-Client-noTSX-IBRS", "Icelake-Server-noTSX",
}

// DefaultCPU is what every PC since 2008 can be.
const DefaultCPU = "Nehalem"

// Baseline is the newest CPU model of the ladder that all devices can be. A device that doesn't say what it can be is taken for the
// oldest. Where everything is emulated nothing is gained by a newer one: what it can do more is only more to emulate.
func Baseline(devices []Device) string {
	best, emulated := len(ladder)-1, true
	for _, d := range devices {
		if d.Probed && d.Hypervisor == "" {
			continue // it runs nothing, and may never do
		}
		emulated = emulated && d.Accel == "tcg"
		for best > 0 && !slices.Contains(d.CPUModels, ladder[best]) {
			best--
		}
	}
	if emulated {
		return DefaultCPU
	}
	return ladder[best]
}

// Cant are the devices that can't be a CPU model wholly: a running VM that has it can't go there.
func Cant(cpu string, devices []Device) []Device {
	var list []Device
	for _, d := range devices {
		if len(d.CPUModels) > 0 && !slices.Contains(d.CPUModels, cpu) {
			list = append(list, d)
		}
	}
	return list
}
