package app

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/holders"
	"tagalong.org/tagalong/vmdisk"
)

// hydration is how far the disk is from being whole; nil if it is, or isn't this device's to make so.
func (v *vm) hydration() *api.Hydration {
	v.mu.Lock()
	disk, run := v.disk, v.hydrate
	owner := v.ownerLocked()
	v.mu.Unlock()
	if disk == nil || !owner {
		return nil
	}
	p, lacks := disk.Hydration()
	if !lacks {
		return nil
	}
	h := &api.Hydration{
		Total: p.Total, Remaining: p.Left, Fetched: p.Fetched, Rate: int64(p.Rate), ETA: p.Remaining, Reads: p.Waiting,
		Since: api.Position(disk.Info().Before), From: v.hydrationFrom(disk, run),
	}
	h.Waiting = run == nil || run.Waiting()
	if run == nil {
		return h
	}
	s := run.Survey()
	h.Nobodys = s.Nobodys
	if s.Held == s.Left && s.Nobodys < s.Left {
		if a := v.e.limits.Allowance(v.id); !a.May {
			h.Paused = a.Sentence(time.Now())
		}
	}
	return h
}

// pulls says that the rest of the disk comes here, or would if it were allowed.
func (v *vm) pulls() bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	run := v.hydrate
	v.mu.Unlock()
	return run != nil && !run.Waiting()
}

// hydrationFrom are those that have what is lacking, and those that answer.
func (v *vm) hydrationFrom(disk *vmdisk.Store, run *hydrateRun) []api.HydrationHolder {
	from := map[string]api.HydrationHolder{}
	whole := holders.Whole(disk)
	for _, device := range whole {
		from[device] = api.HydrationHolder{Device: device, Needed: len(whole) == 1}
	}
	if run != nil {
		survey := run.Survey()
		some := survey.Nobodys < survey.Left // somebody who is there has some of it
		for _, h := range run.Holders() {
			f, has := from[h.Name]
			if !has && h.Fetched == 0 && !(h.Connected && some) {
				continue
			}
			f.Device, f.Connected, f.Rate, f.Fetched = h.Name, h.Connected, int64(h.Rate), h.Fetched
			f.Needed = f.Needed || len(whole) == 0 && h.Connected
			from[h.Name] = f
		}
		for _, device := range survey.Helpers {
			f := from[device]
			f.Device, f.Helps = device, true
			from[device] = f
		}
	}
	out := slices.Collect(maps.Values(from))
	for i := range out {
		out[i].DeviceName = v.e.deviceName(out[i].Device)
	}
	slices.SortFunc(out, func(a, b api.HydrationHolder) int { return strings.Compare(a.DeviceName, b.DeviceName) })
	return out
}

// waitsText says that the VM waits for one of the devices.
func (v *vm) waitsText(could []string) string {
	names := make([]string, 0, len(could))
	for _, device := range could {
		names = append(names, v.e.deviceName(device))
	}
	slices.Sort(names)
	text := fmt.Sprintf("%s waits for what isn't on this device yet", v.name())
	if h := v.hydration(); h != nil && h.Nobodys > 0 {
		text += fmt.Sprintf(": %s that no device has that can be reached now", sayBytes(h.Nobodys))
	}
	if len(names) > 0 {
		return text + fmt.Sprintf(". It is on %s: bring it back, or roll back (tagalong vm rollback).", strings.Join(names, " and on "))
	}
	return text + "."
}

// couldHelp are the devices that have what nobody has who is there.
func (v *vm) couldHelp() []string {
	v.mu.Lock()
	run := v.hydrate
	v.mu.Unlock()
	if run == nil {
		return holders.Whole(v.currentDisk())
	}
	return run.Survey().Helpers
}

// wholeFirst refuses what needs all of the disk and of the memory here.
func (v *vm) wholeFirst() error {
	if err := v.memoryFirst(); err != nil {
		return err
	}
	h := v.hydration()
	if h == nil {
		return nil
	}
	next := "Wait until it is: tagalong status shows how far it is."
	if h.Waiting {
		next = v.waitsText(v.couldHelp())
	}
	return &api.Error{Code: api.CodeBusy, Sentence: fmt.Sprintf("Not all of %s is on this device yet: %s are still on their way.", v.name(), sayBytes(h.Remaining)), Next: next}
}
