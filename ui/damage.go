package ui

import (
	"maps"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// What a verification found, in the person's language: made of the outcomes, as the engine's own sentences are English.

// findingText says what is, or was, wrong at a place, and what to do.
func findingText(f *api.VerifyFinding, vm string) string {
	by := map[string][]string{}
	for _, device := range slices.Sorted(maps.Keys(f.Copies)) {
		name := f.Names[device]
		if name == "" {
			name = device
		}
		by[f.Copies[device]] = append(by[f.Copies[device]], name)
	}
	place := t("damage.place", "Size", size(f.Len), "At", size(f.Off))
	var say []string
	switch f.Here {
	case api.VerifyRepaired:
		say = append(say, t("damage.here-repaired", "Place", place))
	case api.VerifyDamaged:
		say = append(say, t("damage.here", "Place", place), t("damage.here.next"))
	}
	told := func(outcome string, text func(devices string) string) {
		if names := by[outcome]; len(names) > 0 {
			say = append(say, text(list(names)))
		}
	}
	told(api.VerifyRepaired, func(d string) string { return t("damage.repaired", "Place", place, "Devices", d) })
	told(api.VerifySent, func(d string) string { return t("damage.sent", "Place", place, "Devices", d) })
	told(api.VerifyStuck, func(d string) string { return t("damage.stuck", "Place", place, "Devices", d) })
	told(api.VerifyUndecided, func(d string) string { return t("damage.undecided", "Place", place, "Devices", d, "VM", vm) })
	told(api.VerifyBetter, func(d string) string { return t("damage.better", "Place", place, "Devices", d, "VM", vm) })
	if len(say) == 0 { // a newer engine's
		say = append(say, f.Sentence)
		if f.Next != "" {
			say = append(say, f.Next)
		}
	}
	return strings.Join(say, " ")
}

// damageNote says what a verification in the background found.
func damageNote(v *api.Verification) note {
	open := openFinding(v)
	if open == nil && v.MoreFindings == 0 {
		return note{t("verified.repaired", "VM", v.VMName), t("verified.repaired.text")}
	}
	n := note{t("verified.open", "VM", v.VMName), t("verified.open.text", "VM", v.VMName)}
	if open != nil {
		n.Text = findingText(open, v.VMName)
	}
	return n
}

// openFinding is the first damage that wasn't repaired, or nil.
func openFinding(v *api.Verification) *api.VerifyFinding {
	for i := range v.Findings {
		if v.Findings[i].Open {
			return &v.Findings[i]
		}
	}
	return nil
}

// verified tells of a verification that found something: what was repaired is worth a look at the drive, too.
func verified(v *api.Verification) progress {
	n := damageNote(v)
	return progress{Title: n.Title, Detail: n.Text, Part: -2, Over: true}
}

// damage shows what is wrong with a VM's disk or its copies as long as it is, unless something worse is shown.
func (m *index) damage(vm *api.VM, r *vmRow) {
	if vm.Damage == nil || !vm.Damage.Open || r.Problem != nil {
		return
	}
	p := &message{Title: t("verified.open", "VM", vm.Name), Text: t("verified.open.text", "VM", vm.Name), Trouble: true}
	for i := range vm.Damage.Found {
		if f := &vm.Damage.Found[i]; f.Open {
			p.Text = findingText(&f.VerifyFinding, vm.Name)
			break
		}
	}
	r.Problem, r.Mood = p, moodTrouble
}

// vmProblem says what is wrong with a VM, in the window's language as far as it has words for it.
func vmProblem(vm *api.VM) *message {
	if vm.Problem.Code == api.CodeDamaged && !vm.Unopened {
		return &message{Title: t("damage.drive", "VM", vm.Name), Text: t("damage.drive.text", "VM", vm.Name), Trouble: true}
	}
	return told(vm.Problem, vm.Problem.Topic, vm.Name, vm.OwnerName, vm.OwnerName)
}

// verifyingText says when a VM's disk was last verified, and how far that is now.
func verifyingText(v *api.Verifying, now time.Time) string {
	whole := t("verifying.never")
	if !v.Ended.IsZero() {
		whole = t("verifying.ended", "Ago", ago(v.Ended, now))
	}
	parts := []string{whole}
	if !v.Began.IsZero() {
		_, far := flow(v.Done, v.Total, v.Rate, v.ETA)
		parts = append(parts, t("verifying.now", "Flow", far))
	}
	switch v.Rests {
	case api.VerifyRestsBattery:
		parts = append(parts, t("verifying.battery"))
	case api.VerifyRestsGuests:
		parts = append(parts, t("verifying.guests"))
	case api.VerifyRestsAlone:
		parts = append(parts, t("verifying.alone"))
	case api.VerifyRestsFailed:
		parts = append(parts, t("verifying.failed"))
	}
	return strings.Join(parts, " · ")
}
