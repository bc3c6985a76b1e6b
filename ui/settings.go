package ui

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

var settingsSize = fyne.NewSize(480, 320)

// openSettings lets the person change what a VM is called and made of.
func (g *gui) openSettings(id string) {
	vm := g.vm(id)
	if vm == nil {
		return
	}
	was := *vm
	name := widget.NewEntry()
	name.SetText(was.Name)
	name.Validator = func(s string) error {
		if strings.TrimSpace(s) == "" {
			return errors.New(t("create.need-name"))
		}
		return nil
	}
	memory := number(strconv.FormatInt(memoryMiB(was.Spec), 10), minMemoryMiB, maxMemoryMiB)
	cpus := number(strconv.Itoa(was.Spec.CPUs), minCPUs, maxCPUs)
	memoryItem, cpusItem := widget.NewFormItem(t("create.memory"), memory), widget.NewFormItem(t("create.cpus"), cpus)
	if was.State != api.VMStopped {
		memory.Disable()
		cpus.Disable()
		cpusItem.HintText = t("settings.stopped")
	}
	items := []*widget.FormItem{widget.NewFormItem(t("create.name"), name), memoryItem, cpusItem}
	auto, showing := false, widget.NewCheck(t("settings.auto"), nil)
	if g.viewer != nil {
		auto, _ = g.viewer.Auto() // what can't be read is set anew
		showing.SetChecked(auto)
		item := widget.NewFormItem("", showing)
		item.HintText = t("settings.auto.hint")
		items = append(items, item)
	}
	d := dialog.NewForm(t("settings.title", "VM", was.Name), t("settings.go"), t("button.cancel"), items, func(yes bool) {
		if !yes {
			return
		}
		if g.viewer != nil && showing.Checked != auto {
			g.setAuto(showing.Checked)
		}
		// The form lets nothing through that doesn't parse.
		mib, _ := whole(memory.Text, minMemoryMiB, maxMemoryMiB)
		n, _ := whole(cpus.Text, minCPUs, maxCPUs)
		if req, any := changedSettings(&was, strings.TrimSpace(name.Text), mib, int(n)); any {
			g.askFor(id, func(ctx context.Context) error { return g.client.SetVM(ctx, req) })
		}
	}, g.win.win)
	d.Resize(settingsSize)
	g.show()
	d.Show()
	g.win.win.Canvas().Focus(name)
}

// changedSettings asks for what the person has changed; false if that is nothing.
func changedSettings(was *api.VM, name string, memory int64, cpus int) (api.SetVM, bool) {
	req := api.SetVM{VM: was.ID}
	if name != was.Name {
		req.Name = name
	}
	if was.State == api.VMStopped && memory != memoryMiB(was.Spec) {
		req.MemoryMiB = memory
	}
	if was.State == api.VMStopped && cpus != was.Spec.CPUs {
		req.CPUs = cpus
	}
	return req, req != api.SetVM{VM: was.ID}
}

// memoryMiB is the memory that a person asked for; a VM gets up to a MiB less.
func memoryMiB(s api.Spec) int64 { return (s.MemoryKiB + 1023) >> 10 }

func (g *gui) setAuto(auto bool) {
	g.ask(askTime, func(context.Context) error { return g.viewer.SetAuto(auto) }, func(err *api.Error) {
		if err != nil {
			g.state.Notice = err
		}
		g.draw()
	})
}
