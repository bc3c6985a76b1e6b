package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/holdpoint"
	"tagalong.org/tagalong/app/meter"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// blockSize is vmdisk's unit, in bytes.
const blockSize = vmdisk.Block

// feedRun keeps one device's replica of an owned VM up to date, for as long as this device owns it.
type feedRun struct {
	v      *vm
	device string
	cancel context.CancelFunc
	done   chan struct{}
	poke   chan struct{} // 1-buffered: look again whether the device is mirrored to
	stats  mirror.Stats
	// compared counts what was compared, unfit how often that failed in a row; run's.
	compared compare.Stats
	unfit    int

	// guarded by mu
	mu     sync.Mutex
	meter  meter.Meter
	heard  time.Time
	why    string    // the last refusal, so that it is logged once
	nearAt time.Time // when the device was last near; zero: it isn't
}

// feedProgress is how far a device is.
type feedProgress struct {
	phase     vmdisk.Phase
	live      bool
	near      bool // it gets every write at once, if it can be reached
	remaining int64
	copied    int64
	rate      int64
	position  vmdisk.Position
	heard     time.Time
	// since bounds the age of what it lacks, overrun is when it couldn't keep up: api.Replica has the words.
	since, overrun time.Time
}

const (
	mirrorRetryMin = 100 * time.Millisecond
	mirrorRetryMax = 2 * time.Second
)

// syncFeeds starts a feed for every device of the fleet that has none and ends those of removed
// devices. It is harmless unless this device owns the VM.
func (v *vm) syncFeeds() {
	if !v.owner() {
		return
	}
	members := map[string]bool{}
	for _, m := range v.e.dir.Members() {
		members[m.ID] = true
	}
	var gone []*feedRun
	v.mu.Lock()
	for device := range members {
		if v.feeds[device] == nil && v.disk != nil && !v.closed && device != v.heldBack {
			v.feeds[device] = v.startFeed(device)
		}
	}
	for device, f := range v.feeds {
		if !members[device] {
			gone = append(gone, f)
			delete(v.feeds, device)
		}
	}
	disk := v.disk
	v.mu.Unlock()
	for _, f := range gone {
		f.cancel()
		<-f.done
		if disk == nil {
			continue // the engine is ending
		}
		if err := disk.Forget(f.device); err != nil {
			v.log.Warn("Forgetting a device's dirty set failed", "device", f.device, "error", err)
		}
	}
}

// startFeed is called with v.mu held.
func (v *vm) startFeed(device string) *feedRun {
	ctx, cancel := context.WithCancel(v.e.ctx)
	f := &feedRun{v: v, device: device, cancel: cancel, done: make(chan struct{}), poke: make(chan struct{}, 1)}
	v.e.spawn(func() {
		defer close(f.done)
		f.run(ctx)
	})
	return f
}

// holdBack lets the device's feed rest, until another one's is to; "" is none. It ends it, and waits for its end.
func (v *vm) holdBack(device string) {
	v.mu.Lock()
	v.heldBack = device
	f := v.feeds[device]
	delete(v.feeds, device)
	v.mu.Unlock()
	if f != nil {
		f.cancel()
		<-f.done
	}
}

// stopFeeds ends all feeds and waits for them.
func (v *vm) stopFeeds() {
	v.mu.Lock()
	feeds := v.feeds
	v.feeds = map[string]*feedRun{}
	v.mu.Unlock()
	for _, f := range feeds {
		f.cancel()
	}
	for _, f := range feeds {
		<-f.done
	}
}

func (v *vm) feed(device string) *feedRun {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.feeds[device]
}

func (v *vm) feedCopied(device string) int64 {
	if f := v.feed(device); f != nil {
		return f.stats.Sent.Load()
	}
	return 0
}

