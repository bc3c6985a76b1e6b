package ui

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"sync"
	"time"

	"fyne.io/fyne/v2"

	"tagalong.org/tagalong/app/api"
)

// Client is what the window needs of the engine. *api.Client has it.
type Client interface {
	Status(ctx context.Context) (*api.Status, error)
	Watch(ctx context.Context, after uint64) (<-chan api.Event, error)
	CreateVM(ctx context.Context, req api.CreateVM) (*api.Job, error)
	CancelJob(ctx context.Context, id string) error
	StartVM(ctx context.Context, vm string) error
	StopVM(ctx context.Context, vm string, force bool) error
	SuspendVM(ctx context.Context, vm string) error
	ResumeVM(ctx context.Context, vm string) error
	ResetVM(ctx context.Context, vm string) error
	RemoveVM(ctx context.Context, vm string) error
	SetVM(ctx context.Context, req api.SetVM) error
	Switch(ctx context.Context, req api.SwitchVM) (*api.Switch, error)
	CheckSwitch(ctx context.Context, req api.SwitchVM) (*api.Preflight, error)
	CancelSwitch(ctx context.Context, id string) error
	PairStart(ctx context.Context, req api.PairStart) (*api.Pairing, error)
	PairJoin(ctx context.Context, req api.PairJoin) (*api.Pairing, error)
	PairCancel(ctx context.Context) error
	RemoveDevice(ctx context.Context, req api.RemoveDevice) error
	LeaveFleet(ctx context.Context, req api.LeaveFleet) error
	Takeover(ctx context.Context, vm string) (*api.Takeover, error)
	TakeOver(ctx context.Context, req api.TakeOverVM) error
	Resolve(ctx context.Context, req api.ResolveConflict) (*api.Job, error)
	DeleteRestorePoint(ctx context.Context, req api.RestorePointRef) error
	OpenRestorePoint(ctx context.Context, req api.RestorePointRef) error
	CloseRestorePoint(ctx context.Context, req api.RestorePointRef) error
	GoOffline(ctx context.Context, req api.GoOffline) (*api.Job, error)
	GoOnline(ctx context.Context) error
	History(ctx context.Context, vm string) ([]api.HistoryEntry, error)
	PauseSync(ctx context.Context, req api.PauseSync) error
	ResumeSync(ctx context.Context) error
	SyncNow(ctx context.Context, req api.SyncNow) error
	Rollback(ctx context.Context, vm string) (*api.Rollback, error)
	RollBack(ctx context.Context, req api.RollBackVM) error
	AddDisk(ctx context.Context, req api.AddDisk) (*api.Job, error)
	GrowDisk(ctx context.Context, req api.GrowDisk) error
	RemoveDisk(ctx context.Context, req api.RemoveDisk) error
}

var _ Client = (*api.Client)(nil)

// askTime bounds a request that the engine only has to accept; pairTime one that waits for a
// person at the other device.
const (
	askTime  = 30 * time.Second
	pairTime = 3 * time.Minute
)

// gui is the whole face. All its methods and fields belong to Fyne's goroutine, but for what ask
// starts.
type gui struct {
	ctx    context.Context
	client Client
	follow *follower
	log    *slog.Logger
	app    fyne.App
	win    *mainWindow
	tray   *tray // nil without a tray
	there  trayState
	quit   func()
	onMain func(func())
	viewer Viewer // nil: there is none
	// unshown says that the person knows that screens can't be shown by themselves.
	unshown bool
	// looking: the window has the person's input.
	looking bool
	now     func() time.Time

	state  state
	view   view
	drawn  bool
	pair   *pairDialog // nil when closed
	points *pointsDialog
	disks  *disksDialog
	before *api.Status // what notices were last made from
	// troubled is when the person was last notified of each trouble.
	troubled map[string]time.Time
	work     sync.WaitGroup
}

