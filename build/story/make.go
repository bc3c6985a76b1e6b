//go:build linux

package story

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// pairPCs pairs b with a, which shows the code.
func pairPCs(ctx context.Context, a, b *PC, say func(string, ...any)) error {
	open, err := a.Client.PairStart(ctx, api.PairStart{})
	if err != nil {
		return fmt.Errorf("open the pairing window: %w", err)
	}
	join := api.PairJoin{Code: open.Code}
	if a.Host.Site() == b.Host.Site() {
		say("%s shows the code %s (tagalong pair); %s looks for it by mDNS", a.Name, open.Code, b.Name)
	} else {
		for _, addr := range open.Addrs {
			if strings.HasPrefix(addr, a.Host.Addr().String()+":") {
				join.Addr = addr
			}
		}
		say("%s shows the code %s and the address %s (tagalong pair) for %s, which is elsewhere", a.Name, open.Code, join.Addr, b.Name)
	}
	var joined *api.Pairing
	err = until(ctx, "pairing", 3*time.Minute, func(ctx context.Context) (bool, error) {
		joined, err = b.Client.PairJoin(ctx, join)
		var e *api.Error
		if errors.As(err, &e) && e.Code != api.CodeUnreachable {
			return false, err
		}
		return err == nil, err
	})
	if err != nil {
		return err
	}
	say("%s and %s are paired; both show: %v", a.Name, b.Name, joined.Words)
	return nil
}

// makeVM makes a VM from a raw image on a PC, waits until it is there, and returns its ID. show is called with the job as it goes.
func makeVM(ctx context.Context, p *PC, name, image string, memoryMiB int64, show func(api.Job)) (string, error) {
	job, err := p.Client.CreateVM(ctx, api.CreateVM{Name: name, CPUs: 1, MemoryMiB: memoryMiB, Image: image, Format: "raw"})
	if err != nil {
		return "", fmt.Errorf("make the VM: %w", err)
	}
	return job.VM, awaitJob(ctx, p, job.ID, "the import", show)
}

// awaitJob waits until a PC's job has ended well.
func awaitJob(ctx context.Context, p *PC, id, what string, show func(api.Job)) error {
	var failed error
	err := until(ctx, what, 5*time.Minute, func(ctx context.Context) (bool, error) {
		status, err := p.Client.Status(ctx)
		if err != nil {
			return false, err
		}
		for _, j := range status.Jobs {
			if j.ID == id {
				show(j)
				if j.Error != nil {
					failed = j.Error
				}
				return j.Done || failed != nil, nil
			}
		}
		return false, errors.New("the job has vanished")
	})
	return errors.Join(err, failed)
}

// AwaitJob waits until a PC's job has ended well.
func (f *Fleet) AwaitJob(ctx context.Context, on string, job *api.Job) error {
	return awaitJob(ctx, f.PC(on), job.ID, job.Kind+" on "+on, func(api.Job) {})
}
