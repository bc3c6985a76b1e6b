package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/reached"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// How a VM's owner hears where the copies are that its own streams don't bring further.

// report is what the VM's owner was told of where this device's copy is.
type report struct {
	owner   string
	at      vmdisk.Position // zero: that there is none
	running bool
	before  time.Time // not again earlier
}

// reportAgain is after how long the owner is told again what it didn't note.
const reportAgain = 10 * time.Second

// reportReplicas tells the owners where this device's copies are, of those that the owner's own streams don't bring further.
func (e *Engine) reportReplicas(ctx context.Context, under *sync.WaitGroup) {
	away := map[string]bool{}
	for _, p := range e.host.Peers() {
		at := e.nearness(p, true)
		away[p.ID] = p.Connected && (at == isFar || at == isApart)
	}
	for _, v := range e.allVMs() {
		r, ok := v.reportable()
		if !ok || !away[r.owner] {
			continue
		}
		p := &e.post
		p.mu.Lock()
		last := p.reports[v.id]
		due := !last.running && (last.owner != r.owner || last.at != vmdisk.Position(r.Position)) && !time.Now().Before(last.before)
		if due {
			last.running = true
			p.reports[v.id] = last
		}
		p.mu.Unlock()
		if !due {
			continue
		}
		under.Go(func() {
			err := e.report(ctx, r.owner, r.Report)
			now := report{owner: last.owner, at: last.at, before: time.Now().Add(reportAgain)}
			if err == nil {
				now = report{owner: r.owner, at: vmdisk.Position(r.Position)}
			} else if ctx.Err() == nil {
				v.log.Debug("The owner doesn't know where this copy is", "device", r.owner, "error", err)
			}
			p.mu.Lock()
			p.reports[v.id] = now
			p.mu.Unlock()
		})
	}
}

// dueReport is a report, and whom it is for.
type dueReport struct {
	owner string
	reached.Report
}

// reportable is what there is to be told of this device's copy, which nothing of the owner's brings further at present: where it is, or, if the owner believes
// that there is one, that there is none. As after all that was here was set aside.
func (v *vm) reportable() (r dueReport, ok bool) {
	v.mu.Lock()
	disk, applying, state := v.disk, v.applying, v.state
	idle := !v.ownerLocked() && (applying == nil || applying.push)
	gone := state == baton.Replica && applying == nil && v.aside == nil && v.seeding == nil
	v.mu.Unlock()
	term, owner, known := v.e.dir.Owner(v.id)
	self := v.e.host.ID()
	if !known || !idle || owner == self {
		return r, false
	}
	if disk == nil || !disk.ReplicaState().Complete {
		record, isThere := v.record()
		id, err := vmdisk.ParseID(record.Disk)
		if !gone || !isThere || err != nil || !v.e.dir.Replicas(v.id)[self].Complete || disk == nil && !v.diskless() {
			return r, false
		}
		return dueReport{owner, reached.Report{Target: replica.Target{VM: v.id, Disk: replica.ID(id), Size: record.DiskBytes, Term: term}}}, true
	}
	st := disk.ReplicaState()
	if !st.Complete || st.Position == (vmdisk.Position{}) || !v.e.history(v.id, replica.Position(st.Position)) {
		return r, false
	}
	target := replica.Target{VM: v.id, Disk: replica.ID(st.Disk), Size: disk.Size(), Term: term}
	return dueReport{owner, reached.Report{Target: target, Position: replica.Position(st.Position)}}, true
}

// diskless says that there isn't even a disk that can't be opened.
func (v *vm) diskless() bool {
	_, err := os.Lstat(v.diskDir())
	return errors.Is(err, fs.ErrNotExist)
}

func (e *Engine) report(ctx context.Context, owner string, r reached.Report) error {
	s, err := e.host.Open(ctx, owner, reached.Protocol)
	if err != nil {
		return err
	}
	return reached.Tell(ctx, s, r)
}

// handleReached hears where another device's copy of a VM is that this device owns.
func (e *Engine) handleReached(ctx context.Context, s p2p.Stream) {
	err := reached.Hear(ctx, s, func(r reached.Report) error {
		v := e.vm(r.VM)
		if v == nil || !v.owner() {
			return errNoCut
		}
		term, _, _ := e.dir.Owner(r.VM)
		disk := v.currentDisk()
		if disk == nil || r.Term > term {
			return errNoCut
		}
		err := noted(disk, s.Peer(), r)
		if errors.Is(err, vmdisk.ErrAttached) {
			return nil // its feed knows better
		}
		if err == nil {
			v.heardOf(s.Peer())
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		e.log.Debug("A device's word of where its copy is wasn't noted", "device", s.Peer(), "error", err)
	}
}

// noted notes a report on the owner's disk.
func noted(disk *vmdisk.Store, device string, r reached.Report) error {
	if r.Position == (replica.Position{}) {
		return disk.Lost(device)
	}
	return disk.Reached(device, vmdisk.ReplicaState{Disk: vmdisk.ID(r.Disk), Complete: true, Position: vmdisk.Position(r.Position)})
}

// heardOf tells everybody who shows or tells it that another device's copy has come further.
func (v *vm) heardOf(device string) {
	if f := v.feed(device); f != nil {
		f.noteHeard()
	}
	v.e.saveRecordSoon()
	v.e.hub.publish(api.Event{Kind: "replica.changed", VM: v.id, Device: device})
	v.e.post.soon()
}
