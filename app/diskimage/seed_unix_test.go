//go:build unix

package diskimage

import (
	"path/filepath"
	"syscall"
	"testing"
)

// To open a pipe would wait for somebody who writes into it.
func TestAPipeIsNoImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Raw(path); err == nil {
		t.Error("a pipe is taken for a raw image")
	}
	if _, err := Inspect(t.Context(), path, ""); err == nil {
		t.Error("a pipe is taken for an image")
	}
}
