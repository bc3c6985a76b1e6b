package disktool

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor/qemu"
	"tagalong.org/tagalong/vmdisk"
)

// DefaultReserve is how many bytes of the file system a disk leaves free unless told otherwise.
const DefaultReserve = 1 << 30

// open opens the disk in dir; the caller closes it.
func open(dir string, reserve int64, log *slog.Logger) (*vmdisk.Store, error) {
	d, err := vmdisk.Open(dir, vmdisk.Options{Reserve: reserve, Log: log})
	if err != nil {
		return nil, Explain(dir, err)
	}
	return d, nil
}

var vmID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// guestState is what stands beside a disk in an engine's data directory and depends on it.
type guestState struct {
	// suspended: a memory was saved that fits to the disk as it is now.
	suspended bool
	// running: the VM's hypervisor lives and waits for its engine.
	running bool
}

// vmOf is the directory of the VM whose disk is in dir, an absolute path, if that is in an engine's data directory.
func vmOf(dir string) (vm string, ok bool) {
	vm = filepath.Dir(dir)
	return vm, filepath.Base(dir) == "disk" && filepath.Base(filepath.Dir(vm)) == "vms" && vmID.MatchString(filepath.Base(vm))
}

// guestOf looks beside the disk in dir, an absolute path. Of a disk that isn't in an engine's data directory
// there is nothing to say.
func guestOf(dir string) guestState {
	vm, ok := vmOf(dir)
	if !ok {
		return guestState{}
	}
	_, err := os.Stat(filepath.Join(vm, "memory.json"))
	run := filepath.Join(filepath.Dir(api.SocketPath(filepath.Dir(filepath.Dir(vm)))), filepath.Base(vm)[:12])
	return guestState{suspended: err == nil, running: qemu.Running(run)}
}

// cancelled is the end that the person wanted.
func cancelled(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return &api.Error{Code: api.CodeCancelled, Sentence: "It was cancelled; nothing was made."}
}
