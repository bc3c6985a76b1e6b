package guestagent

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestTheRealAgent asks Debian's own qemu-ga, which believes that this computer is its guest. It is kept from setting the clock.
func TestTheRealAgent(t *testing.T) {
	program, err := exec.LookPath("qemu-ga")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/qemu-ga"); err != nil {
			t.Fatal("this test needs qemu-ga: run build/deps.sh test")
		}
	}
	dir, err := os.MkdirTemp("", "ga")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(program, "-m", "unix-listen", "-p", socket, "-b", "guest-set-time", "-t", dir, "-f", filepath.Join(dir, "pid"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var c *Conn
	for deadline := time.Now().Add(60 * time.Second); ; {
		if c, err = Dial(t.Context(), socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("qemu-ga doesn't start: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	defer c.Close()
	r, err := c.Compare(t.Context())
	if err != nil || r.wrong(time.Millisecond) {
		t.Errorf("%+v, %v", r, err)
	}
	if err := c.SetTime(t.Context(), time.Now()); !errors.Is(err, ErrRefused) {
		t.Errorf("what it was kept from: %v", err)
	}
	if r, err := c.Compare(t.Context()); err != nil || r.wrong(time.Millisecond) {
		t.Errorf("after a refusal: %+v, %v", r, err)
	}
}
