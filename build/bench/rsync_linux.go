package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// rsync brings a copy of an image up to date, as the same block size as ours lets it.
type rsync struct{ image, copy string }

func newRsync(image, copy string) *rsync { return &rsync{image, copy} }

// before makes the copy.
func (r *rsync) before(ctx context.Context) error {
	return command(ctx, "cp", r.image, r.copy)
}

var rsyncTotals = regexp.MustCompile(`Total bytes (?:sent|received): ([0-9,]+)`)

// after says how many bytes rsync's two ends exchange to bring the copy up to date, and removes it.
func (r *rsync) after(ctx context.Context) (int64, error) {
	out, err := exec.CommandContext(ctx, "rsync", "--inplace", "--no-whole-file", "-B", "4096", "--ignore-times", "--stats", r.image, r.copy).CombinedOutput()
	if err = errors.Join(err, os.Remove(r.copy)); err != nil {
		return 0, fmt.Errorf("rsync: %w: %s", err, out)
	}
	found := rsyncTotals.FindAllSubmatch(out, -1)
	if len(found) != 2 {
		return 0, fmt.Errorf("rsync said %q", out)
	}
	sum := int64(0)
	for _, m := range found {
		n, err := strconv.ParseInt(strings.ReplaceAll(string(m[1]), ",", ""), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func command(ctx context.Context, argv ...string) error {
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, out)
	}
	return nil
}
