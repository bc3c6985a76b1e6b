//go:build linux

package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/records"
	"tagalong.org/tagalong/build/story"
)

var exports = flag.Int("e2e.exports", 4, "how often TestThereAndBack exports the disk while the guest writes")

const (
	// exportRate makes an export last, so that the guest writes much meanwhile, in bytes a second.
	exportRate = 12 << 20
	// The guest's ring of records, as build/guest lays it out.
	ringFiles, ringRecords = 8, 1024
)

// exported copies the disk under the running guest, again and again, each time from a new cut. Each copy must be what a power cut
// could have left: a whole file system, with all records that the guest had made durable before it was asked for, none from when
// it was under way, and none that is damaged. The guest must notice nothing.
func exported(ctx context.Context, s *story.Story) error {
	dir, err := os.MkdirTemp("", "tagalong-export-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tested := false
	for i := range *exports {
		if err := exportOnce(ctx, s, dir, []api.DiskFormat{api.DiskRaw, api.DiskQcow2}[i%2], &tested); err != nil {
			return fmt.Errorf("export %d: %w", i, err)
		}
	}
	if !tested && *exports > 0 {
		return errors.New("the guest wrote nothing during any export: nothing was tested")
	}
	return s.StillRuns(ctx, s.A)
}

func exportOnce(ctx context.Context, s *story.Story, dir string, format api.DiskFormat, tested *bool) error {
	raw, file := filepath.Join(dir, "copy.raw"), filepath.Join(dir, "copy."+string(format))
	defer func() { _, _ = os.Remove(raw), os.Remove(file) }() // the directory goes in any case
	durable, err := s.Console(s.A).Sync(ctx)
	if err != nil {
		return err
	}
	var beyond uint64
	_, err = s.Export(ctx, s.A, file, format, exportRate, func() (err error) {
		beyond, err = s.Console(s.A).Sync(ctx)
		return err
	})
	if err != nil {
		return err
	}
	// What is written after the last word before the end counts for nothing: on a busy computer that may be all.
	if written, _ := s.Console(s.A).Progress(); written > beyond {
		*tested = true
	}
	if file != raw {
		if err := runTool(ctx, "qemu-img", "convert", "-f", string(format), "-O", "raw", file, raw); err != nil {
			return err
		}
	}
	last, err := checkImage(ctx, raw)
	if err == nil && last < durable {
		err = fmt.Errorf("the copy ends with record %d, but %d was durable before it began", last, durable)
	}
	if err == nil && last > beyond {
		err = fmt.Errorf("the copy ends with record %d, but %d was the last one when it had begun: it isn't of one moment", last, beyond)
	}
	return err
}

// checkImage looks at a copy of the test guest's disk as the next boot would, and returns its last record.
func checkImage(ctx context.Context, image string) (last uint64, err error) {
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
	if err := runTool(ctx, "dd", "if="+image, "of="+root, "bs=1M", "iflag=skip_bytes", fmt.Sprintf("skip=%d", at), "conv=sparse"); err != nil {
		return 0, err
	}
	// 1 is how it says that it has replayed the journal.
	var exit *exec.ExitError
	if err := runTool(ctx, "e2fsck", "-y", "-E", "journal_only", root); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		return 0, err
	}
	if err := runTool(ctx, "e2fsck", "-f", "-n", root); err != nil {
		return 0, err
	}
	var ring []records.File
	for i := range ringFiles {
		path := fmt.Sprintf("%s.ring.%d", image, i)
		defer os.Remove(path)
		if err := runTool(ctx, "debugfs", "-R", fmt.Sprintf("dump /data/ring.%d %s", i, path), root); err != nil {
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
	if err == nil && (!report.OK() || report.Records == 0) {
		err = fmt.Errorf("the records in the copy: %+v", report)
	}
	return report.Last, err
}

// runTool runs a tool that must succeed; build/deps.sh installs them all.
func runTool(ctx context.Context, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		path = filepath.Join("/usr/sbin", name) // not in everybody's PATH
	}
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
	}
	return nil
}