// hear takes news of the engine in.
func (g *gui) hear(n news) {
	g.state.Link, g.state.Err = n.Link, n.Err
	// Who looks at the window sees how far a sync is.
	if n.Sync != nil && !g.looking {
		if note, ok := syncNote(n.Sync); ok {
			g.notify(note)
		}
	}
	if n.Damage != nil {
		g.notify(damageNote(n.Damage))
	}
	if n.Status != nil {
		for _, note := range notices(g.before, n.Status) {
			g.notify(note)
		}
		for _, x := range troubles(g.before, n.Status) {
			if now := g.now(); g.troubled[x.about].IsZero() || now.Sub(g.troubled[x.about]) >= troubleRest {
				g.notify(x.note)
				if g.troubled == nil {
					g.troubled = map[string]time.Time{}
				}
				g.troubled[x.about] = now
			}
		}
		g.showArrivals(arrivals(g.before, n.Status))
		g.state.Status, g.before = n.Status, n.Status
	}
	g.draw()
}

// notify puts a notification on the desktop.
func (g *gui) notify(n note) {
	// A notification service may take its time.
	g.work.Go(func() {
		g.app.SendNotification(&fyne.Notification{Title: n.Title, Content: n.Text})
	})
}

// look says whether the window is what the person works in now.
func (g *gui) look(at bool) { g.looking = at }

// draw shows what changed since it last did.
func (g *gui) draw() {
	v := viewOf(g.state, g.now())
	if g.drawn && reflect.DeepEqual(v, g.view) {
		return
	}
	g.view, g.drawn = v, true
	g.win.set(v)
	if g.tray != nil {
		g.tray.set(v)
	}
	if g.pair != nil {
		g.pair.set(v.Pairing)
	}
	if g.points != nil {
		g.points.set(v)
	}
	if g.disks != nil {
		g.disks.set(v)
	}
}

// do carries out what a click asks for.
func (g *gui) do(a act) {
	c := g.client
	switch a.Verb {
	case verbSwitch:
		g.askFor(a.ID, func(ctx context.Context) error { _, err := c.Switch(ctx, api.SwitchVM{VM: a.ID}); return err })
	case verbAnyway:
		g.askFor(a.ID, func(ctx context.Context) error {
			_, err := c.Switch(ctx, api.SwitchVM{VM: a.ID, Pause: a.Pause})
			return err
		})
	case verbSend:
		g.askFor(a.ID, func(ctx context.Context) error {
			_, err := c.Switch(ctx, api.SwitchVM{VM: a.ID, To: a.Sub})
			return err
		})
	case verbTeleport:
		g.askWay(a.ID, api.WayTeleport)
	case verbCheck:
		g.openEstimate(a.ID)
	case verbSuspended:
		g.confirmSuspended(a.ID)
	case verbAhead:
		g.confirmAhead(a.ID)
	case verbCancel:
		g.askFor(a.ID, func(ctx context.Context) error { return c.CancelSwitch(ctx, a.ID) })
	case verbDrop:
		g.askFor(a.ID, func(ctx context.Context) error { return c.CancelJob(ctx, a.ID) })
	case verbStart:
		g.askFor(a.ID, func(ctx context.Context) error { return c.StartVM(ctx, a.ID) })
	case verbStop:
		g.shutDown(a.ID)
	case verbReset:
		g.confirmReset(a.ID)
	case verbScreen:
		g.openScreen(a.ID, true)
	case verbSettings:
		g.openSettings(a.ID)
	case verbRemoveVM:
		g.confirmRemoveVM(a.ID)
	case verbForce:
		g.confirmForce(a.ID)
	case verbSuspend:
		g.askFor(a.ID, func(ctx context.Context) error { return c.SuspendVM(ctx, a.ID) })
	case verbResume:
		g.askFor(a.ID, func(ctx context.Context) error { return c.ResumeVM(ctx, a.ID) })
	case verbSync:
		g.askFor(a.ID, func(ctx context.Context) error { return c.SetVM(ctx, api.SetVM{VM: a.ID, Sync: a.Sub}) })
	case verbTake:
		g.openTake(a.ID)
	case verbRollback:
		g.openRollback(a.ID)
	case verbChoose:
		g.openChoice(a)
	case verbPoints:
		g.openPoints(a.ID)
	case verbLook:
		g.askFor(a.ID, func(ctx context.Context) error {
			return c.OpenRestorePoint(ctx, api.RestorePointRef{VM: a.ID, ID: a.Sub})
		})
	case verbUnlook:
		g.askFor(a.ID, func(ctx context.Context) error {
			return c.CloseRestorePoint(ctx, api.RestorePointRef{VM: a.ID, ID: a.Sub})
		})
	case verbDelete:
		g.confirmDelete(a)
	case verbDisks:
		g.openDisks(a.ID)
	case verbAddDisk:
		g.openAddDisk(a.ID)
	case verbGrowDisk:
		g.openGrowDisk(a)
	case verbRemoveDisk:
		g.confirmRemoveDisk(a)
	case verbHistory:
		g.openHistory(a.ID)
	case verbOffline:
		g.goOffline()
	case verbNow:
		g.confirmNow()
	case verbOnline:
		g.askFor(offlineID, c.GoOnline)
	case verbPause:
		g.askFor(syncID, func(ctx context.Context) error { return c.PauseSync(ctx, api.PauseSync{}) })
	case verbUnpause:
		g.askFor(syncID, c.ResumeSync)
	case verbSyncNow:
		g.askFor(syncID, func(ctx context.Context) error { return c.SyncNow(ctx, api.SyncNow{}) })
	case verbEngine:
		g.follow.StartEngine()
	case verbDismiss:
		g.state.Notice = nil
		g.draw()
	case verbPair:
		g.show()
		g.openPairing()
	case verbCreate:
		g.show()
		g.openCreate()
	case verbOpen:
		g.show()
	case verbClose:
		g.closeWindow()
	case verbQuit:
		g.quit()
	}
}

