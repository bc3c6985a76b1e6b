package ui

import (
	"context"
	"errors"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// stopTime bounds a request that waits for a guest to shut down; the engine gives up before.
const stopTime = 3 * time.Minute

// shutDown asks a VM to shut down. Its buttons don't wait meanwhile: it can still be turned off. If it doesn't heed, the person decides.
func (g *gui) shutDown(vm string) {
	g.state.Notice = nil
	g.draw()
	g.ask(stopTime, func(ctx context.Context) error { return g.client.StopVM(ctx, vm, false) }, func(err *api.Error) {
		switch {
		case err == nil:
		case errors.Is(err, &api.Error{Code: api.CodeUnanswered}):
			g.confirm(t("unanswered.title", "VM", g.vmName(vm)), t("unanswered.text"), t("button.force"), t("button.wait"), func() { g.turnOff(vm) })
		default:
			g.state.Notice = err
		}
		g.draw()
		g.follow.Poke()
	})
}

func (g *gui) turnOff(vm string) {
	g.askFor(vm, func(ctx context.Context) error { return g.client.StopVM(ctx, vm, true) })
}

func (g *gui) confirmForce(vm string) {
	g.confirm(t("force.title", "VM", g.vmName(vm)), t("force.text"), t("button.force"), t("button.cancel"), func() { g.turnOff(vm) })
}

func (g *gui) confirmReset(vm string) {
	g.confirm(t("reset.title", "VM", g.vmName(vm)), t("reset.text"), t("button.reset-now"), t("button.cancel"), func() {
		g.askFor(vm, func(ctx context.Context) error { return g.client.ResetVM(ctx, vm) })
	})
}

// confirm asks a question that fits into a few words.
func (g *gui) confirm(title, text, yes, no string, do func()) {
	size := smallSize
	if len(text) > 180 {
		size = shortSize
	}
	g.openQuestion(title, paragraphs(strings.Split(text, "\n\n")...), size, yes, false, do).no.SetText(no)
}

// confirmRemoveVM says what goes with a VM, and asks.
func (g *gui) confirmRemoveVM(id string) {
	vm := g.vm(id)
	if vm == nil {
		return
	}
	g.openQuestion(t("remove-vm.title", "VM", vm.Name), paragraphs(removalTexts(vm)...), shortSize, t("button.delete"), false, func() {
		g.askFor(id, func(ctx context.Context) error { return g.client.RemoveVM(ctx, id) })
	})
}

// removalTexts are what a person reads before a VM is deleted.
func removalTexts(vm *api.VM) []string {
	texts := []string{t("remove-vm.text", "Size", size(vm.Spec.DiskBytes))}
	if n, all := disksOfSpec(vm.Spec); n > 1 {
		texts = []string{t("remove-vm.disks", "Count", n, "Size", size(all))}
	}
	if vm.State == api.VMSuspended {
		texts = append(texts, t("remove-vm.suspended"))
	}
	if len(vm.RestorePoints) > 0 {
		texts = append(texts, t("remove-vm.points"))
	}
	var away []string
	for _, r := range vm.Replicas {
		if r.State == api.ReplicaAway {
			away = append(away, r.DeviceName)
		}
	}
	if len(away) > 0 {
		texts = append(texts, tn("remove-vm.away", len(away), "Devices", list(away)))
	}
	return texts
}
