package ui

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// What the form offers; the engine has the last word on what it takes.
const (
	minDiskGiB, maxDiskGiB     = 1, 1 << 20
	minMemoryMiB, maxMemoryMiB = 64, 1 << 21
	minCPUs, maxCPUs           = 1, 255
)

var createSize = fyne.NewSize(480, 360)

// openCreate asks what the new VM shall be made of.
func (g *gui) openCreate() {
	name := widget.NewEntry()
	name.Validator = func(s string) error {
		if strings.TrimSpace(s) == "" {
			return errors.New(t("create.need-name"))
		}
		return nil
	}
	disk := number("20", minDiskGiB, maxDiskGiB)
	memory := number("2048", minMemoryMiB, maxMemoryMiB)
	cpus := number("2", minCPUs, maxCPUs)
	image := widget.NewEntry()
	image.SetPlaceHolder(t("create.image.hint"))
	image.Validator = func(s string) error {
		if s = strings.TrimSpace(s); s != "" && !filepath.IsAbs(s) {
			return errors.New(t("create.need-absolute"))
		}
		return nil
	}
	items := []*widget.FormItem{
		widget.NewFormItem(t("create.name"), name), widget.NewFormItem(t("create.memory"), memory),
		widget.NewFormItem(t("create.cpus"), cpus), widget.NewFormItem(t("create.disk"), disk),
		widget.NewFormItem(t("create.image"), image),
	}
	d := dialog.NewForm(t("create.title"), t("create.go"), t("button.cancel"), items, func(yes bool) {
		if !yes {
			return
		}
		req := api.CreateVM{Name: strings.TrimSpace(name.Text), Image: strings.TrimSpace(image.Text), Screen: true, Network: true}
		// The form lets nothing through that doesn't parse.
		gib, _ := whole(disk.Text, minDiskGiB, maxDiskGiB)
		req.DiskBytes = gib << 30
		req.MemoryMiB, _ = whole(memory.Text, minMemoryMiB, maxMemoryMiB)
		n, _ := whole(cpus.Text, minCPUs, maxCPUs)
		req.CPUs = int(n)
		g.askFor("create", func(ctx context.Context) error { _, err := g.client.CreateVM(ctx, req); return err })
	}, g.win.win)
	d.Resize(createSize)
	d.Show()
	g.win.win.Canvas().Focus(name)
}

// number is a field for a whole number.
func number(first string, least, most int64) *widget.Entry {
	e := widget.NewEntry()
	e.SetText(first)
	e.Validator = func(s string) error {
		_, err := whole(s, least, most)
		return err
	}
	return e
}

func whole(s string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < least || n > most {
		return 0, errors.New(t("create.number", "Min", least, "Max", most))
	}
	return n, nil
}
