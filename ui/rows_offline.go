package ui

import (
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// offlineRow is disconnected mode, or the preparation for it.
type offlineRow struct {
	On    bool // false: only getting ready
	Title string
	Lines []string // of each VM
	Bar   *progress
	Tray  string // the preparation in the tray, without what changes by the second
	Now   button // go without what isn't here yet
	Off   button // back online, or call it off
}

// offline is nil at ordinary times.
func (m *index) offline(now time.Time) *offlineRow {
	o := m.st.Offline
	if !o.On && o.Job == "" {
		return nil
	}
	ok := m.up && !m.asked[offlineID]
	r := &offlineRow{On: o.On, Lines: m.alongLines(now), Off: button{Act: act{Verb: verbOnline, ID: offlineID}, Label: t("button.online"), Enabled: ok}}
	if o.On {
		r.Title = t("offline.on")
		if !o.Since.IsZero() {
			r.Title = t("offline.since", "Ago", ago(o.Since, now))
		}
		if len(o.Unaware) > 0 {
			r.Lines = append(r.Lines, t("offline.unaware", "Devices", strings.Join(o.Unaware, ", ")))
		}
		return r
	}
	r.Title, r.Tray = t("offline.preparing"), t("offline.preparing")
	r.Off.Label = t("button.cancel")
	r.Now = button{Act: act{Verb: verbNow, ID: offlineID}, Label: t("button.now"), Enabled: ok}
	r.Bar = &progress{Title: r.Title, Part: -1, Cancel: r.Off}
	for i := range m.st.Jobs {
		if j := &m.st.Jobs[i]; j.ID == o.Job {
			r.Bar.Part, r.Bar.Detail = flow(j.Bytes, j.Total, j.Rate, j.ETA)
			if j.Total > 0 {
				r.Tray = t("offline.preparing.tray", "Percent", percent(j.Bytes, j.Total)/10*10, "Left", roughly(j.ETA))
			}
		}
	}
	return r
}

// roughly is how long something still takes, so coarse that it seldom changes.
func roughly(d time.Duration) string {
	switch {
	case d <= 0:
		return t("roughly.unknown")
	case d < time.Minute:
		return t("roughly.under")
	case d < 10*time.Minute:
		return tn("roughly.min", int((d+time.Minute-1)/time.Minute))
	case d < time.Hour:
		return tn("roughly.min", int((d+5*time.Minute-1)/(5*time.Minute))*5)
	}
	return tn("roughly.h", int((d+time.Hour-1)/time.Hour))
}

// alongLines say of each VM whether it comes along, and what of it isn't here.
func (m *index) alongLines(now time.Time) []string {
	var lines []string
	for _, v := range m.st.Offline.VMs {
		lines = append(lines, alongLine(v, m.st.Offline.On, now))
	}
	return lines
}

func alongLine(v api.OfflineVM, on bool, now time.Time) string {
	switch {
	case !on && !v.Taken && v.Missing != nil && *v.Missing > 0:
		return t("coming.elsewhere-missing", "VM", v.VMName, "Device", v.OwnerName, "Size", size(*v.Missing))
	case !on && !v.Taken:
		return t("coming.elsewhere", "VM", v.VMName, "Device", v.OwnerName)
	case !on && v.Missing == nil:
		return t("coming.unknown", "VM", v.VMName)
	case !on && *v.Missing > 0:
		return t("coming.missing", "VM", v.VMName, "Size", size(*v.Missing))
	case !on:
		return t("coming.whole", "VM", v.VMName)
	case v.Taken && v.Missing == nil:
		return t("along.unknown", "VM", v.VMName)
	case v.Taken && *v.Missing > 0:
		return t("along.missing", "VM", v.VMName, "Size", size(*v.Missing))
	case v.Taken:
		return t("along.whole", "VM", v.VMName)
	case v.At.IsZero():
		return t("along.copy", "VM", v.VMName, "Device", v.OwnerName)
	}
	return t("along.copy-of", "VM", v.VMName, "Device", v.OwnerName, "Ago", ago(v.At, now))
}

// missingLines say what isn't here yet, for a person who wants to go now.
func missingLines(st *api.Status) []string {
	var lines []string
	for _, v := range st.Offline.VMs {
		switch {
		case !v.Taken && v.Missing != nil && *v.Missing > 0:
			lines = append(lines, t("missing.elsewhere-size", "VM", v.VMName, "Device", v.OwnerName, "Size", size(*v.Missing)))
		case !v.Taken:
			lines = append(lines, t("missing.elsewhere", "VM", v.VMName, "Device", v.OwnerName))
		case v.Missing == nil:
			lines = append(lines, t("missing.unknown", "VM", v.VMName))
		case *v.Missing > 0:
			lines = append(lines, t("missing.size", "VM", v.VMName, "Size", size(*v.Missing)))
		}
	}
	if len(lines) == 0 && len(st.Offline.VMs) == 0 {
		lines = append(lines, t("missing.unknown-all"))
	}
	return lines
}

// toggle turns disconnected mode on or off. A fleet of one has nobody to be without.
func (m *index) toggle(others bool) button {
	switch o := m.st.Offline; {
	case o.On || o.Job != "":
		return button{Act: act{Verb: verbOnline, ID: offlineID}, Label: t("button.offline"), Enabled: m.up && !m.asked[offlineID]}
	case !others || len(m.st.VMs) == 0:
		return button{}
	}
	return button{Act: act{Verb: verbOffline, ID: offlineID}, Label: t("button.offline"), Enabled: m.up && !m.asked[offlineID]}
}
