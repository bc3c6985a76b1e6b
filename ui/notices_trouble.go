package ui

import (
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// troubleRest is the least time between two notifications of the same trouble: a link that comes and goes makes it one.
const troubleRest = 10 * time.Minute

// trouble is a notification of something that needs the person. about is the same for what is one thing.
type trouble struct {
	about string
	note  note
}

// troubles are what began to need the person between two statuses: a VM that stands still, or is about to for want of a second copy, a full
// disk. What began before the first status isn't told: the window shows it.
func troubles(before, after *api.Status) []trouble {
	if before == nil || after == nil {
		return nil
	}
	var all []trouble
	if after.Problem != nil && before.Problem == nil {
		m := problemMessage(after.Problem)
		all = append(all, trouble{"device", note{m.Title, m.Text}})
	}
	was := map[string]*api.VM{}
	for i := range before.VMs {
		was[before.VMs[i].ID] = &before.VMs[i]
	}
	for i := range after.VMs {
		vm := &after.VMs[i]
		then := was[vm.ID]
		switch {
		case then == nil:
		case wantsSecond(vm):
			if !wantsSecond(then) {
				all = append(all, trouble{"second " + vm.ID, note{t("notice.second.title", "VM", vm.Name), t("notice.second.text", "VM", vm.Name)}})
			}
		case vm.Problem != nil && then.Problem == nil:
			about := "vm " + vm.ID
			if vm.Problem.Code == api.CodeSpace {
				about = "space" // one full disk stops them all
			}
			m := vmProblem(vm)
			n := note{t("line.problem", "VM", vm.Name), strings.TrimSpace(m.Title + " " + m.Text)}
			if vm.Problem.Code == api.CodeDamaged {
				n = note{m.Title, m.Text}
			}
			all = append(all, trouble{about, n})
		}
	}
	return all
}

// wantsSecond says that a VM waits for a second copy, or stands still for want of it.
func wantsSecond(vm *api.VM) bool {
	return vm.Second != nil && (vm.Second.State == api.SecondWaiting || vm.Second.State == api.SecondPaused)
}
