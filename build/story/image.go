//go:build linux

package story

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"tagalong.org/tagalong/build/guest/records"
)

// The guest's ring of records, as build/guest lays it out.
const ringFiles, ringRecords = 8, 1024

// CheckImage looks at a copy of the test guest's disk as the next boot would, and returns its last record. That is 0 if there is none yet: whether
// there must be one is the caller's to know.
func CheckImage(ctx context.Context, image string) (last uint64, err error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	table := make([]byte, 512)
	_, err = f.ReadAt(table, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	// The second entry of the partition table has the root file system. e2fsck needs it in a file of its own.
	at, root := int64(binary.LittleEndian.Uint32(table[446+16+8:]))<<9, image+".root"
	defer os.Remove(root)
	if err := RunTool(ctx, "dd", "if="+image, "of="+root, "bs=1M", "iflag=skip_bytes", fmt.Sprintf("skip=%d", at), "conv=sparse"); err != nil {
		return 0, err
	}
	// 1 is how it says that it has replayed the journal.
	var exit *exec.ExitError
	if err := RunTool(ctx, "e2fsck", "-y", "-E", "journal_only", root); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		return 0, err
	}
	if err := RunTool(ctx, "e2fsck", "-f", "-n", root); err != nil {
		return 0, err
	}
	var ring []records.File
	for i := range ringFiles {
		path := fmt.Sprintf("%s.ring.%d", image, i)
		defer os.Remove(path)
		if err := RunTool(ctx, "debugfs", "-R", fmt.Sprintf("dump /data/ring.%d %s", i, path), root); err != nil {
			return 0, err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		ring = append(ring, f)
	}
	r, err := records.Open(ring, ringRecords, 1)
	if err != nil {
		return 0, err
	}
	report, err := r.Recover()
	if err == nil && !report.OK() {
		err = fmt.Errorf("the records in the copy: %+v", report)
	}
	return report.Last, err
}

// RunTool runs a tool that must succeed; build/deps.sh installs them all.
func RunTool(ctx context.Context, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		path = filepath.Join("/usr/sbin", name) // not in everybody's PATH
	}
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
	}
	return nil
}
