package app

import (
	"os"
	"path/filepath"
	"strings"
)

// onBattery says that this device runs on its battery. Where that can't be known it doesn't.
func onBattery() bool { return discharging("/sys/class/power_supply") }

// discharging reads what the kernel says of the power supplies in dir: on battery is who has a battery that discharges, and no mains that is
// connected. Batteries of mice and the like don't count.
func discharging(dir string) bool {
	supplies, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return false
	}
	battery := false
	for _, s := range supplies {
		is := func(file, want string) bool {
			b, err := os.ReadFile(filepath.Join(s, file))
			return err == nil && strings.TrimSpace(string(b)) == want
		}
		switch {
		case is("scope", "Device"):
		case is("online", "1") && !is("type", "Battery"):
			return false
		case is("type", "Battery") && is("status", "Discharging"):
			battery = true
		}
	}
	return battery
}
