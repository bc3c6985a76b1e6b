package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// size is a number of bytes in binary units, with three digits that count.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 0 {
		return "?"
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 999.5 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	digits := 2
	switch {
	case v == math.Trunc(v) || v >= 99.95:
		digits = 0
	case v >= 9.995:
		digits = 1
	}
	return fmt.Sprintf("%.*f %ciB", digits, v, units[u])
}

// parseSize reads "20G", "512M", "1.5T", "4096": binary units, as disks of VMs are counted.
func parseSize(text string) (int64, error) {
	bad := func() error {
		return usage(fmt.Sprintf("%q is not a size.", text), "Write it like 512M, 20G or 1.5T.")
	}
	s := strings.ToUpper(strings.TrimSpace(text))
	s = strings.TrimSuffix(strings.TrimSuffix(s, "IB"), "B")
	unit := int64(1)
	if i := strings.IndexAny(s, "KMGT"); i >= 0 {
		if i != len(s)-1 {
			return 0, bad()
		}
		unit = int64(1) << (10 * (strings.IndexByte("KMGT", s[i]) + 1))
		s = strings.TrimSpace(s[:i])
	}
	if strings.Trim(s, "0123456789.") != "" {
		return 0, bad() // "1e9", "0x10", "Inf"
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v <= 0 || v*float64(unit) < 1 || v*float64(unit) > 1<<60 {
		return 0, bad()
	}
	return int64(v * float64(unit)), nil
}

// span is a length of time as one would say it. Small ones are round trips, where a tenth counts.
func span(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d days", int(d.Hours())/24)
	}
}

// ago is how long before now t was.
func ago(t, now time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "now"
	default:
		return span(d) + " ago"
	}
}

// replicaWords says how a device's replica stands. "Up to date" is only said of a device that has
// said so itself lately.
func replicaWords(r api.Replica, now time.Time) string {
	if r.Silent && r.State != api.ReplicaOwner {
		return silentWords(r, now)
	}
	toGo, pace := "", ""
	if r.Remaining > 0 {
		toGo = ", behind by " + lackWords(r, now)
	}
	if r.Rate > 0 {
		pace = ", " + size(r.Rate) + "/s"
	}
	if r.ETA > 0 {
		pace += ", " + span(r.ETA) + " left"
	}
	heard := ", not heard of yet"
	if !r.Heard.IsZero() {
		heard = ", heard of " + ago(r.Heard, now)
	}
	switch r.State {
	case api.ReplicaOwner:
		return "owner"
	case api.ReplicaLive, api.ReplicaWaiting:
		as := "live"
		if r.State == api.ReplicaWaiting {
			as = "waits for a push"
		}
		switch {
		case toGo != "":
			return as + toGo
		case r.Heard.IsZero():
			return as + heard
		case now.Sub(r.Heard) > api.SilentAfter:
			return "was up to date " + ago(r.Heard, now)
		default:
			return "up to date"
		}
	case api.ReplicaCopying:
		if r.Remaining == 0 {
			return "first copy"
		}
		return "first copy, " + size(r.Remaining) + " to go" + pace
	case api.ReplicaBehind:
		if !r.Overrun.IsZero() {
			return "can't keep up since " + span(max(0, now.Sub(r.Overrun))) + toGo + pace
		}
		return "catching up" + toGo + pace
	case api.ReplicaPushing:
		return "gets a push" + toGo + pace
	case api.ReplicaAway:
		return "away" + toGo + heard
	default:
		return string(r.State)
	}
}

// silentWords says how a replica last stood of which nobody knows how it stands now.
func silentWords(r api.Replica, now time.Time) string {
	then := "unknown; "
	switch {
	case r.Remaining > 0 && r.State == api.ReplicaCopying:
		then += "first copy, " + size(r.Remaining) + " to go "
	case r.State == api.ReplicaCopying:
		then += "first copy "
	case r.Remaining > 0:
		then += "was behind by " + lackWords(r, r.At) + " "
	case r.Heard.IsZero():
		return "unknown"
	default:
		return "was up to date " + ago(r.Heard, now)
	}
	return then + ago(r.At, now)
}

// lackWords says what a replica lacks: at most so much, and nothing older than that.
func lackWords(r api.Replica, now time.Time) string {
	blocks, age := fmt.Sprintf("%d blocks", r.Blocks), "of unknown age"
	if r.Blocks == 1 {
		blocks = "1 block"
	}
	if !r.Since.IsZero() {
		age = span(max(0, now.Sub(r.Since)))
	}
	return fmt.Sprintf("%s (%s, %s)", size(r.Remaining), blocks, age)
}

// deviceCopies says how a device's replicas stand, by the VMs' names.
func deviceCopies(st *api.Status, device string, now time.Time) string {
	var words []string
	for _, vm := range st.VMs {
		for _, r := range vm.Replicas {
			if r.Device == device {
				words = append(words, vm.Name+": "+copyWords(vm, r, now))
			}
		}
	}
	return strings.Join(words, "; ")
}

// deviceWords says whether a device can be reached.
func deviceWords(d api.Device) string {
	switch {
	case d.Removed && d.Wipe:
		return "removed, to be wiped"
	case d.Removed:
		return "removed, not told yet"
	case d.Self:
		return "this device"
	case d.Offline:
		return "works offline"
	case d.Connected:
		return "connected"
	default:
		return "away"
	}
}

// siteWords says where a device is; "" if that isn't known.
func siteWords(st *api.Status, d api.Device) string {
	at := d.Site
	if at == nil || d.Removed {
		return ""
	}
	var others []string
	for _, o := range allDevices(st) {
		if o.ID != d.ID && slices.Contains(at.Devices, o.ID) {
			others = append(others, o.Name)
		}
	}
	words := at.Name
	switch {
	case words != "":
	case at.Here:
		words = "here"
	case len(others) == 0:
		words = "elsewhere"
	default:
		words = "elsewhere, with " + strings.Join(others, " and ")
	}
	if at.Postmaster == d.ID && len(others) > 0 {
		words += " (postmaster)"
	}
	return words
}

// phaseWords names a step of a switch.
func phaseWords(p api.SwitchPhase) string {
	switch p {
	case api.PhasePreflight:
		return "Checking"
	case api.PhaseCatchUp:
		return "Disk"
	case api.PhaseMemory:
		return "Memory"
	case api.PhaseHandOff:
		return "Handing over"
	case api.PhaseSuspend:
		return "Saving its memory"
	case api.PhaseSend:
		return "Its memory, suspended"
	case api.PhaseResume:
		return "Loading its memory"
	case api.PhaseDone:
		return "Done"
	case api.PhaseCancelled:
		return "Cancelled"
	case api.PhaseFailed:
		return "Failed"
	default:
		return string(p)
	}
}

// hypervisorWords is one line about what VMs run with here.
func hypervisorWords(h api.Hypervisor) string {
	if !h.Found {
		return "none found. " + h.Note
	}
	words := strings.TrimSpace("QEMU " + h.Version)
	switch h.Accel {
	case "kvm":
		words += ", with KVM"
	case "tcg":
		words += ", software emulation (slow)"
	}
	if h.Note != "" {
		words += ". " + h.Note
	}
	return words
}
