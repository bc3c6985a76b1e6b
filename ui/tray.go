package ui

import (
	"slices"
	"time"

	"fyne.io/fyne/v2"

	"tagalong.org/tagalong/assets"
)

// trayGap is the least time between two changes of the tray: some hosts blink or leak at each.
const trayGap = time.Second

// trayMax bounds how many VMs and how many devices the menu lists; the window has them all.
const trayMax = 8

// trayItem is one line of the menu. One without a label is a separator.
type trayItem struct {
	Label   string
	Act     act
	Enabled bool
	Checked bool
}

// trayItems is the menu of a view. It has no figures that change by the second: a menu that is
// rebuilt under the pointer can't be clicked.
func trayItems(v view) []trayItem {
	items := []trayItem{{Label: v.Line}}
	gap := func() { items = append(items, trayItem{}) }
	for i, r := range v.VMs {
		if i == 0 {
			gap()
		}
		if i == trayMax {
			items = append(items, trayItem{Label: t("tray.more"), Act: act{Verb: verbOpen}, Enabled: true})
			break
		}
		items = append(items, trayItem{Label: t("tray.vm", "VM", r.Name, "Where", r.Where)})
		if r.Bar != nil && r.Bar.Cancel.Label != "" {
			items = append(items, trayItem{Label: t("tray.cancel"), Act: r.Bar.Cancel.Act, Enabled: r.Bar.Cancel.Enabled})
			continue
		}
		if r.Conflict != nil {
			items = append(items, trayItem{Label: t("tray.choose"), Act: act{Verb: verbOpen}, Enabled: true})
			continue
		}
		items = append(items, trayItem{Label: r.Switch.Label, Act: r.Switch.Act, Enabled: r.Switch.Enabled})
		if r.Take.Label != "" {
			items = append(items, trayItem{Label: r.Take.Label, Act: r.Take.Act, Enabled: r.Take.Enabled})
		}
		if r.Here && r.Main.Label != "" {
			items = append(items, trayItem{Label: r.Main.Label, Act: r.Main.Act, Enabled: r.Main.Enabled})
		}
	}
	others := slices.DeleteFunc(slices.Clone(v.Devices), func(d deviceRow) bool { return d.Self })
	if len(others) > 0 {
		gap()
		items = append(items, trayItem{Label: t("tray.devices")})
	}
	for i, d := range others {
		if i == trayMax {
			items = append(items, trayItem{Label: t("tray.more"), Act: act{Verb: verbOpen}, Enabled: true})
			break
		}
		items = append(items, trayItem{Label: t("tray.device", "Device", d.Name, "State", trayDevice(d))})
	}
	if journey := trayJourney(v); len(journey) > 0 {
		gap()
		items = append(items, journey...)
	}
	if sync := traySync(v); len(sync) > 0 {
		gap()
		items = append(items, sync...)
	}
	gap()
	if b := bannerButton(v); b.Label != "" {
		items = append(items, trayItem{Label: b.Label, Act: b.Act, Enabled: b.Enabled})
	}
	return append(items,
		trayItem{Label: t("tray.open"), Act: act{Verb: verbOpen}, Enabled: true},
		trayItem{Label: t("tray.quit"), Act: act{Verb: verbQuit}, Enabled: true})
}

// trayJourney is the toggle of disconnected mode, and the preparation while there is one.
func trayJourney(v view) []trayItem {
	o := v.Offline
	switch {
	case v.Toggle.Label == "":
		return nil
	case o == nil || o.On:
		return []trayItem{{Label: v.Toggle.Label, Act: v.Toggle.Act, Enabled: v.Toggle.Enabled, Checked: v.Away}}
	}
	return []trayItem{{Label: o.Tray}, {Label: o.Now.Label, Act: o.Now.Act, Enabled: o.Now.Enabled},
		{Label: t("tray.stay"), Act: o.Off.Act, Enabled: o.Off.Enabled}}
}

func bannerButton(v view) button {
	if v.Banner == nil {
		return button{}
	}
	return v.Banner.Button
}

