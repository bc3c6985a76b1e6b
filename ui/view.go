package ui

import (
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// link is how the window stands to the engine.
type link int

const (
	linkConnecting link = iota // nothing heard yet
	linkStarting               // the engine was started and doesn't answer yet
	linkUp                     // status is current
	linkLost                   // it answered before, and doesn't now
	linkNone                   // it never answered
)

// state is all the facts that a view is made of.
type state struct {
	Link   link
	Status *api.Status // last known; nil before the first
	Err    *api.Error  // why there is no link
	Notice *api.Error  // the last thing the person asked for and didn't get
	// CanShow says that there is something to show screens with, Showing of which VMs it does.
	CanShow bool
	Showing map[string]bool
	Asked   map[string]bool
	// Asked holds the IDs of VMs, jobs and switches with a request that the engine hasn't answered
	// yet: their buttons wait.
}

// mood picks the icon and the colour.
type mood int

const (
	moodIdle mood = iota
	moodBusy
	moodTrouble
	moodOff    // nothing runs
	moodChoice // the person has to choose between two histories
)

// verb is something a person can ask for by a click.
type verb string

const (
	verbSwitch    verb = "switch"
	verbAnyway    verb = "switch-anyway"    // with the pause that the last one would have taken
	verbSuspended verb = "switch-suspended" // suspended for the way
	verbAhead     verb = "switch-ahead"     // ahead of its memory
	verbTeleport  verb = "switch-running"   // while it runs, whatever became of the last attempt
	verbCheck     verb = "check-switch"     // tell what one would be like
	verbSend      verb = "send"             // Sub is the device
	verbCancel    verb = "cancel"
	verbDrop      verb = "drop-job"
	verbStart     verb = "start"
	verbStop      verb = "stop"
	verbForce     verb = "force"
	verbSuspend   verb = "suspend"
	verbResume    verb = "resume"
	verbSync      verb = "sync" // Sub is how many copies a flush waits for
	verbEngine    verb = "engine"
	verbDismiss   verb = "dismiss"
	verbPair      verb = "pair"
	verbCreate    verb = "create"
	verbOpen      verb = "open"
	verbClose     verb = "close"
	verbQuit      verb = "quit"
	verbTake      verb = "take"    // tell what a takeover may cost
	verbChoose    verb = "choose"  // tell what a resolution does
	verbPoints    verb = "points"  // list restore points
	verbLook      verb = "look"    // open one
	verbUnlook    verb = "unlook"  // close it
	verbDelete    verb = "delete"  // delete it
	verbHistory   verb = "history" // draw a VM's
	verbOffline   verb = "offline"
	verbOnline    verb = "online"
	verbNow       verb = "now" // go offline without what isn't here
	verbPause     verb = "pause-sync"
	verbUnpause   verb = "resume-sync"
	verbSyncNow   verb = "sync-now"
	verbRollback  verb = "rollback" // tell what it may cost
	verbScreen    verb = "screen"   // show a VM's screen
	verbReset     verb = "reset"
	verbSettings  verb = "settings"  // of a VM
	verbRemoveVM  verb = "remove-vm" // tell what goes with it
	// of a VM's disks; Sub is the disk
	verbDisks      verb = "disks" // list them
	verbAddDisk    verb = "add-disk"
	verbGrowDisk   verb = "grow-disk"
	verbRemoveDisk verb = "remove-disk"
)

// offlineID stands for disconnected mode among the IDs of things that are asked for.
const offlineID = "offline"

// act is a verb and what it is about.
type act struct {
	Verb verb
	ID   string
	Sub  string         // a part of it: a branch, a restore point; or what to set
	How  api.Resolution // for verbChoose
	// Pause is for how long the VM may stand still, for verbAnyway.
	Pause time.Duration
}

// button is an act with its label. One that isn't enabled says why in Hint.
type button struct {
	Act     act
	Label   string
	Enabled bool
	Hint    string
}

// message is a sentence for the person, the next step, and maybe a button that takes it.
type message struct {
	Title   string
	Text    string
	Trouble bool
	Working bool
	Button  button
}

// progress is a bar. Part is from 0 to 1, or below 0 when nobody knows.
type progress struct {
	Title  string
	Detail string
	Why    string // it takes long; "" where it doesn't
	Part   float64
	Cancel button
	Over   bool // there is nothing to follow any more
}

// vmRow is one VM.
type vmRow struct {
	ID      string
	Name    string
	Where   string // "Running on Laptop"
	Detail  string // what it is made of
	Replica string // how this device's copy stands, when the VM is elsewhere
	Leave   bool   // Replica says which device mustn't be switched off
	// Verified says when its disk was last compared with its copies, and how far that is now; "" where that isn't known.
	Verified string
	Mood     mood
	Here     bool
	Switch   button
	Main     button   // start, resume
	More     []button // the rest
	Bar      *progress
	Problem  *message
	// Ways are what is left after a switch that came to nothing: with the pause that it would have taken, suspended or ahead of its memory, or sent again from here. maxWays at most.
	Ways []button
	// Take is shown in place of Switch: to take over where the owner can't be asked, to roll back where the rest of the disk doesn't come.
	Take      button
	Conflict  *conflictRow
	Points    string // how many restore points, "" for none
	PointList []pointRow
	Disks     diskSet
}

// deviceRow is one device.
type deviceRow struct {
	ID        string
	Name      string
	Self      bool
	Connected bool
	Removed   bool
	CanLeave  bool // this device, in a fleet with others
	State     string
	Owns      []string // VMs
	Copies    []copyRow
}

// copyRow says how a device's replica of one VM stands.
type copyRow struct {
	VM   string
	Text string
	Part float64 // below 0: no bar
	Mood mood
}

// pairRow is the pairing window that is open on this device, or how the last one ended.
type pairRow struct {
	Code    string
	Addrs   string // where this device waits, if it isn't found by itself
	Left    time.Duration
	Peer    string
	Words   []string
	Done    bool
	Problem *message
}

// view is everything that is drawn. Two views that are deeply equal look the same.
type view struct {
	Mood    mood
	Line    string // one line for the tray and the head of the window
	Device  string // this device's name
	Up      bool
	Banner  *message // across the window, above the VMs
	Notice  *message // below it, until dismissed
	Offline *offlineRow
	Toggle  button // of disconnected mode
	Away    bool   // it is on
	Sync    *syncRow
	VMs     []vmRow
	Jobs    []progress
	Empty   *message // instead of VMs
	Devices []deviceRow
	Alone   string // below the devices, when there are no others
	Pairing *pairRow
}

// viewOf turns the facts into what is drawn. It is pure but for the language of its texts.
func viewOf(s state, now time.Time) view {
	v := view{Up: s.Link == linkUp}
	v.Banner = linkMessage(s)
	if s.Notice != nil {
		v.Notice = errorMessage(s.Notice)
		v.Notice.Button = button{Act: act{Verb: verbDismiss}, Label: t("button.dismiss"), Enabled: true}
	}
	st := s.Status
	if st == nil {
		v.Mood = moodOff
		if s.Link == linkNone {
			v.Mood = moodTrouble
		}
		v.Line = v.Banner.Title
		return v
	}
	v.Device = st.Device.Name
	if v.Banner == nil {
		v.Banner = leavingMessage(st.Leaving)
	}
	if v.Banner == nil && st.Problem != nil {
		v.Banner = problemMessage(st.Problem)
	}
	if v.Banner == nil {
		v.Banner = hypervisorMessage(st.Hypervisor)
	}
	m := newIndex(st, s.Asked, v.Up)
	m.canShow, m.showing = s.CanShow, s.Showing
	for i := range st.VMs {
		v.VMs = append(v.VMs, m.vmRow(&st.VMs[i], now))
	}
	for i := range st.Jobs {
		if p, ok := m.job(&st.Jobs[i]); ok {
			v.Jobs = append(v.Jobs, p)
		}
	}
	if len(v.VMs) == 0 && len(v.Jobs) == 0 && v.Up {
		v.Empty = &message{Title: t("empty.vms.title"), Text: t("empty.vms.text"),
			Button: button{Act: act{Verb: verbCreate}, Label: t("button.create"), Enabled: true}}
	}
	v.Offline, v.Away = m.offline(now), st.Offline.On
	v.Devices = m.devices(now)
	v.Sync = m.sync(now)
	v.Toggle = m.toggle(len(v.Devices) > 1)
	if len(v.Devices) < 2 {
		v.Alone = t("empty.devices")
	}
	v.Pairing = pairing(st.Pairing, now)
	v.Mood, v.Line = summary(s, v)
	return v
}

// linkMessage says what is wrong between the window and the engine; nil when nothing is.
func linkMessage(s state) *message {
	again := button{Act: act{Verb: verbEngine}, Label: t("button.engine"), Enabled: true}
	switch s.Link {
	case linkUp:
		return nil
	case linkConnecting:
		return &message{Title: t("link.connecting"), Working: true}
	case linkStarting:
		return &message{Title: t("link.starting"), Text: t("link.starting.text"), Working: true}
	case linkLost:
		return &message{Title: t("link.lost"), Text: t("link.lost.text"), Trouble: true, Button: again}
	}
	m := &message{Title: t("link.none"), Text: t("link.none.text"), Trouble: true, Button: again}
	// "No engine answers" would only say again what the title says.
	if s.Err != nil && s.Err.Code != api.CodeNoEngine {
		m.Text = s.Err.Error()
	}
	return m
}

// leavingMessage says what couldn't be done after this device was removed; nil when nothing is left.
func leavingMessage(l *api.Leaving) *message {
	switch {
	case l == nil:
		return nil
	case l.Wipe:
		return &message{Title: t("leaving.wipe.title", "Device", l.ByName), Text: t("leaving.text", "Cause", l.Cause), Trouble: true}
	}
	return &message{Title: t("leaving.title"), Text: t("leaving.text", "Cause", l.Cause), Trouble: true}
}

func hypervisorMessage(h api.Hypervisor) *message {
	switch {
	case !h.Found:
		m := &message{Title: t("hypervisor.none"), Text: h.Note, Trouble: true}
		if m.Text == "" {
			m.Text = t("hypervisor.none.text")
		}
		return m
	case h.Note != "":
		return &message{Title: h.Note}
	}
	return nil
}

// problemMessage says what is wrong with this device as a whole.
func problemMessage(e *api.Error) *message {
	if e.Code == api.CodeSpace {
		return &message{Title: t("full.title"), Text: t("full.text"), Trouble: true}
	}
	return errorMessage(e)
}

func errorMessage(e *api.Error) *message {
	return &message{Title: e.Sentence, Text: e.Next, Trouble: true}
}

// summary is the mood and the one line that stand for the whole.
func summary(s state, v view) (mood, string) {
	if s.Link != linkUp {
		if s.Link == linkLost || s.Link == linkNone {
			return moodTrouble, v.Banner.Title
		}
		return moodBusy, v.Banner.Title
	}
	for _, r := range v.VMs {
		if r.Problem != nil {
			return moodTrouble, t("line.problem", "VM", r.Name)
		}
	}
	for _, r := range v.VMs {
		if r.Conflict != nil {
			return moodChoice, t("line.conflict", "VM", r.Name)
		}
	}
	for _, r := range v.VMs {
		if r.Bar != nil {
			return moodBusy, r.Bar.Title
		}
	}
	if v.Offline != nil && !v.Offline.On {
		return moodBusy, v.Offline.Tray
	}
	for _, j := range v.Jobs {
		if !j.Over {
			return moodBusy, j.Title
		}
	}
	if v.Banner != nil && v.Banner.Trouble {
		return moodTrouble, v.Banner.Title
	}
	m, line := quiet(v.VMs)
	if v.Away {
		line = t("line.offline", "Line", line)
	}
	return m, line
}

// quiet is the summary when nothing is out of the ordinary.
func quiet(rows []vmRow) (mood, string) {
	switch here := countHere(rows); {
	case len(rows) == 0:
		return moodOff, t("line.none")
	case len(rows) == 1:
		return moodIdle, t("line.one", "VM", rows[0].Name, "Where", rows[0].Where)
	case here == len(rows):
		return moodIdle, t("line.all-here", "Count", here)
	default:
		return moodIdle, tn("line.many", here, "Elsewhere", len(rows)-here)
	}
}

func countHere(rows []vmRow) int {
	n := 0
	for _, r := range rows {
		if r.Here {
			n++
		}
	}
	return n
}

// pairing leaves the seconds out when less than a minute is not at stake, so that the view of a
// finished pairing stays equal to itself.
func pairing(p *api.Pairing, now time.Time) *pairRow {
	if p == nil {
		return nil
	}
	r := &pairRow{Code: p.Code, Words: p.Words, Done: p.Done}
	if p.Peer != nil {
		r.Peer = p.Peer.Name
	}
	if p.Error != nil {
		r.Problem = errorMessage(p.Error)
	}
	if !p.Done {
		r.Addrs = strings.Join(p.Addrs, t("list.or"))
	}
	if left := p.Expires.Sub(now); !p.Done && left > 0 {
		r.Left = left.Round(time.Second)
	}
	return r
}
