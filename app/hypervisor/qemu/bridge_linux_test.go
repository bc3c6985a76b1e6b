package qemu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/hypervisor"
)

func TestBridgesThatCantBeUsed(t *testing.T) {
	q := &QEMU{}
	for _, name := range []string{"", ".", "..", "lo", "nobridge0", "a/b", "br0,script=/tmp/x", "a name", strings.Repeat("b", 16)} {
		if err := q.TryBridge(name); !errors.Is(err, hypervisor.ErrNoBridge) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := (&QEMU{Path: "/nowhere/qemu"}).TryBridge("br0"); !errors.Is(err, hypervisor.ErrMissing) {
		t.Errorf("without QEMU: %v", err)
	}
}

// TestTheBridgeHelper asks helpers that refuse, say nothing, or aren't there.
func TestTheBridgeHelper(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "bin", "qemu")
	if _, err := askHelper(binary, "br0"); err == nil || !strings.Contains(err.Error(), "isn't installed") {
		t.Errorf("none: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "lib", "qemu"), 0o700); err != nil {
		t.Fatal(err)
	}
	for script, says := range map[string]string{
		"echo access denied by acl file >&2; exit 1": "access denied by acl file",
		"exit 0":       "hands over nothing",
		"printf x >&3": "hands over nothing",
		"[ $1 = --br=br0 ] && [ $2 = --fd=3 ] || echo called otherwise >&2; exit 1": "refuses",
	} {
		if err := os.WriteFile(filepath.Join(dir, "lib", "qemu", "qemu-bridge-helper"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := askHelper(binary, "br0")
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "otherwise") {
			t.Errorf("%s: %v", script, err)
		}
	}
}
