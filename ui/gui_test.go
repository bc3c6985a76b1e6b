package ui

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/test"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// bench is a gui whose Fyne goroutine is the test's own.
type bench struct {
	*gui
	t      *testing.T
	engine *fakeEngine
	queue  chan func()
	quits  int
	now    time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, engine: newFakeEngine(sample(testNow)), queue: make(chan func(), 100), now: testNow}
	a := test.NewTempApp(t)
	a.Settings().SetTheme(newLook())
	g := &gui{ctx: t.Context(), client: b.engine, log: slog.New(slog.DiscardHandler), app: a, there: trayShown}
	g.now = func() time.Time { return b.now }
	g.onMain = func(f func()) { b.queue <- f }
	g.quit = func() { b.quits++ }
	g.follow = newFollower(b.engine, nil, g.log, func(news) {})
	g.win = newMainWindow(a, g.do, g.confirmRemove, g.confirmLeave)
	b.gui = g
	t.Cleanup(func() {
		g.work.Wait()
		g.win.win.Close()
	})
	b.up()
	return b
}

// up brings the gui what the engine says now.
func (b *bench) up() {
	st, err := b.engine.Status(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	b.hear(news{Link: linkUp, Status: st})
}

// turn runs the next thing that waits for Fyne's goroutine.
func (b *bench) turn() {
	b.t.Helper()
	select {
	case f := <-b.queue:
		f()
	case <-time.After(patience):
		b.t.Fatal("nothing to do")
	}
}

// shownText is every text that the window and its dialogs show.
func (b *bench) shownText() string {
	var all []string
	for _, o := range b.everything() {
		switch w := o.(type) {
		case *widget.Label:
			all = append(all, w.Text)
		case *widget.Button:
			all = append(all, w.Text)
		}
	}
	return strings.Join(all, "\n")
}

// everything lists the visible objects, those of dialogs first, from the top one down.
func (b *bench) everything() []fyne.CanvasObject {
	var all []fyne.CanvasObject
	var walk func(fyne.CanvasObject)
	walk = func(o fyne.CanvasObject) {
		if o == nil || !o.Visible() {
			return
		}
		all = append(all, o)
		switch w := o.(type) {
		case *fyne.Container:
			for _, c := range w.Objects {
				walk(c)
			}
		case *container.Scroll:
			walk(w.Content)
		case fyne.Widget:
			for _, c := range test.WidgetRenderer(w).Objects() {
				walk(c)
			}
		}
	}
	cv := b.win.win.Canvas()
	for _, o := range slices.Backward(cv.Overlays().List()) {
		walk(o)
	}
	walk(cv.Content())
	return all
}

// tap presses the first visible button of that label.
func (b *bench) tap(label string) {
	b.t.Helper()
	for _, o := range b.everything() {
		if w, ok := o.(*widget.Button); ok && w.Text == label {
			if w.Disabled() {
				b.t.Fatalf("%s can't be pressed", label)
			}
			test.Tap(w)
			return
		}
	}
	b.t.Fatalf("no button %q in:\n%s", label, b.shownText())
}

// entries are the visible fields, from the top.
func (b *bench) entries() []*widget.Entry {
	var found []*widget.Entry
	for _, o := range b.everything() {
		if e, ok := o.(*widget.Entry); ok {
			found = append(found, e)
		}
	}
	return found
}

func (b *bench) see(want ...string) {
	b.t.Helper()
	all := b.shownText()
	for _, w := range want {
		if !strings.Contains(all, w) {
			b.t.Errorf("%q isn't shown in:\n%s", w, all)
		}
	}
}

func TestWindowSwitch(t *testing.T) {
	b := newBench(t)
	b.see("Work", "Running on Laptop", "Desk", "Attic")
	b.tap("Switch to this machine")
	next(t, b.engine, `switch w to ""`)
	b.see("Asking for Work…")
	if !b.win.vms[0].toHere.w.Disabled() {
		t.Error("the button can be pressed twice")
	}
	b.turn()
	b.engine.say(func(st *api.Status) { st.VMs[0].Switch, st.VMs[0].State = switching(), api.VMSwitching })
	b.up()
	b.see("41 % (1.7 GiB of 4 GiB) · 95 MiB/s · 26 s left")
	b.tap("Cancel")
	next(t, b.engine, "cancel-switch s1")
	b.turn()
}

func TestWindowRefusal(t *testing.T) {
	b := newBench(t)
	b.engine.refuse(&api.Error{Code: api.CodeRefused, Sentence: "Laptop said no.", Next: "Ask it why."})
	b.tap("Switch to this machine")
	b.turn()
	b.see("Laptop said no.", "Ask it why.")
	b.tap("Got it")
	if strings.Contains(b.shownText(), "Laptop said no.") {
		t.Error("the message stays")
	}
}

func TestWindowFollowsVMs(t *testing.T) {
	b := newBench(t)
	b.engine.say(func(st *api.Status) {
		st.VMs = append(st.VMs, st.VMs[0])
		st.VMs[1].ID, st.VMs[1].Name, st.VMs[1].Here, st.VMs[1].State = "p", "Play", true, api.VMStopped
		st.Jobs = []api.Job{{ID: "j", VMName: "Photos", Bytes: 1, Total: 2}}
	})
	b.up()
	b.see("Play", "Stopped here", "Creating Photos")
	b.tap("Start")
	next(t, b.engine, "start p")
	b.turn()
	b.tap("Cancel")
	next(t, b.engine, "cancel-job j")
	b.turn()
	b.engine.say(func(st *api.Status) { st.VMs, st.Jobs, st.Devices = nil, nil, st.Devices[:1] })
	b.up()
	b.see("No VM yet.", "No other device yet.")
	if strings.Contains(b.shownText(), "Play") {
		t.Error("a removed VM is still shown")
	}
}

func TestWindowForceAsksFirst(t *testing.T) {
	b := newBench(t)
	b.engine.say(func(st *api.Status) { st.VMs[0].Here = true })
	b.up()
	b.do(act{Verb: verbForce, ID: "w"})
	b.see("Turn Work off at once?")
	b.tap("Cancel")
	b.do(act{Verb: verbForce, ID: "w"})
	b.tap("Turn off at once")
	next(t, b.engine, "stop w true")
	b.turn()
}

func TestWindowRemoveAsksFirst(t *testing.T) {
	b := newBench(t)
	test.Tap(b.win.devices[1].remove)
	b.see("Remove Laptop?")
	b.tap("Remove")
	next(t, b.engine, "remove-device L wipe=false anyway=true")
	b.turn()
}

func TestPairShowsCodeAndWords(t *testing.T) {
	b := newBench(t)
	b.tap("Pair a device")
	b.tap("Show a code here")
	next(t, b.engine, "pair-start")
	b.turn()
	b.see("4821-7305", "192.168.1.7:40123 or [fd00::7]:40123")
	b.now = time.Now()
	b.up()
	b.see("4821-7305", "for three tries")
	b.engine.say(func(st *api.Status) {
		st.Pairing = &api.Pairing{Done: true, Peer: &api.Device{Name: "Sofa"}, Words: []string{"ash", "bell", "cork", "dune"}}
	})
	b.up()
	b.see("Paired with Sofa", "ash  bell  cork  dune")
	b.tap("Close")
	if b.pair != nil {
		t.Error("the dialog is still there")
	}
	if got := b.engine.requests(); len(got) != 1 {
		t.Errorf("asked for %v", got)
	}
}

func TestPairClosingCloses(t *testing.T) {
	b := newBench(t)
	b.tap("Pair a device")
	b.tap("Show a code here")
	next(t, b.engine, "pair-start")
	b.turn()
	b.tap("Close")
	next(t, b.engine, "pair-cancel")
	b.turn()
}

func TestPairEnterCode(t *testing.T) {
	b := newBench(t)
	b.engine.joined = &api.Pairing{Done: true, Peer: &api.Device{Name: "Sofa"}, Words: []string{"ash", "bell", "cork", "dune"}}
	b.tap("Pair a device")
	b.tap("Enter a code")
	fields := b.entries()
	if len(fields) != 2 {
		t.Fatalf("%d fields", len(fields))
	}
	test.Type(fields[0], " 1234-5678 ")
	test.Type(fields[1], "pc:4001")
	b.engine.refuse(&api.Error{Code: api.CodeRefused, Sentence: "That code is wrong.", Next: "Two tries are left."})
	b.tap("Pair")
	next(t, b.engine, "pair-join 1234-5678 pc:4001")
	b.turn()
	b.see("That code is wrong.", "Two tries are left.")
	b.engine.refuse(nil)
	b.tap("Try again")
	b.tap("Enter a code")
	test.Type(b.entries()[0], "8765-4321")
	b.tap("Pair")
	next(t, b.engine, "pair-join 8765-4321 ")
	b.turn()
	b.see("Paired with Sofa", "ash  bell  cork  dune")
}

func TestCreate(t *testing.T) {
	b := newBench(t)
	b.tap("Create a VM")
	fields := b.entries()
	if len(fields) != 5 {
		t.Fatalf("%d fields", len(fields))
	}
	test.Type(fields[0], "Play")
	fields[2].SetText("0")
	for _, o := range b.everything() {
		if w, ok := o.(*widget.Button); ok && w.Text == "Create" && !w.Disabled() {
			t.Error("no CPU at all can be asked for")
		}
	}
	fields[2].SetText("3")
	image := filepath.Join(t.TempDir(), "disk.qcow2")
	fields[4].SetText(image)
	b.tap("Create")
	next(t, b.engine, "create Play 3 2048 21474836480 "+image)
	b.turn()
}

func TestClosing(t *testing.T) {
	b := newBench(t)
	b.tray = newTray(&fakeHost{}, b.do, b.onMain, b.gui.now)
	b.do(act{Verb: verbClose})
	if b.quits != 0 {
		t.Error("closing ends the program although the tray is there")
	}
	b.there = trayHidden
	b.do(act{Verb: verbClose})
	if b.quits != 1 {
		t.Error("closing leaves a program that nobody can find")
	}
}

// What doesn't change isn't drawn again.
func TestDrawsOnlyChanges(t *testing.T) {
	b := newBench(t)
	host := &fakeHost{}
	b.tray = newTray(host, b.do, b.onMain, b.gui.now)
	b.drawn = false
	b.draw()
	for range 5 {
		b.engine.say(func(*api.Status) {})
		b.up()
	}
	if host.menus() != 1 {
		t.Errorf("%d menus for one state", host.menus())
	}
}

// next waits for what the engine is asked.
func next(t *testing.T, f *fakeEngine, want string) {
	t.Helper()
	select {
	case got := <-f.answered:
		if got != want {
			t.Fatalf("engine was asked %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("engine was never asked %q", want)
	}
}

// fakeHost is a desktop's tray.
type fakeHost struct {
	mu    sync.Mutex
	all   []*fyne.Menu
	icons []string
}

func (f *fakeHost) SetSystemTrayMenu(m *fyne.Menu) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, m)
}

func (f *fakeHost) SetSystemTrayIcon(r fyne.Resource) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.icons = append(f.icons, r.Name())
}

func (f *fakeHost) menus() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all)
}
