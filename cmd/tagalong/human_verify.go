package main

import (
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
)

// restWords say why the background verification doesn't get on.
var restWords = map[string]string{
	api.VerifyRestsBattery: "it rests while this device is on its battery",
	api.VerifyRestsGuests:  "it goes slowly while VMs use their disks",
	api.VerifyRestsAlone:   "it waits until a copy can be compared",
	api.VerifyRestsFailed:  "its last step failed, and is tried again in some minutes",
}

// verifyingWords say how far the background verification of a VM is.
func verifyingWords(v *api.Verifying, now time.Time) string {
	whole := "no whole round yet"
	if !v.Ended.IsZero() {
		whole = "last whole round " + ago(v.Ended, now)
	}
	text := whole
	switch {
	case !v.Began.IsZero():
		text = step{name: "round under way", bytes: v.Done, total: v.Total, rate: v.Rate, left: v.ETA}.words() + "; " + whole
	case !v.Next.IsZero():
		text += ", the next in " + span(max(0, v.Next.Sub(now)))
	}
	if why := restWords[v.Rests]; why != "" {
		text += "; " + why
	}
	return text
}

// damageLines tell what verifications found, the places only if that is asked for.
func damageLines(vm api.VM, now time.Time, places bool) (lines []string) {
	d := vm.Damage
	if d == nil {
		return nil
	}
	switch {
	case d.Open && places:
		lines = append(lines, fmt.Sprintf("Damage was found in %s or its copies, and not all of it could be repaired:", vm.Name))
	case d.Open:
		lines = append(lines, fmt.Sprintf("Damage was found in %s or its copies (%s), and not all of it could be repaired. See it with: tagalong vm show %s", vm.Name, ago(d.At, now), shellWord(vm.Name)))
	case places:
		lines = append(lines, fmt.Sprintf("Damage was found in %s or its copies, and repaired:", vm.Name))
	default:
		lines = append(lines, fmt.Sprintf("Damage was found in %s or its copies (%s), and repaired. See it with: tagalong vm show %s", vm.Name, ago(d.At, now), shellWord(vm.Name)))
	}
	if !places {
		return lines
	}
	for _, f := range d.Found {
		line := fmt.Sprintf("  %s: %s", ago(f.At, now), f.Sentence)
		if f.Next != "" {
			line += " " + f.Next
		}
		lines = append(lines, line)
	}
	if d.More > 0 {
		lines = append(lines, fmt.Sprintf("  Damage was found in further %s.", size(d.More)))
	}
	return lines
}
