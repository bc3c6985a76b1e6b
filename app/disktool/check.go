package disktool

import (
	"context"
	"log/slog"
	"path/filepath"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/throttle"
)

// CheckClosed checks the disk in req.Disk, which nobody has open. Something that is wrong is no error. The disk is changed only to
// record what req asks for, and to take the mark away that a clean check ends.
func CheckClosed(ctx context.Context, req api.CheckDisk, log *slog.Logger, progress func(done, total int64)) (*api.DiskCheck, error) {
	dir, err := filepath.Abs(req.Disk)
	if err != nil {
		return nil, Explain(req.Disk, err)
	}
	o := checkOptions(req, progress)
	o.Log = log
	r, err := vmdisk.Check(ctx, dir, o)
	if err != nil {
		return nil, Explain(dir, err)
	}
	return checked(dir, r), nil
}

// CheckOpen is CheckClosed for a disk in dir that is open; the guest goes on.
func CheckOpen(ctx context.Context, disk *vmdisk.Store, dir string, req api.CheckDisk, progress func(done, total int64)) (*api.DiskCheck, error) {
	r, err := disk.Check(ctx, checkOptions(req, progress))
	if err != nil {
		return nil, Explain(dir, err)
	}
	return checked(dir, r), nil
}

func checkOptions(req api.CheckDisk, progress func(done, total int64)) vmdisk.CheckOptions {
	return vmdisk.CheckOptions{Clear: true, Scrub: vmdisk.ScrubOptions{Throttle: throttle.New(req.Rate), Record: req.Record, Progress: progress}}
}

// checked puts a report into the API's words.
func checked(dir string, r *vmdisk.Report) *api.DiskCheck {
	c := &api.DiskCheck{
		Dir: dir, Clean: r.OK(), Findings: findings(r.Findings), Notes: findings(r.Notes), Damaged: []api.DiskDamage{},
		MoreDamaged: r.Content.MoreDamaged, Verified: r.Content.Verified, Unverified: r.Content.Unverified, Busy: r.Content.Busy,
		Recorded: r.Content.Recorded, Cleared: r.Cleared,
	}
	for _, d := range r.Content.Damaged {
		x := api.DiskDamage{Off: d.Off, Len: d.Len}
		if d.Err != nil {
			x.Error = d.Err.Error()
		}
		c.Damaged = append(c.Damaged, x)
	}
	return c
}

func findings(list []vmdisk.Finding) []api.DiskFinding {
	out := []api.DiskFinding{}
	for _, f := range list {
		out = append(out, api.DiskFinding{File: f.File, Sentence: f.Text, Next: f.Next})
	}
	return out
}