// trayDevice says how far a device is, without what changes by the second.
func trayDevice(d deviceRow) string {
	switch {
	case d.Removed:
		return d.State
	case !d.Connected:
		return t("tray.away")
	}
	state := moodIdle
	for _, c := range d.Copies {
		if c.Mood == moodBusy {
			state = moodBusy
		} else if c.Mood != moodIdle && state == moodIdle {
			state = c.Mood
		}
	}
	switch {
	case len(d.Copies) == 0:
		return t("device.connected")
	case state == moodBusy:
		return t("tray.catching")
	case state == moodIdle:
		return t("copy.live")
	}
	return t("device.connected")
}

// trayHost is what Fyne's desktop driver offers for the tray.
type trayHost interface {
	SetSystemTrayMenu(menu *fyne.Menu)
	SetSystemTrayIcon(icon fyne.Resource)
}

// tray keeps the menu and the icon as a view wants them, changing them no more often than trayGap.
type tray struct {
	host   trayHost
	do     doer
	onMain func(func())
	now    func() time.Time

	want      []trayItem
	wantIcon  string
	shown     []trayItem
	shownIcon string
	ever      bool
	last      time.Time
	timer     *time.Timer // set while a change waits for its time
	closed    bool
}

func newTray(host trayHost, do doer, onMain func(func()), now func() time.Time) *tray {
	return &tray{host: host, do: do, onMain: onMain, now: now}
}

func (tr *tray) set(v view) {
	tr.want, tr.wantIcon = trayItems(v), trayIconName(v)
	if tr.timer != nil || tr.closed {
		return
	}
	if wait := trayGap - tr.now().Sub(tr.last); tr.ever && wait > 0 {
		tr.timer = time.AfterFunc(wait, func() { tr.onMain(tr.late) })
		return
	}
	tr.show()
}

func (tr *tray) late() {
	tr.timer = nil
	if !tr.closed {
		tr.show()
	}
}

func (tr *tray) show() {
	if !tr.ever || tr.shownIcon != tr.wantIcon {
		tr.host.SetSystemTrayIcon(trayIcon(tr.wantIcon))
		tr.shownIcon, tr.last = tr.wantIcon, tr.now()
	}
	if !tr.ever || !slices.Equal(tr.shown, tr.want) {
		tr.host.SetSystemTrayMenu(tr.menu(tr.want))
		tr.shown, tr.last = tr.want, tr.now()
	}
	tr.ever = true
}

// close stops a change that waits. Nothing changes afterwards.
func (tr *tray) close() {
	tr.closed = true
	if tr.timer != nil {
		tr.timer.Stop()
	}
}

func (tr *tray) menu(items []trayItem) *fyne.Menu {
	m := fyne.NewMenu(t("app.title"))
	for _, it := range items {
		if it.Label == "" {
			m.Items = append(m.Items, fyne.NewMenuItemSeparator())
			continue
		}
		mi := fyne.NewMenuItem(it.Label, nil)
		mi.Disabled, mi.Checked = !it.Enabled, it.Checked
		if it.Enabled {
			mi.Action = func() { tr.do(it.Act) }
		}
		// Fyne adds a Quit of its own to a menu that has none.
		mi.IsQuit = it.Act.Verb == verbQuit
		m.Items = append(m.Items, mi)
	}
	return m
}

// trayIconName picks the icon: what needs the person first, then what goes on, then how things are.
func trayIconName(v view) string {
	switch v.Mood {
	case moodChoice:
		return "tray-choice.png"
	case moodTrouble:
		return "tray-trouble.png"
	case moodBusy:
		return "tray-busy.png"
	}
	if v.Away {
		return "tray-offline.png"
	}
	return "tray-idle.png"
}

func trayIcon(name string) fyne.Resource {
	return fyne.NewStaticResource(name, map[string][]byte{"tray-choice.png": assets.TrayChoice, "tray-trouble.png": assets.TrayTrouble,
		"tray-busy.png": assets.TrayBusy, "tray-offline.png": assets.TrayOffline, "tray-idle.png": assets.TrayIdle}[name])
}
