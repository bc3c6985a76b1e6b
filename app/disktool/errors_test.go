package disktool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// Every refusal is a sentence of its own with a next step, and keeps its cause.
func TestEveryRefusalIsASentence(t *testing.T) {
	seen := map[string]error{}
	for _, c := range []struct {
		err  error
		code api.Code
	}{
		{&vfs.LockedError{PID: 4711}, api.CodeBusy},
		{vmdisk.ErrNoDisk, api.CodeNotFound},
		{fmt.Errorf("%w: %w", vmdisk.ErrNoJournal, vmdisk.ErrNoDisk), api.CodeDamaged},
		{vmdisk.ErrNoBase, api.CodeDamaged},
		{fmt.Errorf("%w: %w", vmdisk.ErrBaseSize, vmdisk.ErrCorrupt), api.CodeDamaged},
		{vmdisk.ErrNotDir, api.CodeUsage},
		{vmdisk.ErrNotFile, api.CodeConflict},
		{vmdisk.ErrCutLost, api.CodeSpace},
		{vmdisk.ErrPast, api.CodeConflict},
		{vmdisk.ErrHydrating, api.CodeConflict},
		{fmt.Errorf("%w: %w", vmdisk.ErrCorrupt, vmdisk.ErrForeign), api.CodeDamaged},
		{vmdisk.ErrCorrupt, api.CodeDamaged},
		{vmdisk.ErrVersion, api.CodeConflict},
		{vmdisk.ErrExists, api.CodeConflict},
		{vmdisk.ErrIncomplete, api.CodeConflict},
		{fs.ErrPermission, api.CodeRefused},
		{syscall.EROFS, api.CodeRefused},
		{syscall.EIO, api.CodeDamaged},
		{syscall.ENOSPC, api.CodeSpace},
	} {
		err := c.err
		if errors.Is(err, vfs.ErrLocked) {
			err = fmt.Errorf("%w: %w", vmdisk.ErrInUse, err)
		}
		e := api.AsError(Explain("/some/dir", fmt.Errorf("open disk in /some/dir: journal: %w", err)))
		if e.Code != c.code || e.Next == "" || !strings.HasSuffix(e.Sentence, ".") || !strings.Contains(e.Cause, err.Error()) {
			t.Errorf("%v became %+v", err, e)
		}
		if other := seen[e.Sentence]; other != nil {
			t.Errorf("%v and %v have the same sentence %q", err, other, e.Sentence)
		}
		seen[e.Sentence] = err
	}
	if e := Explain("/d", fmt.Errorf("%w: %w", vmdisk.ErrInUse, &vfs.LockedError{PID: 4711})); !strings.Contains(e.Error(), "process 4711") {
		t.Errorf("the holder isn't named: %v", e)
	}
	if e := api.AsError(Explain("/d", context.Canceled)); e.Code != api.CodeCancelled {
		t.Errorf("cancelled: %+v", e)
	}
}

// The sentences come from real directories too.
func TestRealRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(dir string) error
		says string
	}{
		"truncated":  {func(dir string) error { return os.Truncate(filepath.Join(dir, "base.raw"), 4096) }, "isn't as long as the disk"},
		"no base":    {func(dir string) error { return os.Remove(filepath.Join(dir, "base.raw")) }, "has no base.raw"},
		"no journal": {func(dir string) error { return os.Remove(filepath.Join(dir, "journal")) }, "has lost its journal"},
		"foreign":    {func(dir string) error { return os.WriteFile(filepath.Join(dir, "journal"), []byte("%PDF-1.7"), 0o600) }, "isn't Tagalong's"},
		"gone":       {os.RemoveAll, "There is no disk"},
		"a file": {func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
			"isn't a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "disk")
			d, err := vmdisk.Create(dir, vmdisk.NewID(), 1<<20, vmdisk.Options{})
			if err == nil {
				err = errors.Join(d.Close(), c.do(dir))
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Info(dir, nil); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v", err)
			}
		})
	}
}
