package ui

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// diskSet is what is shown of a VM's disks. Why says why they can't be changed now, "" if they can.
type diskSet struct {
	Disks []diskRow
	Why   string
	Add   button
}

// diskRow is one disk.
type diskRow struct {
	ID     string
	Title  string
	First  bool // the one that the VM starts from
	Grow   button
	Remove button // none of the first
}

// maxDisks is how many a VM can have; the engine has the last word.
const maxDisks = 8

// disks are a VM's disks, and what can be done with them.
func (m *index) disks(vm *api.VM) diskSet {
	var s diskSet
	switch {
	case !vm.Here:
		s.Why = t("disks.elsewhere", "Device", vm.OwnerName)
	case vm.State == api.VMSuspended:
		s.Why = t("disks.suspended")
	case vm.State != api.VMStopped:
		s.Why = t("disks.runs")
	}
	ok := s.Why == "" && m.up && !m.asked[vm.ID]
	for i, d := range vm.Spec.Disks() {
		r := diskRow{ID: d.ID, First: i == 0, Title: t("disks.disk", "Name", d.Called(), "Size", size(d.Bytes())),
			Grow: button{Act: act{Verb: verbGrowDisk, ID: vm.ID, Sub: d.ID}, Label: t("button.grow-disk"), Enabled: ok}}
		if i > 0 {
			r.Remove = button{Act: act{Verb: verbRemoveDisk, ID: vm.ID, Sub: d.ID}, Label: t("button.delete"), Enabled: ok}
		}
		s.Disks = append(s.Disks, r)
	}
	s.Add = button{Act: act{Verb: verbAddDisk, ID: vm.ID}, Label: t("button.add-disk"), Enabled: ok && len(s.Disks) < maxDisks}
	return s
}

// disksDialog lists a VM's disks. It follows the view while it is open.
type disksDialog struct {
	g    *gui
	d    dialog.Dialog
	vm   string
	rows diskSet
	why  *widget.Label
	list *fyne.Container
	add  *actButton
}

func (g *gui) openDisks(vm string) {
	if g.disks != nil {
		return
	}
	g.show()
	p := &disksDialog{g: g, vm: vm, list: container.NewVBox(), why: prose("", widget.MediumImportance), add: newActButton(g.do, widget.MediumImportance)}
	d := dialog.NewCustom(t("disks.title", "VM", g.vmName(vm)), t("button.close"),
		container.NewBorder(lines(caption(t("disks.text"), widget.LowImportance), p.why), container.NewHBox(p.add.w), nil, nil, container.NewVScroll(p.list)), g.win.win)
	d.SetOnClosed(func() { g.disks = nil })
	p.d, g.disks = d, p
	p.set(g.view)
	d.Resize(longSize)
	d.Show()
}

func (p *disksDialog) set(v view) {
	var s diskSet
	there := false
	for _, r := range v.VMs {
		if r.ID == p.vm {
			s, there = r.Disks, true
		}
	}
	switch {
	case !there:
		p.d.Hide()
		return
	case reflect.DeepEqual(s, p.rows):
		return
	}
	p.rows = s
	p.why.SetText(s.Why)
	p.why.Hidden = s.Why == ""
	p.add.set(s.Add)
	p.list.RemoveAll()
	for _, r := range s.Disks {
		grow, remove := newActButton(p.g.do, widget.MediumImportance), newActButton(p.g.do, widget.LowImportance)
		grow.set(r.Grow)
		buttons := container.NewHBox(grow.w)
		if r.Remove.Label != "" {
			remove.set(r.Remove)
			buttons.Add(remove.w)
		}
		title := text(r.Title, theme.SizeNameText, widget.MediumImportance, true)
		var what fyne.CanvasObject = container.NewVBox(layout.NewSpacer(), title, layout.NewSpacer())
		if r.First {
			what = lines(title, caption(t("disks.first"), widget.LowImportance))
		}
		p.list.Add(newInlay(container.NewBorder(nil, nil, nil, container.NewCenter(buttons), what)))
	}
}

