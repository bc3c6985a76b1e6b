package ui

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/app/api"
)

// childEnv makes this test binary be the program instead: the window needs the first goroutine of a
// process of its own.
const childEnv = "TAGALONG_UI_TEST_SOCKET"

// patience is how long a real test waits for something that will happen unless it is broken.
const patience = 3 * time.Minute

// noScreens is a viewer that is never asked for anything by itself.
type noScreens struct{}

func (noScreens) Show(ctx context.Context, _ string) error { <-ctx.Done(); return nil }
func (noScreens) Auto() (bool, error)                      { return false, nil }
func (noScreens) SetAuto(bool) error                       { return nil }

func TestMain(m *testing.M) {
	if socket := os.Getenv(childEnv); socket != "" {
		// As the program's own main does: Fyne hears signals only once its loop runs.
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		err := Run(ctx, Options{Client: api.NewClient(socket), Socket: socket, Viewer: noScreens{},
			ShowWindow: os.Getenv("TAGALONG_UI_TEST_SHOW") != ""})
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	// The texts that tests look for are English, wherever they run.
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANGUAGE"} {
		_ = os.Unsetenv(name)
	}
	_ = os.Setenv("LANG", "en_US.UTF-8")
	if err := loadTranslations(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The real driver has a queue that lives as long as the process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("fyne.io/fyne/v2/internal/async.(*UnboundedChan[...]).processing"))
}
