package directory

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk fills a real file system under an open directory. A defect here
// shows as the death of the test's process by SIGBUS.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test mounts a small file system: run it as root")
	}
	mnt := t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=160m"); err != nil {
		t.Fatalf("this test mounts a small file system: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(mnt, 0)) })
	d, err := Open(opts("a", filepath.Join(mnt, "dir")))
	must(t, err)
	must(t, d.SetLocal("k", []byte("before")))
	for !exists(d.space.path()) {
		d.space.adjust(t.Context()) // the watcher may be at it too
	}
	rest := filepath.Join(mnt, "rest")
	fill(t, rest, 1<<20)
	for range 50 {
		wantErr(t, d.SetLocal("k", []byte("never")), ErrNoSpace)
	}
	if exists(d.space.path()) {
		t.Fatal("the ballast is still there")
	}
	fill(t, rest, 4<<10)
	wantErr(t, d.PutDevice(Device{Name: "never"}), ErrNoSpace)
	if b, err := d.Local("k"); err != nil || string(b) != "before" {
		t.Fatalf("%q, %v", b, err)
	}
	must(t, os.Remove(rest))
	must(t, d.SetLocal("k", []byte("after")))
	must(t, d.Close())

	// Closed and full to the last byte, and again while it is open, it opens all the same: as often as one likes.
	d, err = Open(opts("a", filepath.Join(mnt, "dir")))
	must(t, err)
	d.space.spare.Lock()
	must(t, d.space.keepSpare(t.Context()))
	d.space.spare.Unlock()
	for range 2 {
		must(t, d.SetLocal("k", []byte("after"))) // what is to be stored for good when it is closed
		brim(t, rest)
		must(t, d.Close())
		brim(t, rest)
		d, err = Open(opts("a", filepath.Join(mnt, "dir")))
		must(t, err)
		brim(t, rest)
		if b, err := d.Local("k"); err != nil || string(b) != "after" {
			t.Fatalf("%q, %v", b, err)
		}
		wantErr(t, d.Room(), ErrNoSpace)
		wantErr(t, d.SetLocal("k", []byte("never")), ErrNoSpace)
		had := spareSize(t, d.space)
		must(t, d.WithSpare(func() error { return os.WriteFile(filepath.Join(mnt, "needed"), make([]byte, minOpen), 0o600) }))
		must(t, os.Remove(filepath.Join(mnt, "needed")))
		d.space.spare.Lock()
		must(t, d.space.keepSpare(t.Context()))
		d.space.spare.Unlock()
		if has := spareSize(t, d.space); has < had {
			t.Fatalf("the spare shrank from %d to %d", had, has)
		}
		must(t, os.Remove(rest))
	}
	// What Badger mustn't put together on a full disk is, when there is room.
	s := d.store.(*badgerStore)
	if n := s.levelZero(); n < levelZeroTables {
		t.Fatalf("%d tables are to be put together", n)
	}
	d.space.roomy()
	if n := s.levelZero(); n >= levelZeroTables {
		t.Fatalf("%d tables still are", n)
	}
	if b, err := d.Local("k"); err != nil || string(b) != "after" {
		t.Fatalf("%q, %v", b, err)
	}
	must(t, d.Close())

	// Without its spare it can't, and says so.
	_ = os.Remove(d.space.path())
	must(t, os.Remove(d.space.sparePath()))
	brim(t, rest)
	_, err = Open(opts("a", filepath.Join(mnt, "dir")))
	wantErr(t, err, ErrNoSpace)
	must(t, os.Remove(rest))
	d, err = Open(opts("a", filepath.Join(mnt, "dir")))
	must(t, err)
	if b, err := d.Local("k"); err != nil || string(b) != "after" {
		t.Fatalf("%q, %v", b, err)
	}
	must(t, d.Room())
	must(t, d.Close())
}

func spareSize(t *testing.T, s *space) int64 {
	t.Helper()
	st, err := os.Stat(s.sparePath())
	must(t, err)
	return st.Size()
}

// brim fills the disk to the last byte, as far as what is there doesn't give up more.
func brim(t *testing.T, path string) {
	t.Helper()
	fill(t, path, 1<<20)
	fill(t, path, 4<<10)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fill appends to path until the disk is full.
func fill(t *testing.T, path string, piece int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	buf := make([]byte, piece)
	for {
		if _, err := f.Write(buf); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			return
		}
	}
}
