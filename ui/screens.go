package ui

import (
	"context"
	"errors"
	"maps"

	"tagalong.org/tagalong/app/api"
)

// Viewer shows the screens of VMs that run on this device. Its methods may be called concurrently.
type Viewer interface {
	// Show shows a VM's screen and returns when it is closed, the VM leaves or stops, or ctx ends.
	Show(ctx context.Context, vm string) error
	// Auto says whether screens are shown by themselves on this device, SetAuto sets it.
	Auto() (bool, error)
	SetAuto(auto bool) error
}

// arrivals are the VMs with a screen that run here now and didn't before: started, resumed, or switched here. Of what already ran when the
// program began, nobody knows whether its screen was closed on purpose.
func arrivals(before, now *api.Status) []string {
	if before == nil {
		return nil
	}
	ran := map[string]bool{}
	for i := range before.VMs {
		ran[before.VMs[i].ID] = runsHere(&before.VMs[i], before.Device.ID)
	}
	var ids []string
	for i := range now.VMs {
		vm := &now.VMs[i]
		if vm.Here && vm.State == api.VMRunning && vm.Screen != "" && !ran[vm.ID] {
			ids = append(ids, vm.ID)
		}
	}
	return ids
}

// runsHere says whether a VM has a screen to be seen on this device, or had it a moment ago.
func runsHere(vm *api.VM, self string) bool {
	switch vm.State {
	case api.VMRunning, api.VMPaused, api.VMStopping:
		return vm.Here
	case api.VMSwitching:
		return vm.Here && (vm.Switch == nil || vm.Switch.To != self)
	}
	return false
}

// showArrivals shows the screens of VMs that have come, if the person wants that.
func (g *gui) showArrivals(ids []string) {
	if g.viewer == nil || len(ids) == 0 {
		return
	}
	auto, err := g.viewer.Auto()
	if err != nil {
		g.log.Warn("What is set about screens can't be read, so none is shown", "error", err)
	}
	for _, id := range ids {
		if auto {
			g.openScreen(id, false)
		}
	}
}

// openScreen shows a VM's screen. That it can't be shown is told whenever the person asked for it, and once when it was to happen by itself.
func (g *gui) openScreen(vm string, asked bool) {
	if g.viewer == nil || g.state.Showing[vm] {
		return
	}
	g.setShowing(vm, true)
	g.draw()
	g.work.Go(func() {
		err := g.viewer.Show(g.ctx, vm)
		if g.ctx.Err() != nil {
			return
		}
		g.onMain(func() {
			g.setShowing(vm, false)
			if err != nil && !errors.Is(err, context.Canceled) {
				e := api.AsError(err)
				g.log.Info("A screen can't be shown", "vm", vm, "code", string(e.Code), "cause", e.Cause)
				if asked || !g.unshown {
					g.state.Notice = e
				}
				g.unshown = true
			}
			g.draw()
		})
	})
}

// setShowing replaces the map, as setAsked does.
func (g *gui) setShowing(vm string, is bool) {
	next := maps.Clone(g.state.Showing)
	if next == nil {
		next = map[string]bool{}
	}
	if is {
		next[vm] = true
	} else {
		delete(next, vm)
	}
	g.state.Showing = next
}
