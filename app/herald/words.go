package herald

import (
	"fmt"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// Text says the news in English, for logs and scripts: one sentence or two.
func Text(n api.SyncNews) string {
	device, vms := n.DeviceName, names(n.VMs)
	if n.Self {
		device = "This device"
	}
	left := fmt.Sprintf("%.1f GiB", float64(n.Remaining)/(1<<30))
	if n.Remaining < 1<<30 {
		left = fmt.Sprintf("%d MiB", (n.Remaining+1<<20-1)>>20)
	}
	if n.ETA > 0 {
		left += ", about " + n.ETA.Round(max(time.Second, n.ETA.Round(time.Second)/10)).String()
	}
	switch {
	case n.Kind == api.SyncWaits && len(n.From) > 0:
		return fmt.Sprintf("%s waits for %s, which can't be reached: what it needs is nowhere else.", vms, join(n.From))
	case n.Kind == api.SyncWaits:
		return vms + " waits: what it needs is on no device that can be reached."
	case n.Kind == api.SyncStay && n.Remaining == 0:
		return fmt.Sprintf("%s still needs %s from this device: leave it on.", device, vms)
	case n.Kind == api.SyncStay:
		return fmt.Sprintf("%s still needs %s of %s from this device: leave it on.", device, left, vms)
	case n.Kind == api.SyncLeave && n.Remaining > 0:
		return fmt.Sprintf("%s needs nothing of %s from this device any more, but other VMs do: leave it on.", device, vms)
	case n.Kind == api.SyncLeave && n.Hydration:
		return fmt.Sprintf("%s has the rest of %s from other devices too: this one isn't needed for it any more, and may be switched off.", device, vms)
	case n.Kind == api.SyncLeave:
		return fmt.Sprintf("%s has all of %s now: this device isn't needed for it any more, and may be switched off.", device, vms)
	case n.Hydration && n.Kind == api.SyncDone && len(n.From) > 0:
		return fmt.Sprintf("All of %s is on %s now: %s can be switched off.", vms, n.DeviceName, join(n.From))
	case n.Hydration && n.Kind == api.SyncDone:
		return fmt.Sprintf("All of %s is on %s now.", vms, n.DeviceName)
	case n.Hydration && n.Kind == api.SyncHalf:
		return fmt.Sprintf("Half of what %s still needed is on %s now; %s to go.", vms, n.DeviceName, left)
	case n.Hydration && len(n.From) > 0:
		return fmt.Sprintf("%s runs, and gets the rest from %s: %s to go.", vms, join(n.From), left)
	case n.Hydration:
		return fmt.Sprintf("%s runs, and gets the rest: %s to go.", vms, left)
	case n.Kind == api.SyncBegun:
		return fmt.Sprintf("%s is getting %s: %s to go.", device, vms, left)
	case n.Kind == api.SyncHalf:
		return fmt.Sprintf("%s has half of %s; %s to go.", device, vms, left)
	case n.Kind == api.SyncBehind:
		return fmt.Sprintf("%s can't keep up with %s: %s behind.", device, vms, left)
	case n.Lag:
		return fmt.Sprintf("%s has caught up with %s.", device, vms)
	}
	return fmt.Sprintf("%s has got all of %s.", device, vms)
}

func names(vms []api.SyncVM) string {
	list := make([]string, len(vms))
	for i, vm := range vms {
		list[i] = vm.Name
	}
	return join(list)
}

// join lists names as one says them.
func join(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}
