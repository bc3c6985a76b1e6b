package ui

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/assets"
)

// windowSize is the window's first size; devicesWidth is what the right column gets of it.
var windowSize = fyne.NewSize(760, 560)

const devicesWidth = 262

// mainWindow draws a view. It has no memory but what it shows.
type mainWindow struct {
	win     fyne.Window
	do      doer
	remove  func(deviceRow)
	leave   func(deviceRow)
	line    *widget.Label
	device  *widget.Label
	light   *dot
	create  *widget.Button
	pair    *widget.Button
	banner  *messageBox
	notice  *messageBox
	empty   *messageBox
	offline *offlineBox
	toggle  *toggle
	sync    *syncBox
	vmBox   *fyne.Container
	vms     []*vmCard
	jobBox  *fyne.Container
	jobs    []*progressBox
	devBox  *fyne.Container
	devices []*deviceCard
	alone   *widget.Label
	right   *fyne.Container
}

func newMainWindow(a fyne.App, do doer, remove, leave func(deviceRow)) *mainWindow {
	m := &mainWindow{
		win: a.NewWindow(t("app.title")), do: do, remove: remove, leave: leave,
		offline: newOfflineBox(do), toggle: newToggle(do), sync: newSyncBox(do),
		line:   text("", theme.SizeNameSubHeadingText, widget.MediumImportance, true),
		device: text("", theme.SizeNameCaptionText, widget.LowImportance, false),
		light:  newDot(theme.ColorNameDisabled),
		banner: newMessageBox(do), notice: newMessageBox(do), empty: newMessageBox(do),
		vmBox: container.NewVBox(), jobBox: container.NewVBox(), devBox: container.NewVBox(),
		alone: prose("", widget.LowImportance),
	}
	m.alone.SizeName = theme.SizeNameCaptionText
	m.create = widget.NewButtonWithIcon(t("button.create"), theme.ContentAddIcon(), func() { do(act{Verb: verbCreate}) })
	m.create.Importance = widget.LowImportance
	m.pair = widget.NewButtonWithIcon(t("button.pair"), theme.ContentAddIcon(), func() { do(act{Verb: verbPair}) })
	m.pair.Importance = widget.LowImportance

	icon := canvas.NewImageFromResource(fyne.NewStaticResource("app.svg", assets.AppIcon))
	icon.FillMode = canvas.ImageFillContain
	icon.SetMinSize(fyne.NewSize(44, 44))
	head := container.New(layout.NewCustomPaddedLayout(4, 2, 10, 10),
		container.NewBorder(nil, nil, icon, container.NewHBox(container.NewCenter(m.toggle.w), m.light), lines(m.line, m.device)))

	left := container.NewBorder(heading(t("head.vms"), m.create), nil, nil, nil,
		container.NewVScroll(container.NewVBox(m.banner.panel, m.notice.panel, m.offline.panel, m.vmBox, m.jobBox, m.empty.panel)))
	m.right = container.New(column{devicesWidth}, container.NewBorder(heading(t("head.devices"), m.pair), m.sync.panel, nil, nil,
		container.NewVScroll(container.NewVBox(m.devBox, m.alone))))
	body := container.NewBorder(nil, nil, nil, m.right, left)
	m.win.SetContent(container.NewBorder(head, nil, nil, nil, container.New(layout.NewCustomPaddedLayout(0, 6, 8, 8), body)))
	for _, key := range []fyne.KeyName{fyne.KeyW, fyne.KeyQ} {
		verb := map[fyne.KeyName]verb{fyne.KeyW: verbClose, fyne.KeyQ: verbQuit}[key]
		m.win.Canvas().AddShortcut(&desktop.CustomShortcut{KeyName: key, Modifier: fyne.KeyModifierShortcutDefault},
			func(fyne.Shortcut) { do(act{Verb: verb}) })
	}
	m.win.Resize(windowSize)
	m.win.SetIcon(fyne.NewStaticResource("app.svg", assets.AppIcon))
	return m
}

func heading(title string, side fyne.CanvasObject) fyne.CanvasObject {
	return container.NewBorder(nil, nil, nil, side, text(title, theme.SizeNameText, widget.LowImportance, true))
}

// column gives its content a fixed width.
type column struct{ width float32 }

func (c column) MinSize(objects []fyne.CanvasObject) fyne.Size {
	h := float32(0)
	for _, o := range objects {
		h = max(h, o.MinSize().Height)
	}
	return fyne.NewSize(c.width, h)
}

func (c column) Layout(objects []fyne.CanvasObject, s fyne.Size) {
	for _, o := range objects {
		o.Resize(s)
		o.Move(fyne.NewPos(0, 0))
	}
}

// set draws what changed.
func (m *mainWindow) set(v view) {
	setText(m.line, v.Line)
	if v.Device != "" {
		setText(m.device, t("head.on", "Device", v.Device))
	} else {
		setText(m.device, "")
	}
	m.light.set(moodColor(v.Mood))
	m.banner.set(v.Banner)
	m.notice.set(v.Notice)
	m.empty.set(v.Empty)
	m.offline.set(v.Offline)
	m.toggle.set(v.Toggle, v.Away || v.Offline != nil)
	m.sync.set(v.Sync)
	for _, b := range []*widget.Button{m.create, m.pair} {
		if v.Up && b.Disabled() {
			b.Enable()
		} else if !v.Up && !b.Disabled() {
			b.Disable()
		}
	}
	m.setVMs(v.VMs)
	m.setJobs(v.Jobs)
	m.setDevices(v.Devices)
	setText(m.alone, v.Alone)
	if len(v.Devices) == 0 {
		m.right.Hide()
	} else {
		m.right.Show()
	}
}

// setVMs keeps cards at their places: the engine lists VMs in a fixed order.
func (m *mainWindow) setVMs(rows []vmRow) {
	for len(m.vms) < len(rows) {
		c := newVMCard(m.do)
		m.vms = append(m.vms, c)
		m.vmBox.Add(c.panel)
	}
	for len(m.vms) > len(rows) {
		last := len(m.vms) - 1
		m.vmBox.Remove(m.vms[last].panel)
		m.vms = m.vms[:last]
	}
	for i, r := range rows {
		m.vms[i].set(r)
	}
}

func (m *mainWindow) setJobs(rows []progress) {
	for len(m.jobs) < len(rows) {
		p := newProgressBox(m.do)
		m.jobs = append(m.jobs, p)
		m.jobBox.Add(newPanel(p.box))
	}
	for len(m.jobs) > len(rows) {
		last := len(m.jobs) - 1
		m.jobs[last].set(nil)
		m.jobBox.Remove(m.jobBox.Objects[last])
		m.jobs = m.jobs[:last]
	}
	for i := range rows {
		m.jobs[i].set(&rows[i])
	}
}

func (m *mainWindow) setDevices(rows []deviceRow) {
	for len(m.devices) < len(rows) {
		c := newDeviceCard(m.remove, m.leave)
		m.devices = append(m.devices, c)
		m.devBox.Add(c.panel)
	}
	for len(m.devices) > len(rows) {
		last := len(m.devices) - 1
		m.devBox.Remove(m.devices[last].panel)
		m.devices = m.devices[:last]
	}
	for i, r := range rows {
		m.devices[i].set(r)
	}
}
