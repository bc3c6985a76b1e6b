package ui

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/app"
	"fyne.io/fyne/v2/driver/desktop"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/assets"
)

// appID names the program to the desktop.
const appID = "org.tagalong.Tagalong"

// Options say what Run needs. Client is required.
type Options struct {
	// Client reaches the engine.
	Client *api.Client
	// StartEngine starts an engine that outlives this process, and need not wait for it. It is called
	// at most once by itself, when none answers at the start, and then whenever the person asks. Nil:
	// never.
	StartEngine func() error
	// Viewer shows the screens of VMs. Nil: they aren't shown.
	Viewer Viewer
	// Log takes what happens behind the scenes; nil: slog.Default().
	Log *slog.Logger
	// ShowWindow opens the window at the start, and not only the tray.
	ShowWindow bool
	// Socket is the engine's, beside which second launches are waited for; "" is the default data
	// directory's.
	Socket string
}

// Run shows the tray and the window until the person quits or ctx ends. It must be called on the
// program's first goroutine, once in its life. Without a display it returns an *api.Error. When
// another window runs already, that one is brought to the front and Run returns nil at once.
func Run(ctx context.Context, o Options) error {
	log := o.Log
	if log == nil {
		log = slog.Default()
	}
	if o.Client == nil {
		return &api.Error{Code: api.CodeInternal, Sentence: "The window was started without an engine to talk to."}
	}
	if err := loadTranslations(); err != nil {
		return err
	}
	if err := findDisplay(currentDisplay()); err != nil {
		return err
	}
	socket := o.Socket
	if socket == "" {
		dir, err := api.DataDir("")
		if err != nil {
			return err
		}
		socket = api.SocketPath(dir)
	}
	door, err := openDoor(doorPath(socket))
	if errors.Is(err, errShown) {
		return nil
	}
	if err != nil {
		return err
	}
	// run closes it, too, but may fail before it gets there.
	defer func() { _ = door.Close() }()
	return run(ctx, o, log, func(ctx context.Context, show func()) { serveDoor(ctx, door, log, show) })
}

func run(ctx context.Context, o Options, log *slog.Logger, listen func(context.Context, func())) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	app.SetMetadata(fyne.AppMetadata{ID: appID, Name: t("app.title"), Icon: appIcon(), Migrations: map[string]bool{"fyneDo": true}})
	a := app.NewWithID(appID)
	a.SetIcon(appIcon())
	a.Settings().SetTheme(newLook())

	panel := openDesktopTray(log)
	g := &gui{ctx: ctx, client: o.Client, log: log, app: a, now: time.Now, quit: cancel, viewer: o.Viewer}
	g.state.CanShow = o.Viewer != nil
	// What was under way when the program ends must not touch windows that are gone.
	g.onMain = func(f func()) {
		if ctx.Err() != nil {
			return
		}
		fyne.Do(func() {
			if ctx.Err() == nil {
				f()
			}
		})
	}
	g.follow = newFollower(o.Client, o.StartEngine, log, func(n news) { g.onMain(func() { g.hear(n) }) })
	g.win = newMainWindow(a, g.do, g.confirmRemove, g.confirmLeave)
	g.there = panel.state(ctx)
	if host, ok := a.(desktop.App); ok && g.there != trayImpossible {
		g.tray = newTray(host, g.do, g.onMain, g.now)
	}
	g.win.win.SetCloseIntercept(g.closeWindow)
	g.draw()
	if o.ShowWindow || g.tray == nil || g.there != trayShown {
		g.win.win.Show()
	}

	var services sync.WaitGroup
	a.Lifecycle().SetOnStarted(func() {
		services.Go(func() { g.follow.Run(ctx) })
		services.Go(func() { listen(ctx, func() { g.onMain(g.show) }) })
		services.Go(func() {
			panel.serve(ctx, func(s trayState) { g.onMain(func() { g.there = s }) })
		})
	})
	a.Lifecycle().SetOnEnteredForeground(func() { g.onMain(func() { g.look(true) }) })
	a.Lifecycle().SetOnExitedForeground(func() { g.onMain(func() { g.look(false) }) })
	// If ctx ends before the loop runs, the loop sees it first of all.
	stop := context.AfterFunc(ctx, func() { fyne.Do(a.Quit) })
	a.Run()
	stop()
	cancel()
	if g.tray != nil {
		g.tray.close()
	}
	services.Wait()
	g.work.Wait()
	panel.close()
	return nil
}

func appIcon() fyne.Resource { return fyne.NewStaticResource("app.svg", assets.AppIcon) }
