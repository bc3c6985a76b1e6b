//go:build linux

package story

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
)

// Console is the guest's serial line on a PC; nil if nobody listens there.
func (s *Story) Console(p *PC) *console.Console { return s.consoles[p.Name] }

// Export copies the VM's disk into a file, at most rate bytes a second, while the VM goes on. begun is called once, when something has
// been copied: the position is chosen by then.
func (s *Story) Export(ctx context.Context, p *PC, file string, format api.DiskFormat, rate int64, begun func() error) (*api.DiskExport, error) {
	job, err := p.Client.ExportDisk(ctx, api.ExportDisk{Disk: VMName, File: file, Format: format, Rate: rate})
	if err != nil {
		return nil, fmt.Errorf("export the disk: %w", err)
	}
	var made *api.DiskExport
	var failed error
	err = until(ctx, "the export", 3*time.Minute, func(ctx context.Context) (bool, error) {
		status, err := p.Client.Status(ctx)
		if err != nil {
			return false, err
		}
		for _, j := range status.Jobs {
			if j.ID == job.ID {
				if j.Bytes > 0 && begun != nil {
					failed, begun = begun(), nil
				}
				made = j.Export
				return j.Done, nil
			}
		}
		return false, errors.New("the job has vanished")
	})
	if err = errors.Join(err, failed); err == nil && made == nil {
		err = errors.New("the export failed; the engine's log says why")
	}
	if err != nil {
		return nil, err
	}
	s.say("exported the disk of the running %s: %s of %s at position %d/%d", VMName, format, size(made.Size), made.Position.Term, made.Position.Barrier)
	return made, nil
}
