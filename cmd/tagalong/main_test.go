package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/api/apitest"
)

// leakChecked runs the tests and then looks for goroutines that outlived them.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){
		"tagalong": func() {
			runEngine = fakeEngine
			main()
		},
	})
}

// fakeEngine is what the verb engine runs in scripts: it says how it was called and serves a fake.
func fakeEngine(ctx context.Context, o engineOptions) error {
	l, err := api.Listen(o.Socket)
	if err != nil {
		return err
	}
	o.Log.Info("Fake engine", "dir", o.DataDir, "name", o.Name, "listen", o.Listen, "version", o.Version)
	e := apitest.New(api.Status{Device: api.Device{ID: "x", Name: o.Name}})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-e.ShutdownAsked():
			cancel()
		case <-ctx.Done():
		}
	}()
	return api.NewServer(e, o.Log).Serve(ctx, l)
}
