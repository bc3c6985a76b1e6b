package app

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
)

// A device whose disk others have filled to the last byte starts, says so, and has the VM that runs there; nothing is lost when there is space.
func TestAFullDiskKeepsNoEngineFromStarting(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test mounts a small file system: run it as root")
	}
	a := newDevice(t, "desk")
	a.stop()
	if err := unix.Mount("tmpfs", a.dir, "tmpfs", 0, "size=300m,mode=700"); err != nil {
		t.Fatalf("this test mounts a small file system: %v", err)
	}
	t.Cleanup(func() {
		a.stop()
		if err := unix.Unmount(a.dir, 0); err != nil {
			t.Error(err)
		}
	})
	a.reserve = 100 << 20
	a.start()
	v := a.create("Work")
	if err := a.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	a.write(v.ID, 0, 'x')
	b := newDevice(t, "laptop")
	pair(t, a, b)
	b.create("Play")
	b.live("Play")
	// As the directory makes it once it has been open for a while.
	if err := os.WriteFile(filepath.Join(a.dir, "directory", "spare"), make([]byte, 48<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	rest := filepath.Join(a.dir, "rest")
	a.prepare = func(*Engine) { brim(t, rest) }
	for range 2 {
		brim(t, rest)
		a.stop()
		_ = os.Remove(filepath.Join(a.dir, "directory", "ballast"))
		brim(t, rest)
		a.start()
		brim(t, rest)
		st, err := a.engine.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Problem == nil || st.Problem.Code != api.CodeSpace || st.Problem.Next == "" {
			t.Errorf("the person is told %+v", st.Problem)
		}
		until(t, "the VM that runs", func() bool { w, ok := a.vm("Work"); return ok && w.State == api.VMRunning && w.Problem == nil })
		if got := a.read(v.ID, 0); got != 'x' {
			t.Fatalf("it holds %q", got)
		}
	}

	// Where nobody left room for the disk either, the VM is shown all the same, with why; and it is opened when there is some.
	a.stop()
	brim(t, rest)
	a.prepare = func(*Engine) {
		if err := os.Remove(filepath.Join(a.dir, "directory", "spare")); err != nil {
			t.Error(err)
		}
		brim(t, rest)
	}
	a.start()
	w, ok := a.vm("Work")
	if !ok || !w.Unopened || !w.Here || w.Problem == nil || w.Problem.Code != api.CodeSpace {
		t.Fatalf("shown is %+v", w)
	}
	a.engine.applyRecords()
	if w, ok := a.vm("Play"); !ok || !w.Unopened || w.Here || w.OwnerName != "laptop" {
		t.Errorf("a copy is shown as %+v", w)
	}
	var e *api.Error
	if err := a.engine.StopVM(t.Context(), "Work", true); !errors.As(err, &e) || e.Code != api.CodeSpace {
		t.Errorf("to stop it says %v", err)
	}
	if err := os.Remove(rest); err != nil {
		t.Fatal(err)
	}
	until(t, "the VM to be open", func() bool { w, ok := a.vm("Work"); return ok && !w.Unopened && w.State == api.VMRunning })
	if got := a.read(v.ID, 0); got != 'x' {
		t.Fatalf("it holds %q", got)
	}
	until(t, "its disk to take writes again", func() bool { return a.engine.vm(v.ID).currentDisk().Info().Active })
	a.write(v.ID, 1, 'y')
	until(t, "all to be well", func() bool { st, err := a.engine.Status(t.Context()); return err == nil && st.Problem == nil })
	b.live("Play")
	if got := a.hv.only().get(); got != hypervisor.StateRunning {
		t.Errorf("its guest is %v", got)
	}
}

// A device whose disk is full doesn't ask for a VM; and one whose disk fills up meanwhile says so before the giver lets go, which goes on.
func TestAFullDiskTakesNothing(t *testing.T) {
	desk, laptop, _ := twoDevicesAnd(t, func(laptop *device) {
		laptop.stop()
		if err := unix.Mount("tmpfs", laptop.dir, "tmpfs", 0, "size=300m,mode=700"); err != nil {
			t.Fatalf("this test mounts a small file system, as root: %v", err)
		}
		t.Cleanup(func() {
			laptop.stop()
			if err := unix.Unmount(laptop.dir, 0); err != nil {
				t.Error(err)
			}
		})
		laptop.start()
	})
	hold, rest := make(chan struct{}), filepath.Join(laptop.dir, "rest")
	laptop.hv.setHoldLoaded(hold)
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the memory to be there", func() bool { g := laptop.hv.only(); return g != nil && g.get() == hypervisor.StatePaused })
	brim(t, rest)
	close(hold)
	if s := laptop.ended("Work"); s.Phase != api.PhaseFailed || s.Error.Code != api.CodeSpace || s.Error.Next == "" {
		t.Errorf("the switch ended as %s: %v", s.Phase, s.Error)
	}
	until(t, "the VM to go on", func() bool { w, _ := desk.vm("Work"); return w.Here && w.State == api.VMRunning })
	_, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"})
	wantCode(t, "taking a VM onto a full disk", err, api.CodeSpace)
	if err := os.Remove(rest); err != nil {
		t.Fatal(err)
	}
	laptop.hv.setHoldLoaded(nil)
	until(t, "the button to work", func() bool {
		_, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"})
		return err == nil
	})
	if s := laptop.ended("Work"); s.Phase != api.PhaseDone {
		t.Errorf("with room again: %+v", s)
	}
}

// brim fills the file system to the last byte.
func brim(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, piece := range []int{1 << 20, 4 << 10} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, piece))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// A VM isn't suspended where there is no room for its memory: it goes on, with all it had, and the person reads why. With room again it is suspended, and
// resumed as it was.
func TestAFullDiskKeepsNoMemory(t *testing.T) {
	a := newDevice(t, "desk")
	a.stop()
	if err := unix.Mount("tmpfs", a.dir, "tmpfs", 0, "size=400m,mode=700"); err != nil {
		t.Fatalf("this test mounts a small file system, as root: %v", err)
	}
	t.Cleanup(func() {
		a.stop()
		if err := unix.Unmount(a.dir, 0); err != nil {
			t.Error(err)
		}
	})
	a.reserve = 150 << 20
	a.hv.memory = random(3, 48<<20) // nothing is gained by compressing it
	a.start()
	v := a.create("Work")
	if err := a.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	memory := a.hv.only().memory
	a.write(v.ID, 0, 'x')
	// All is taken but a part of what the memory needs.
	rest := filepath.Join(a.dir, "rest")
	free, err := freeAt(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(rest, make([]byte, free-a.reserve-20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	// What is free is asked for once a second at most, and the reserve is there for what others write meanwhile.
	until(t, "the disk to have noticed", func() bool {
		if err := a.engine.SuspendVM(t.Context(), "Work"); err != nil {
			return true
		}
		if err := a.engine.ResumeVM(t.Context(), "Work"); err != nil {
			t.Fatal(err)
		}
		a.goesOnWithItsMemory(memory)
		return false
	})
	for range 2 {
		var said *api.Error
		if err := a.engine.SuspendVM(t.Context(), "Work"); !errors.As(err, &said) || said.Code != api.CodeSpace || said.Next == "" {
			t.Fatalf("the person reads %v", err)
		}
		if w, _ := a.vm("Work"); w.State != api.VMRunning || w.Problem != nil || a.hv.only().get() != hypervisor.StateRunning {
			t.Fatalf("it is %s: %v", w.State, w.Problem)
		}
		if a.read(v.ID, 0) != 'x' {
			t.Fatal("the disk isn't what it was")
		}
		a.write(v.ID, 0, 'x') // what it tried has been given back
	}

	// A crash afterwards finds a VM that runs, and nothing that could be taken for its memory.
	a.stop()
	a.start()
	until(t, "the VM that runs", func() bool { w, _ := a.vm("Work"); return w.State == api.VMRunning })
	if a.engine.vm(v.ID).suspended() {
		t.Error("it counts as suspended")
	}
	if err := os.Remove(rest); err != nil {
		t.Fatal(err)
	}
	a.suspend()
	if err := a.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	a.goesOnWithItsMemory(memory)
	if a.read(v.ID, 0) != 'x' {
		t.Error("the disk isn't what it was")
	}
}

// freeAt is how many bytes are free on the file system.
func freeAt(dir string) (int64, error) {
	var s unix.Statfs_t
	err := unix.Statfs(dir, &s)
	return int64(s.Bavail) * s.Bsize, err
}

// random are n bytes that can't be compressed, always the same ones of a seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b) // never fails
	return b
}
