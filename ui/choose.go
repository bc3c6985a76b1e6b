package ui

import (
	"context"
	"strings"

	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// openChoice says what a way out of a conflict does, above all to what isn't chosen, and asks.
func (g *gui) openChoice(a act) {
	vm := g.vm(a.ID)
	if vm == nil || vm.Conflict == nil || len(vm.Conflict.Sides) == 0 {
		return
	}
	sides := vm.Conflict.Sides
	req := api.ResolveConflict{VM: vm.ID, How: a.How, Keep: a.Sub}
	names := make([]string, len(sides))
	chosen := 0
	for i, s := range sides {
		names[i] = sideName(s)
		if s.Branch == a.Sub || a.Sub == "" && s.Here {
			chosen = i
		}
	}
	req.Keep = sides[chosen].Branch

	what := container.New(layout.NewCustomPaddedVBoxLayout(-4))
	explain := func() {
		what.RemoveAll()
		for _, line := range consequences(vm, req.How, req.Keep) {
			what.Add(prose(line, widget.MediumImportance))
		}
	}
	explain()
	box := container.NewVBox()
	if a.How != api.ResolveKeep {
		box.Add(prose(whichText(a.How), widget.MediumImportance))
		which := widget.NewRadioGroup(nil, nil)
		// Two sides of one device have one name.
		for i := range names {
			which.Append(names[i] + strings.Repeat(" ", i))
		}
		which.Required = true
		which.SetSelected(which.Options[chosen])
		which.OnChanged = func(s string) {
			for i, o := range which.Options {
				if o == s {
					req.Keep = sides[i].Branch
				}
			}
			explain()
		}
		box.Add(which)
	}
	var name *widget.Entry
	if a.How == api.ResolveBoth {
		name = widget.NewEntry()
		name.SetPlaceHolder(t("choose.name.hint"))
		box.Add(container.NewVBox(widget.NewLabel(t("choose.name")), name))
	}
	box.Add(what)
	room := longSize
	if a.How == api.ResolveKeep && len(sides) == 2 {
		room = shortSize
	}
	g.openQuestion(choiceTitle(a.How, vm.Name, names[chosen]), container.NewVScroll(box), room, choiceLabel(a.How), false, func() {
		if name != nil {
			req.Name = strings.TrimSpace(name.Text)
		}
		g.askFor(vm.ID, func(ctx context.Context) error { _, err := g.client.Resolve(ctx, req); return err })
	})
}

func whichText(how api.Resolution) string {
	if how == api.ResolveBoth {
		return t("choose.which.both")
	}
	return t("choose.which")
}

func choiceTitle(how api.Resolution, vm, side string) string {
	switch how {
	case api.ResolveBoth:
		return t("choose.title.both", "VM", vm)
	case api.ResolveOpen:
		return t("choose.title.open", "VM", vm)
	case api.ResolveRepair:
		return t("choose.title.repair", "VM", vm)
	}
	return t("choose.title.keep", "VM", vm, "Side", side)
}

func choiceLabel(how api.Resolution) string {
	switch how {
	case api.ResolveBoth:
		return t("button.both")
	case api.ResolveOpen:
		return t("button.open-other")
	case api.ResolveRepair:
		return t("button.repair")
	}
	return t("button.keep")
}

// vm is a VM of the last status, or nil.
func (g *gui) vm(id string) *api.VM {
	if st := g.state.Status; st != nil {
		for i := range st.VMs {
			if st.VMs[i].ID == id {
				return &st.VMs[i]
			}
		}
	}
	return nil
}

// vmName is what a VM is called, or its ID.
func (g *gui) vmName(id string) string {
	if vm := g.vm(id); vm != nil {
		return vm.Name
	}
	return id
}