// run mirrors whenever the device can be reached and is near.
func (f *feedRun) run(ctx context.Context) {
	wake, stop := f.v.e.host.Watch()
	defer stop()
	pause := mirrorRetryMin
	for f.awaitNear(ctx, wake) {
		began := time.Now()
		nearby, stopLooking := f.whileNear(ctx)
		holdpoint.At(nearby, holdpoint.Feed)
		err := f.mirrorWhatDiffers(nearby)
		stopLooking()
		if ctx.Err() != nil {
			return
		}
		f.report(err)
		if time.Since(began) > mirrorRetryMax {
			pause = mirrorRetryMin
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
			pause = mirrorRetryMin
		case <-time.After(pause):
			pause = min(2*pause, mirrorRetryMax)
		}
	}
}

// report logs a change of outcome, not every try.
func (f *feedRun) report(err error) {
	why := ""
	if err != nil && !usual(err) {
		why = err.Error()
	}
	f.mu.Lock()
	news := why != f.why && why != ""
	f.why = why
	f.mu.Unlock()
	if news {
		f.v.log.Info("Mirroring stopped", "device", f.device, "error", err)
	}
	f.v.e.saveRecordSoon()
	f.v.e.hub.publish(api.Event{Kind: "replica.changed", VM: f.v.id, Device: f.device})
}

