package disktool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/blockset"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// makeDisk makes a disk of 4 MiB in dir, lets prepare do something to it, and closes it.
func makeDisk(t *testing.T, dir string, prepare func(d *vmdisk.Store) error) {
	t.Helper()
	d, err := vmdisk.Create(dir, vmdisk.NewID(), 4<<20, vmdisk.Options{})
	if err == nil && prepare != nil {
		err = prepare(d)
	}
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
}

// makeReplica is makeDisk of a disk that another device owns, at 3/5, with 5s in its first block.
func makeReplica(t *testing.T, dir string) {
	t.Helper()
	d, err := vmdisk.CreateReplica(dir, vmdisk.NewID(), 4<<20, vmdisk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Apply()
	if err == nil {
		err = errors.Join(a.Begin([16]byte{1}), a.Write(0, bytes.Repeat([]byte{5}, 4096)), a.Barrier(vmdisk.Position{Term: 3, Barrier: 5}), a.Close())
	}
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
}

// serving is a Serve under way.
type serving struct {
	api.ServedDisk
	stop func() error
}

func serve(t *testing.T, o ServeOptions) (*serving, error) {
	t.Helper()
	sockets, err := os.MkdirTemp("", "disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	o.Log = quiet
	if o.Socket == "" {
		o.Socket = filepath.Join(sockets, "a b.sock")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan api.ServedDisk, 1), make(chan error, 1)
	go func() { ended <- Serve(ctx, o, func(s api.ServedDisk) { ready <- s }) }()
	select {
	case s := <-ready:
		stopped := false
		stop := func() error {
			if stopped {
				return nil
			}
			stopped = true
			cancel()
			return <-ended
		}
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
		return &serving{s, stop}, nil
	case err := <-ended:
		cancel()
		return nil, err
	}
}

// qemuIO runs commands of qemu-io.
func qemuIO(t *testing.T, uri string, commands ...string) (string, error) {
	t.Helper()
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.CommandContext(t.Context(), "qemu-io", append(args, uri)...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%v: run build/deps.sh test", err)
	}
	if err == nil && strings.Contains(string(out), "failed") {
		err = errors.New("a command failed")
	}
	return string(out), err
}

func TestServeANewDiskAndItsOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	makeDisk(t, dir, nil)
	for term, pattern := range []string{"3", "4"} { // new, and then owned under the same term
		s, err := serve(t, ServeOptions{Dir: dir, Export: "öd isk"})
		if err != nil {
			t.Fatal(err)
		}
		if s.ReadOnly || s.Term != 1 {
			t.Fatalf("%d: %+v", term, s.ServedDisk)
		}
		if out, err := qemuIO(t, s.URI, "write -P "+pattern+" 64k 64k", "read -P "+pattern+" 64k 64k"); err != nil {
			t.Fatal(out)
		}
		if _, err := Info(dir, quiet); !errors.Is(err, &api.Error{Code: api.CodeBusy}) {
			t.Errorf("a served disk: %v", err)
		}
		if _, err := serve(t, ServeOptions{Dir: dir}); !errors.Is(err, &api.Error{Code: api.CodeBusy}) {
			t.Errorf("a second server: %v", err)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
	i, err := Info(dir, quiet)
	if err != nil || i.Role != api.DiskOwner || i.Position.Barrier < 2 || i.Unflushed || i.Allocated < 64<<10 {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestServeReadOnlyWhatMustNotBeWritten(t *testing.T) {
	fill := func(d *vmdisk.Store) error {
		if err := d.Activate(7); err != nil {
			return err
		}
		return d.WriteAt([]byte(strings.Repeat("\x05", 4096)), 0, true)
	}
	give := func(d *vmdisk.Store) error { return errors.Join(fill(d), d.Fence(), d.Give(7)) }
	engine := t.TempDir()
	suspended := filepath.Join(engine, "vms", strings.Repeat("ab", 16), "disk")
	for name, c := range map[string]struct {
		dir     string
		prepare func(*vmdisk.Store) error // nil: it is a replica
		ask     bool
		why     string
	}{
		"asked":      {"", fill, true, "asked"},
		"given away": {"", give, false, "gave"},
		"given away beyond its term": {"", func(d *vmdisk.Store) error {
			return errors.Join(give(d), d.Give(9))
		}, false, "gave"},
		"a replica": {"", nil, false, "replica"},
		"suspended": {suspended, fill, false, "suspended"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := c.dir
			if dir == "" {
				dir = filepath.Join(t.TempDir(), "disk")
			}
			if c.prepare == nil {
				makeReplica(t, dir)
			} else {
				makeDisk(t, dir, c.prepare)
			}
			if c.dir != "" {
				if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "memory.json"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before, err := Info(dir, quiet)
			if err != nil {
				t.Fatal(err)
			}
			s, err := serve(t, ServeOptions{Dir: dir, ReadOnly: c.ask})
			if err != nil {
				t.Fatal(err)
			}
			if !s.ReadOnly || !strings.Contains(s.Why, c.why) {
				t.Errorf("%+v", s.ServedDisk)
			}
			if out, err := qemuIO(t, s.URI, "write -P 3 0 4k"); err == nil {
				t.Errorf("it was written: %s", out)
			}
			if out, err := exec.CommandContext(t.Context(), "qemu-io", "-r", "-f", "raw", "-c", "read -P 5 0 4k", s.URI).CombinedOutput(); err != nil {
				t.Errorf("%s", out)
			}
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			if after, err := Info(dir, quiet); err != nil || after.Position != before.Position || after.Role != before.Role {
				t.Errorf("it was %+v, is %+v, %v", before, after, err)
			}
		})
	}
}

func TestServeRefuses(t *testing.T) {
	incomplete := filepath.Join(t.TempDir(), "disk")
	d, err := vmdisk.CreateReplica(incomplete, vmdisk.NewID(), 1<<20, vmdisk.Options{})
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	lacking := filepath.Join(t.TempDir(), "disk")
	makeDisk(t, lacking, func(d *vmdisk.Store) error {
		stale := blockset.New(1024)
		stale.Add(3, 5)
		return errors.Join(d.SetStale(stale.AppendTo(nil), vmdisk.Position{Term: 1, Barrier: 1}), d.Activate(2))
	})
	if i, err := Info(lacking, quiet); err != nil || i.Stale != 2*4096 {
		t.Errorf("%+v, %v", i, err)
	}
	good := filepath.Join(t.TempDir(), "disk")
	makeDisk(t, good, nil)
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    ServeOptions
		code api.Code
	}{
		"no disk":        {ServeOptions{Dir: t.TempDir()}, api.CodeNotFound},
		"lacks blocks":   {ServeOptions{Dir: lacking}, api.CodeConflict},
		"incomplete":     {ServeOptions{Dir: incomplete}, api.CodeConflict},
		"open directory": {ServeOptions{Dir: good, Socket: filepath.Join(open, "s")}, api.CodeUsage},
		"long path":      {ServeOptions{Dir: good, Socket: filepath.Join(t.TempDir(), strings.Repeat("x", 200))}, api.CodeUsage},
		"not a socket":   {ServeOptions{Dir: good, Socket: filepath.Join(good, "journal")}, api.CodeUsage},
	} {
		_, err := serve(t, c.o)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Next == "" {
			t.Errorf("%s: %#v", name, err)
		}
	}
}

// A QEMU that waits for its engine must find the disk as it left it.
func TestServeLeavesARunningVMItsDisk(t *testing.T) {
	data, err := os.MkdirTemp("", "tg") // short: the engine's sockets lie in it then
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(data)
	id := strings.Repeat("cd", 16)
	dir, run := filepath.Join(data, "vms", id, "disk"), filepath.Join(data, "run", id[:12])
	makeDisk(t, dir, nil)
	if err := os.MkdirAll(run, 0o700); err != nil {
		t.Fatal(err)
	}
	guest := exec.CommandContext(t.Context(), "sh", "-c", "read wait", "qemu", "-qmp", filepath.Join(run, "qmp.sock"))
	in, err := guest.StdinPipe()
	if err == nil {
		err = guest.Start()
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(run, "qemu.pid"), fmt.Append(nil, guest.Process.Pid), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := serve(t, ServeOptions{Dir: dir})
	if err != nil || !s.ReadOnly || !strings.Contains(s.Why, "still runs") {
		t.Errorf("%+v, %v", s, err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(in.Close(), ignoreExit(guest.Wait())); err != nil {
		t.Fatal(err)
	}
	s, err = serve(t, ServeOptions{Dir: dir})
	if err != nil || s.ReadOnly {
		t.Errorf("after its end: %+v, %v", s, err)
	}
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}
