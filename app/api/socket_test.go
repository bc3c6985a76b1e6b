package api_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/api/apitest"
)

func TestSecondEngineIsRefused(t *testing.T) {
	socket := serve(t, apitest.New(start()))
	if _, err := api.Listen(socket); api.AsError(err).Code != api.CodeEngineRunning {
		t.Errorf("got %v", err)
	}
	if _, err := client(t, socket).Status(deadline(t)); err != nil {
		t.Errorf("the first engine has suffered: %v", err)
	}
}

func TestSocketIsPrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes are a Unix thing")
	}
	socket := serve(t, apitest.New(start()))
	for path, want := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if err := os.Chmod(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, socket).Status(deadline(t)); api.AsError(err).Code != api.CodeUsage {
		t.Errorf("a socket in an open directory was trusted: %v", err)
	}
}

func TestSocketPath(t *testing.T) {
	short := filepath.Join(t.TempDir(), "d")
	if got := api.SocketPath(short); got != filepath.Join(short, "run", "api.sock") {
		t.Errorf("short: %s", got)
	}
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/x")
	long := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	a, b := api.SocketPath(long), api.SocketPath(long+"er")
	if len(a) > 103 || a == b || a != api.SocketPath(long+"/.") || !strings.HasPrefix(a, "/run/user/x/tagalong-") {
		t.Errorf("long: %s, %s", a, b)
	}
	t.Setenv("XDG_RUNTIME_DIR", "/"+strings.Repeat("r", 100))
	if got := api.SocketPath(long); len(got) > 103 {
		t.Errorf("with a long runtime directory: %s", got)
	}

	// A deep data directory works all the way.
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	c, socket := client(t, api.SocketPath(long)), api.SocketPath(long)
	serveAt(t, apitest.New(start()), socket)
	if _, err := c.Status(deadline(t)); err != nil {
		t.Error(err)
	}
}

func TestDataDir(t *testing.T) {
	t.Setenv("TAGALONG_DATA", "")
	t.Setenv("XDG_DATA_HOME", "/xdg")
	t.Setenv("HOME", "/home/kim")
	check := func(flag, want string) {
		t.Helper()
		if got, err := api.DataDir(flag); err != nil || got != want {
			t.Errorf("DataDir(%q) = %q, %v; want %q", flag, got, err, want)
		}
	}
	check("/flag", "/flag")
	if runtime.GOOS == "linux" {
		check("", "/xdg/tagalong")
		t.Setenv("XDG_DATA_HOME", "relative")
		check("", "/home/kim/.local/share/tagalong")
	}
	t.Setenv("TAGALONG_DATA", "/env")
	check("", "/env")
	check("/flag", "/flag")
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	check("rel", filepath.Join(wd, "rel"))
}