// usual says that a mirror ended, or didn't begin, for a reason that passes by itself and needs no word.
func usual(err error) bool {
	var refusal *replica.Refusal
	if errors.As(err, &refusal) {
		return refusal.Code == replica.RefuseUnknown || refusal.Code == replica.RefuseBusy
	}
	for _, passing := range []error{
		errFar, errCompareFirst, vmdisk.ErrDetached, p2p.ErrNotConnected, p2p.ErrConnLost, vmdisk.ErrInactive, vmdisk.ErrHydrating,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// mirror mirrors until something ends it. If it may compare it stops (errCompareFirst) before it would copy everything, or be refused.
func (f *feedRun) mirror(ctx context.Context, mayCompare bool) error {
	disk, target, s, err := f.open(ctx, mirror.Protocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	var feed *vmdisk.Feed
	defer func() {
		if feed != nil {
			feed.Close()
		}
	}()
	return mirror.Send(ctx, s, mirror.Hello{Target: target}, func(state mirror.State) (mirror.Source, error) {
		r := diskmirror.ReplicaState(disk, target.Size, state)
		if mayCompare && disk.WorthComparing(f.device, r) {
			return nil, errCompareFirst
		}
		var err error
		feed, err = disk.Attach(f.device, r)
		if err != nil {
			return nil, err
		}
		f.report(nil)
		return diskmirror.Source{Feed: feed, Heard: f.noteHeard}, nil
	}, &f.stats)
}

// open opens a stream to the device, to speak in that protocol about the disk as this device owns it now.
func (f *feedRun) open(ctx context.Context, protocol string) (disk *vmdisk.Store, target replica.Target, s p2p.Stream, err error) {
	if disk = f.v.currentDisk(); disk == nil {
		return nil, target, nil, errVMClosed
	}
	info := disk.Info()
	switch {
	case !info.Active:
		return nil, target, nil, vmdisk.ErrInactive
	case info.Hydrating:
		return nil, target, nil, vmdisk.ErrHydrating
	}
	if err := f.v.tellSize(disk.Size()); err != nil {
		return nil, target, nil, err
	}
	target = replica.Target{VM: f.v.id, Disk: replica.ID(disk.ID()), Size: disk.Size(), Term: info.Term}
	s, err = f.v.e.host.Open(ctx, f.device, protocol)
	return disk, target, s, err
}

// progress is how far the device is, as the disk knows it.
func (f *feedRun) progress() feedProgress {
	p := feedProgress{copied: f.stats.Sent.Load()}
	disk := f.v.currentDisk()
	if disk == nil {
		return p
	}
	for _, peer := range disk.Peers() {
		if peer.Peer == f.device {
			p.phase, p.live = peer.Phase, peer.Phase == vmdisk.Live
			p.remaining, p.position = peer.Remaining, peer.Acked
			p.since, p.overrun = peer.Since, peer.Fell
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p.rate = f.meter.Update(time.Now(), p.copied+f.compared.Compared.Load())
	p.heard, p.near = f.heard, !f.nearAt.IsZero()
	return p
}

// noteHeard tells that the device has acknowledged something.
func (f *feedRun) noteHeard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = time.Now()
}

// applyRun is what comes in while this device has a replica: the owner's writes, or a push.
type applyRun struct {
	owner  string // whose, or who pushes
	cancel context.CancelFunc
	done   chan struct{}
	stats  mirror.Stats

	push bool
	// term is the VM's when the push began; afar says that it comes from another site. They are set before the run is known.
	term   uint64
	afar   bool
	pushed push.Stats
	// What of the push was there when it was last looked at, and since when; guarded by vm.mu.
	seen   int64
	seenAt time.Time
}

// handleMirror serves an owner's stream: it writes this device's replica.
func (e *Engine) handleMirror(ctx context.Context, s p2p.Stream) {
	defer s.Reset()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := &applyRun{owner: s.Peer(), cancel: cancel, done: make(chan struct{})}
	var v *vm
	var applier *vmdisk.Applier
	err := mirror.Receive(ctx, s, func(h mirror.Hello) (mirror.Sink, mirror.State, error) {
		var err error
		if v, err = e.replicaFor(s.Peer(), h.Target); err != nil {
			return nil, mirror.State{}, err
		}
		if err := v.mayTake(h.Term); err != nil {
			return nil, mirror.State{}, err
		}
		if applier, err = v.beginApplying(run, h.Size); err != nil {
			return nil, mirror.State{}, err
		}
		v.followsOwner()
		return diskmirror.Sink{Applier: applier, Reached: v.noteReached}, diskmirror.State(applier.State()), nil
	}, &run.stats)
	v.endApplying(run, applier)
	e.ownersStreamEnded(ctx, s, mirror.Protocol, err)
}

// endApplying ends a stream that wrote the replica, if it came so far; else v or applier is nil.
func (v *vm) endApplying(run *applyRun, applier *vmdisk.Applier) {
	if applier == nil {
		return
	}
	if err := applier.Close(); err != nil {
		v.log.Warn("Closing the replica failed", "error", err)
	}
	v.mu.Lock()
	if v.applying == run {
		v.applying = nil
	}
	v.mu.Unlock()
	close(run.done)
}

// ownersStreamEnded logs how an owner's stream about a replica ended, unless that passes by itself. ctx is what it ran under.
func (e *Engine) ownersStreamEnded(ctx context.Context, s p2p.Stream, protocol string, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, p2p.ErrConnLost) || errors.Is(err, io.EOF) {
		return
	}
	level := slog.LevelDebug
	for _, grave := range []error{mirror.ErrProtocol, compare.ErrProtocol, vmdisk.ErrFailed, syscall.ENOSPC} {
		if errors.Is(err, grave) {
			level = slog.LevelWarn
		}
	}
	e.log.Log(ctx, level, "An owner's stream about a replica ended", "device", s.Peer(), "protocol", protocol, "error", err)
}

// replicaFor checks that the sender is the VM's owner under that very term, by this device's own
// directory, and finds or makes the replica.
func (e *Engine) replicaFor(device string, h replica.Target) (*vm, error) {
	term, owner, ok := e.dir.Owner(h.VM)
	switch {
	case !ok || h.Term > term:
		return nil, &replica.Refusal{Code: replica.RefuseUnknown, Text: "the VM's record hasn't arrived yet"}
	case h.Term < term || owner != device:
		return nil, &replica.Refusal{Code: replica.RefuseOldTerm, Text: fmt.Sprintf("the owner under term %d is another device", term)}
	}
	v := e.vm(h.VM)
	if v == nil {
		return nil, &replica.Refusal{Code: replica.RefuseUnknown, Text: "the VM's record hasn't arrived yet"}
	}
	if err := v.mayReceive(); err != nil {
		return nil, err
	}
	if err := v.ensureReplica(h); err != nil {
		return nil, err
	}
	return v, nil
}

// ensureReplica makes an empty replica where there is none, and one that is smaller than the disk of which is spoken as large as that.
func (v *vm) ensureReplica(h replica.Target) error {
	disk, err := v.openReplica(h)
	if err != nil {
		return err
	}
	return v.fit(disk, h.Size)
}

// openReplica is the replica of that disk, which is made if there is none.
func (v *vm) openReplica(h replica.Target) (*vmdisk.Store, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.disk != nil {
		if v.disk.ID() != vmdisk.ID(h.Disk) {
			return nil, &replica.Refusal{Code: replica.RefuseOther, Text: "this device's disk of the VM is another one"}
		}
		return v.disk, nil
	}
	r, ok := v.record()
	if !ok || r.Disk != vmdisk.ID(h.Disk).String() || r.DiskBytes < h.Size {
		return nil, &replica.Refusal{Code: replica.RefuseUnknown, Text: "the disk isn't the one of the VM's record"}
	}
	disk, err := vmdisk.CreateReplica(v.diskDir(), vmdisk.ID(h.Disk), h.Size, v.e.diskOptions(v.id))
	if err != nil {
		return nil, fmt.Errorf("make a replica: %w", err)
	}
	v.disk = disk
	return disk, nil
}

// mayTake refuses what was written under a term that this device's copy gave away: it would be refused at the end. A side that was given up had gone on under
// higher terms; the owner will be above them as soon as it has heard of the choice.
func (v *vm) mayTake(term uint64) error {
	if disk := v.currentDisk(); disk != nil && term <= disk.Info().Given {
		return &replica.Refusal{Code: replica.RefuseBusy, Text: "this device waits until the VM goes on under a term above those that were given up here"}
	}
	return nil
}

// beginApplying ends an earlier stream, if that gives way, and opens the replica for this one, which brings a disk of so many bytes.
func (v *vm) beginApplying(run *applyRun, size int64) (*vmdisk.Applier, error) {
	v.mu.Lock()
	stays := v.applying != nil && !v.applying.gives(run, time.Now())
	v.mu.Unlock()
	if stays {
		return nil, &replica.Refusal{Code: replica.RefuseBusy, Text: "another stream brings this copy further"}
	}
	v.stopApplying()
	if disk := v.currentDisk(); disk != nil && !disk.ReplicaState().Complete {
		v.stopComparing() // which holds what isn't whole, so that nothing is written
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seeding != nil {
		return nil, errSeeding
	}
	if v.disk == nil || v.ownerLocked() || v.sealed || v.applying != nil {
		return nil, &replica.Refusal{Code: replica.RefuseBusy, Text: "the disk is in use"}
	}
	applier, err := v.disk.Apply()
	if err != nil {
		return nil, err
	}
	applier.Within(size)
	v.applying = run
	return applier, nil
}

// stopApplying ends the stream that writes the replica, if any, and waits for its end.
func (v *vm) stopApplying() {
	v.mu.Lock()
	run := v.applying
	v.mu.Unlock()
	if run != nil {
		run.cancel()
		<-run.done
	}
}

// endForeign ends the stream of a device that isn't the owner any more, by this device's directory: what it wrote after this, and
// after what is here has been judged, would be known to nobody. So it does with the owner's if the copy is, as has just been heard, a side of a conflict: by a
// hand-off that the owner's takeover has overtaken, say. A side stays as it is until the person has chosen.
func (v *vm) endForeign() {
	v.mu.Lock()
	run := v.applying
	v.mu.Unlock()
	if run == nil {
		return
	}
	term, owner, _ := v.e.dir.Owner(v.id)
	foreign := !run.push && run.owner != owner || run.push && run.term != term
	if foreign || !v.custody().MayReceive() {
		v.stopApplying()
	}
}

// appliedBytes counts what has come in on the present stream.
func (v *vm) appliedBytes() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.applying == nil {
		return 0
	}
	return v.applying.stats.Received.Load() + v.applying.pushed.Received.Load()
}

// noteReached tells that this device's replica has come further.
func (v *vm) noteReached() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.received, v.mirrored = time.Now(), true
}