// disk is a disk of a VM of the last status: what it is called, and its size in bytes; false if it isn't there any more.
func (g *gui) disk(vm, id string) (name string, bytes int64, ok bool) {
	if x := g.vm(vm); x != nil {
		for _, d := range x.Spec.Disks() {
			if d.ID == id {
				return d.Called(), d.Bytes(), true
			}
		}
	}
	return "", 0, false
}

// openAddDisk asks what the new disk shall be.
func (g *gui) openAddDisk(vm string) {
	name, image := widget.NewEntry(), widget.NewEntry()
	name.SetPlaceHolder(t("disks.name.hint"))
	image.SetPlaceHolder(t("create.image.hint"))
	room := number("20", minDiskGiB, maxDiskGiB)
	room.Validator = func(s string) error {
		if strings.TrimSpace(s) == "" && strings.TrimSpace(image.Text) != "" {
			return nil // as large as the image
		}
		_, err := whole(s, minDiskGiB, maxDiskGiB)
		return err
	}
	image.Validator = func(s string) error {
		if s = strings.TrimSpace(s); s != "" && !filepath.IsAbs(s) {
			return errors.New(t("create.need-absolute"))
		}
		return nil
	}
	image.OnChanged = func(string) { _ = room.Validate() } // it is shown at the field
	sized := widget.NewFormItem(t("create.disk"), room)
	sized.HintText = t("disks.size.hint")
	items := []*widget.FormItem{widget.NewFormItem(t("create.name"), name), sized, widget.NewFormItem(t("create.image"), image)}
	d := dialog.NewForm(t("disks.add.title", "VM", g.vmName(vm)), t("button.add"), t("button.cancel"), items, func(yes bool) {
		if !yes {
			return
		}
		req := api.AddDisk{VM: vm, NewDisk: api.NewDisk{Name: strings.TrimSpace(name.Text), Image: strings.TrimSpace(image.Text)}}
		if gib, err := whole(room.Text, minDiskGiB, maxDiskGiB); err == nil {
			req.Bytes = gib << 30
		}
		g.askFor(vm, func(ctx context.Context) error { _, err := g.client.AddDisk(ctx, req); return err })
	}, g.win.win)
	d.Resize(settingsSize)
	d.Show()
	g.win.win.Canvas().Focus(name)
}

// openGrowDisk asks how large a disk shall be.
func (g *gui) openGrowDisk(a act) {
	name, bytes, ok := g.disk(a.ID, a.Sub)
	if !ok {
		return
	}
	least := bytes>>30 + 1
	room := number(strconv.FormatInt(least-1+max(least/2, 10), 10), least, maxDiskGiB)
	item := widget.NewFormItem(t("create.disk"), room)
	item.HintText = t("disks.grow.hint", "Size", size(bytes))
	d := dialog.NewForm(t("disks.grow.title", "Disk", name), t("button.grow-disk"), t("button.cancel"), []*widget.FormItem{item}, func(yes bool) {
		gib, err := whole(room.Text, least, maxDiskGiB)
		if !yes || err != nil {
			return
		}
		g.askFor(a.ID, func(ctx context.Context) error {
			return g.client.GrowDisk(ctx, api.GrowDisk{VM: a.ID, Disk: a.Sub, Bytes: gib << 30})
		})
	}, g.win.win)
	d.Resize(fyne.NewSize(settingsSize.Width, 200))
	d.Show()
	g.win.win.Canvas().Focus(room)
}

// confirmRemoveDisk asks before a disk is gone for good.
func (g *gui) confirmRemoveDisk(a act) {
	name, bytes, ok := g.disk(a.ID, a.Sub)
	if !ok {
		return
	}
	g.openQuestion(t("disks.remove.title", "Disk", name, "VM", g.vmName(a.ID)), paragraphs(t("disks.remove.text", "Size", size(bytes)), t("disks.remove.devices")), shortSize,
		t("button.delete"), false, func() {
			g.askFor(a.ID, func(ctx context.Context) error {
				return g.client.RemoveDisk(ctx, api.RemoveDisk{VM: a.ID, Disk: a.Sub})
			})
		})
}
