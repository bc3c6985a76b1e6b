//go:build linux

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/story"
)

var exports = flag.Int("e2e.exports", 4, "how often TestThereAndBack exports the disk while the guest writes")

// exportRate makes an export last, so that the guest writes much meanwhile, in bytes a second.
const exportRate = 12 << 20

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
		if err := story.RunTool(ctx, "qemu-img", "convert", "-f", string(format), "-O", "raw", file, raw); err != nil {
			return err
		}
	}
	last, err := story.CheckImage(ctx, raw)
	if err == nil && last < max(1, durable) {
		err = fmt.Errorf("the copy ends with record %d, but %d was durable before it began", last, durable)
	}
	if err == nil && last > beyond {
		err = fmt.Errorf("the copy ends with record %d, but %d was the last one when it had begun: it isn't of one moment", last, beyond)
	}
	return err
}
