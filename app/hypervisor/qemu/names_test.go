package qemu

import (
	"errors"
	"testing"

	"tagalong.org/tagalong/app/hypervisor"
)

// What a VM's record says comes from another device: it names a machine and a processor, and nothing else of QEMU's command line.
func TestNamesAreNoOptions(t *testing.T) {
	for name, change := range map[string]func(c *hypervisor.Config){
		"a machine with a file to write": func(c *hypervisor.Config) { c.Machine += ",dumpdtb=/tmp/x" },
		"another machine":                func(c *hypervisor.Config) { c.Machine = "none" },
		"no machine":                     func(c *hypervisor.Config) { c.Machine = "" },
		"a processor with options":       func(c *hypervisor.Config) { c.CPU += ",enforce=off" },
		"a question in place of one":     func(c *hypervisor.Config) { c.CPU = "?" },
		"no processor":                   func(c *hypervisor.Config) { c.CPU = "" },
		"a VM without processors":        func(c *hypervisor.Config) { c.CPUs = 0 },
		"a VM without memory":            func(c *hypervisor.Config) { c.MemoryKiB = -1 },
		"a name that ends a line":        func(c *hypervisor.Config) { c.Name = "a\x00b" },
	} {
		for _, hardware := range []int{1, 2} {
			c := desktop(hardware, "")
			change(&c)
			if _, err := argv(c, host{accel: "tcg"}, false); !errors.Is(err, hypervisor.ErrHardware) {
				t.Errorf("%s, generation %d: %v", name, hardware, err)
			}
		}
	}
	for _, machine := range []string{DefaultMachine, UEFIMachine, "pc-i440fx-10.0"} {
		for _, cpu := range []string{DefaultCPU, "qemu64", "Westmere", "Skylake-Client-v3", "EPYC-Rome", "486", "x86-64-v3", "host", "max", "core2duo", "Nehalem-IBRS"} {
			c := desktop(2, "")
			c.Machine, c.CPU = machine, cpu
			if _, err := argv(c, host{accel: "tcg"}, false); err != nil {
				t.Errorf("%s, %s: %v", machine, cpu, err)
			}
		}
	}
}
