package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/standing"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
)

// How often an owner tells the fleet anew what the others' replicas lack. What makes a difference to the person (telling.gist) is told at
// once.
const (
	tellEvery = 30 * time.Second
	// tellLive is how often it is told that a device that had everything still has.
	tellLive = 2 * time.Minute
	// tellRate is how many bytes of stale sets a second one device's are worth in the long run: each goes to every device of the fleet.
	tellRate = 64 << 10
	// tellShare is how many times as long as the telling the pause after it is.
	tellShare = 50
)

// telling is what was last told of a device's replica, and when.
type telling struct {
	gist      string // what is told at once when it changes
	live      bool
	remaining int64
	acked, of vmdisk.Position
	at        time.Time     // zero: never
	pause     time.Duration // what it took makes the next wait
}

// due says whether it is time to tell now instead of last.
func (now telling) due(last telling) bool {
	wait := max(tellEvery, last.pause)
	if now.live && last.remaining == 0 {
		wait = max(tellLive, last.pause)
	}
	switch {
	case last.at.IsZero() || now.gist != last.gist:
		return true
	case now.remaining == last.remaining && now.acked == last.acked && now.of == last.of:
		return false
	}
	return now.at.Sub(last.at) >= wait
}

// tellReplicas keeps what the fleet is told of the replicas of this device's VMs in step with their disks.
func (e *Engine) tellReplicas(ctx context.Context) error {
	tick := time.NewTicker(recordEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.replicasDue:
		case <-tick.C:
		}
		e.mu.Lock()
		vms := make([]*vm, 0, len(e.vms))
		for _, v := range e.vms {
			vms = append(vms, v)
		}
		e.mu.Unlock()
		for _, v := range vms {
			if err := v.tellReplicas(ctx); err != nil {
				e.log.Warn("Telling what the replicas lack failed", "vm", v.id, "error", err)
			}
		}
	}
}

// quiet says that nothing writes the disk, and nothing will unless uncertain is called first.
func (v *vm) quiet() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ownerLocked() && v.guest == nil && !v.starting && v.op == ""
}

// tellReplicas tells what is due. Only one goroutine calls it.
func (v *vm) tellReplicas(ctx context.Context) error {
	v.mu.Lock()
	owner, disk, feeds := v.ownerLocked(), v.disk, make([]*feedRun, 0, len(v.feeds))
	for _, f := range v.feeds {
		feeds = append(feeds, f)
	}
	v.mu.Unlock()
	if !owner || disk == nil {
		v.tellings = nil
		return nil
	}
	if v.tellings == nil {
		v.tellings = map[string]telling{}
	}
	var errs []error
	quiet := v.quiet()
	peers := v.e.host.Peers()
	for _, f := range feeds {
		p := v.replicaOf(f, peers)
		info := disk.Info()
		now := telling{
			gist: fmt.Sprint(info.Term, p.State, quiet && !info.Unflushed), live: p.State == api.ReplicaLive, remaining: p.Remaining,
			acked: vmdisk.Position(p.Position), of: info.Position, at: time.Now(),
		}
		if p.State == api.ReplicaWaiting {
			now.gist += fmt.Sprint(p.Position) // pushes are seldom, and who goes on with them must know of each
		}
		if ctx.Err() != nil || !now.due(v.tellings[f.device]) {
			continue
		}
		told, err := v.tellReplica(f.device, p, disk, &now)
		if told {
			v.tellings[f.device] = now
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, v.tellCertain(disk))...)
}

// tellReplica writes the record of one device's replica, and notes in now what it told.
func (v *vm) tellReplica(device string, p api.Replica, disk *vmdisk.Store, now *telling) (told bool, err error) {
	lag, ok := disk.Lag(device)
	if !ok {
		return false, nil // its feed has yet to begin
	}
	defer lag.Release()
	if err := v.tellSize(disk.Size()); err != nil {
		return false, err
	}
	began, before := time.Now(), v.e.dir.ChunkStats().Written
	info := directory.ReplicaInfo{
		Position: directory.Position(lag.Acked), Of: directory.Position(lag.Of),
		Complete: p.State != api.ReplicaCopying && lag.Acked != vmdisk.Position{}, At: began.UTC(), Heard: p.Heard.UTC(),
		Sync: directory.Carried(standing.Encode(standing.Standing{State: string(p.State), Rate: p.Rate, Since: p.Since, Overrun: p.Overrun})),
	}
	err = v.e.dir.PutReplica(v.id, device, info, lag)
	if errors.Is(err, directory.ErrFull) {
		v.log.Warn("A stale set is too large to be told: only its size is", "device", device, "error", err)
		info.StaleBlocks = uint64(p.Remaining / blockSize)
		err = v.e.dir.PutReplica(v.id, device, info, nil)
	}
	if errors.Is(err, directory.ErrNotOwner) || errors.Is(err, directory.ErrNotFound) || errors.Is(err, directory.ErrUnknownDevice) {
		return false, nil // it is on its way out, or not published yet
	}
	if err != nil {
		return false, fmt.Errorf("device %s: %w", device, err)
	}
	written := v.e.dir.ChunkStats().Written - before
	now.acked, now.of, now.at = lag.Acked, lag.Of, time.Now()
	now.pause = max(tellShare*now.at.Sub(began), time.Duration(written)*time.Second/tellRate)
	return true, nil
}

// tellCertain says that what was told is certain, as long as nothing writes. A crash of this device must not make it untrue: the
// disk is settled first.
func (v *vm) tellCertain(disk *vmdisk.Store) error {
	v.sure.Lock()
	defer v.sure.Unlock()
	var of vmdisk.Position
	if v.quiet() && disk.Info().Active {
		settled, err := disk.Settle()
		if err != nil {
			return errors.Join(err, v.e.dir.SetCertain(v.id, directory.Position{}))
		}
		if info := disk.Info(); settled && !info.Unflushed && info.Active {
			of = info.Position
		}
	}
	return v.e.dir.SetCertain(v.id, directory.Position(of))
}

// uncertain takes back what tellCertain said. It is called, with starting set, before a guest may write.
func (v *vm) uncertain() error {
	v.sure.Lock()
	defer v.sure.Unlock()
	if err := v.e.dir.SetCertain(v.id, directory.Position{}); err != nil {
		return fmt.Errorf("take back that nothing writes the disk: %w", err)
	}
	return nil
}