// closeWindow hides the window where the tray can bring it back, and ends the program where nobody
// could find it any more. The engine goes on either way.
func (g *gui) closeWindow() {
	if g.tray != nil && g.there == trayShown {
		g.win.win.Hide()
		g.look(false)
		return
	}
	g.quit()
}

// show brings the window to the front, wherever it was.
func (g *gui) show() {
	g.win.win.Show()
	g.win.win.RequestFocus()
}

// askFor asks the engine for something about the VM, job or switch of that ID, whose buttons wait
// until it has answered. A failure is shown until the person has seen it.
func (g *gui) askFor(id string, call func(context.Context) error) {
	if g.state.Asked[id] {
		return
	}
	g.setAsked(id, true)
	g.state.Notice = nil
	g.draw()
	g.ask(askTime, call, func(err *api.Error) {
		g.setAsked(id, false)
		if err != nil {
			g.state.Notice = err
		}
		g.draw()
		g.follow.Poke()
	})
}

// setAsked replaces the map: views made of the old one may still be compared with the next.
func (g *gui) setAsked(id string, asked bool) {
	next := maps.Clone(g.state.Asked)
	if next == nil {
		next = map[string]bool{}
	}
	if asked {
		next[id] = true
	} else {
		delete(next, id)
	}
	g.state.Asked = next
}

// ask runs call elsewhere and then, here again, answered with how it went. It isn't called when the
// window ended meanwhile.
func (g *gui) ask(limit time.Duration, call func(context.Context) error, answered func(*api.Error)) {
	g.work.Go(func() {
		ctx, cancel := context.WithTimeout(g.ctx, limit)
		defer cancel()
		err := call(ctx)
		if g.ctx.Err() != nil {
			return
		}
		var e *api.Error
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			e = &api.Error{Code: api.CodeUnreachable, Sentence: t("ask.late"), Next: t("ask.late.next"), Cause: err.Error()}
		case err != nil:
			e = api.AsError(err)
			g.log.Info("Request failed", "code", string(e.Code), "sentence", e.Sentence, "cause", e.Cause)
		}
		g.onMain(func() { answered(e) })
	})
}
