package app

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/diskpush"
	"tagalong.org/tagalong/app/limits"
	"tagalong.org/tagalong/app/meter"
	"tagalong.org/tagalong/app/postal"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// The engine's side of package postal: it tells the scheduler what it knows, carries its orders out, and sends what a push has to send. What comes in is in
// postin.go.

// postTick is how often the scheduler is told what is known, beside every change of the connections.
const postTick = time.Second

// post is the push scheduler and what it has under way.
type post struct {
	times postal.Times // nothing changes them once the engine serves
	began time.Time
	due   chan struct{} // 1-buffered: something is new

	mu      sync.Mutex
	machine *postal.Machine
	runs    map[pushKey]*pushRun
	reports map[string]report // by VM
}

type pushKey struct{ vm, device string }

// pushRun is one push from here.
type pushRun struct {
	v      *vm
	device string
	onward bool
	cancel context.CancelCauseFunc
	stats  push.Stats
	meter  meter.Meter // guarded by post.mu
}

// errPostponed ends a push that isn't to go on now. What came is kept there.
var errPostponed = errors.New("the push is put off")

// errNoCut: this device has no copy that it may push.
var errNoCut = errors.New("this device has nothing to push")

func (p *post) soon() {
	select {
	case p.due <- struct{}{}:
	default:
	}
}

// postChanges pushes what is due, until ctx ends.
func (e *Engine) postChanges(ctx context.Context) error {
	met, stop := e.host.Watch()
	defer stop()
	allowed, stopAllowed := e.limits.Changed()
	defer stopAllowed()
	tick := time.NewTicker(postTick)
	defer tick.Stop()
	e.post.machine = postal.New(e.post.times)
	var under sync.WaitGroup
	defer under.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-met:
		case <-allowed:
		case <-tick.C:
		case <-e.post.due:
		}
		e.endForbidden()
		e.keepSources()
		e.reportReplicas(ctx, &under)
		e.stepPost(ctx, &under)
	}
}

// keepSources notes which of this device's copies came by their owners' mirrors, so that it goes on as a postmaster after a restart though
// the owner has left.
func (e *Engine) keepSources() {
	for _, v := range e.allVMs() {
		v.mu.Lock()
		is, kept := v.mirrored, v.mirroredKept
		v.mu.Unlock()
		if is == kept {
			continue
		}
		if err := e.dir.SetLocal(sourceKey(v.id), fmt.Appendf(nil, "%t", is)); err != nil {
			v.log.Warn("Noting where this copy came from failed", "error", err)
			continue
		}
		v.mu.Lock()
		v.mirroredKept = is
		v.mu.Unlock()
	}
}

func sourceKey(vm string) string { return "mirrored/" + vm }

// openSource takes up what keepSources noted; nothing, if that can't be read: then others push, or this device does when it is overdue.
func (v *vm) openSource() {
	b, err := v.e.dir.Local(sourceKey(v.id))
	v.mirrored = err == nil && string(b) == "true"
	v.mirroredKept = v.mirrored
}

// stepPost tells the scheduler what is known now and carries out what it says.
func (e *Engine) stepPost(ctx context.Context, under *sync.WaitGroup) {
	wishes := map[string]uint64{}
	for _, v := range e.allVMs() {
		wishes[v.id], _ = e.limits.Now(v.id)
	}
	in := e.postInput()
	p := &e.post
	p.mu.Lock()
	defer p.mu.Unlock()
	orders, served := p.machine.Tick(in)
	for _, vm := range served {
		if !e.vm(vm).pulls() { // else it is served when the disk is whole, and what was written is elsewhere
			e.limits.Served(vm, wishes[vm])
		}
	}
	for _, o := range orders {
		key := pushKey{o.VM, o.Device}
		if run := p.runs[key]; run != nil {
			if o.Stop {
				run.cancel(errPostponed)
			}
			continue
		}
		v := e.vm(o.VM)
		if o.Stop || v == nil {
			p.machine.Ended(o.VM, o.Device, in.Now, postal.Result{Busy: true})
			continue
		}
		ctx, cancel := context.WithCancelCause(ctx)
		run := &pushRun{v: v, device: o.Device, onward: o.Onward, cancel: cancel}
		p.runs[key] = run
		under.Go(func() {
			defer cancel(nil)
			if !run.onward {
				defer e.limits.Begin(v.id)()
			}
			began := time.Now()
			at, err := e.push(ctx, run)
			e.pushEnded(run, at, time.Since(began), err)
		})
	}
}

// postInput is what is known now.
func (e *Engine) postInput() postal.Input {
	e.sites.mu.Lock()
	view := e.sites.view
	e.sites.mu.Unlock()
	in := postal.Input{Now: time.Since(e.post.began), Self: e.host.ID(), Acting: view.Acting}
	for _, p := range e.host.Peers() {
		at := view.At(p.ID)
		in.Devices = append(in.Devices, postal.Device{
			ID: p.ID, Site: at.ID, Here: at.ID == view.Here.ID && at.ID != "", Post: at.Postmaster == p.ID, Connected: p.Connected,
		})
	}
	for _, v := range e.allVMs() {
		if vm, ok := v.postal(in.Devices); ok {
			in.VMs = append(in.VMs, vm)
		}
	}
	return in
}

// postal is what the scheduler has to know of the VM.
func (v *vm) postal(devices []postal.Device) (out postal.VM, ok bool) {
	v.mu.Lock()
	disk, mirrored, closed, owner := v.disk, v.mirrored, v.closed, v.ownerLocked()
	feeds := make([]*feedRun, 0, len(v.feeds))
	for _, f := range v.feeds {
		feeds = append(feeds, f)
	}
	v.mu.Unlock()
	if disk == nil || closed {
		return out, false
	}
	out = postal.VM{ID: v.id, Owner: v.ownerID(), Mirrored: mirrored || owner, May: v.e.limits.Allowance(v.id).May, Fed: map[string]bool{}, Told: map[string]postal.Position{}, None: map[string]bool{}}
	_, out.Asked = v.e.limits.Now(v.id)
	info := disk.Info()
	if info.Complete && info.Stale == 0 && owner == info.Active {
		out.At = postal.Position(info.Position)
		if owner && info.Unflushed {
			out.At.Barrier++ // as its next barrier will be, or earlier
		}
		if owner && v.custodyOfDisk(disk).Unnamed() {
			out.At = postal.Position{Term: info.Term, Barrier: info.Position.Barrier + 1} // a push names it
		}
	}
	for _, f := range feeds {
		f.mu.Lock()
		out.Fed[f.device] = !f.nearAt.IsZero()
		f.mu.Unlock()
	}
	for _, d := range devices {
		out.Mirrored = out.Mirrored || d.Here && d.ID == out.Owner
	}
	for device, r := range v.e.dir.Replicas(v.id) {
		if r.Complete {
			out.Told[device] = postal.Position(r.Position)
		}
		out.None[device] = !r.Complete
	}
	return out, true
}

// history says whether the VM's history, of which there must be one only, has the position.
func (e *Engine) history(vm string, pos replica.Position) bool {
	heads := e.dir.Heads(vm)
	return len(heads) == 1 && e.dir.Relation(heads[0].Hash(), directory.Position(pos)) == directory.RelationBehind
}

// pushable is the disk that may be pushed from here, and the term in whose name.
func (v *vm) pushable() (disk *vmdisk.Store, target replica.Target, err error) {
	v.mu.Lock()
	state, owner := v.state, v.ownerLocked()
	disk = v.disk
	v.mu.Unlock()
	term, _, ok := v.e.dir.Owner(v.id)
	if disk == nil || !ok {
		return nil, target, errNoCut
	}
	info := disk.Info()
	if !info.Complete || owner && (!info.Active || info.Term != term) || !owner && state != baton.Replica {
		return nil, target, errNoCut
	}
	if owner {
		if err := v.custodyOfDisk(disk).Name(); err != nil {
			return nil, target, err
		}
		if err := v.tellSize(disk.Size()); err != nil {
			return nil, target, err
		}
	}
	return disk, replica.Target{VM: v.id, Disk: replica.ID(disk.ID()), Size: disk.Size(), Term: term}, nil
}

// push brings the VM's disk as it is now to a device. It returns where that is then, if it is known.
func (e *Engine) push(ctx context.Context, r *pushRun) (at replica.Position, err error) {
	v := r.v
	disk, target, err := v.pushable()
	if err != nil {
		return at, err
	}
	cut, err := disk.Cut(ctx)
	if err != nil {
		return at, err
	}
	defer func() { err = errors.Join(err, cut.Close()) }()
	pos := replica.Position(cut.Position())
	target.Size = cut.Size()
	if r, ok := v.record(); ok {
		if target.Size, err = diskpush.Within(cut, r.DiskBytes); err != nil {
			return at, fmt.Errorf("the VM's record is of before the disk grew, or newer than this copy: %w: %w", err, errNoCut)
		}
	}
	if !e.history(v.id, pos) {
		return at, fmt.Errorf("the VM's history doesn't have %s: %w", cut.Position(), errNoCut)
	}
	s, err := e.host.Open(ctx, r.device, push.Protocol)
	if err != nil {
		return at, err
	}
	defer s.Reset()
	e.hub.publish(api.Event{Kind: "replica.changed", VM: v.id, Device: r.device})
	o := push.Options{Stats: &r.stats}
	if !r.onward {
		o.Pace = e.limits.Pace(limits.Up)
	}
	err = push.Send(ctx, s, push.Hello{Target: target, Cut: pos}, func(st push.State, holds iter.Seq2[int64, int64]) (push.Work, error) {
		there := diskpush.State(disk, st)
		v.noteReplica(disk, r.device, there)
		lacks, exact := diskpush.Lacks(disk, cut, r.device, there, known{v})
		work := diskpush.Work(disk, cut, target.Size, lacks, exact, holds)
		work.Source = pushSource{work.Source, ctx, e}
		return work, nil
	}, o)
	if err == nil {
		there := vmdisk.ReplicaState{Disk: disk.ID(), Complete: true, Position: cut.Position()}
		v.noteReplica(disk, r.device, there)
	}
	if err == nil || errors.Is(err, push.ErrNotNewer) {
		at = pos
	}
	return at, err
}

// known is what the directory says of a VM.
type known struct{ v *vm }

// Has implements diskpush.History.
func (t known) Has(pos vmdisk.Position) bool { return t.v.e.history(t.v.id, replica.Position(pos)) }

// Told implements diskpush.History.
func (t known) Told(device string) (diskpush.Told, bool) {
	v := t.v
	before := v.e.dir.Replicas(v.id)[device]
	runs, err := v.e.dir.StaleSet(v.id, device)
	after := v.e.dir.Replicas(v.id)[device]
	if err != nil || !before.Complete || before.Of != after.Of || before.Position != after.Position || !v.e.history(v.id, replica.Position(after.Of)) {
		return diskpush.Told{}, false
	}
	return diskpush.Told{Position: vmdisk.Position(after.Position), Of: vmdisk.Position(after.Of), Runs: runs}, true
}

// noteReplica tells this device's disk, if it is the owner's, where another device's replica is.
func (v *vm) noteReplica(disk *vmdisk.Store, device string, r vmdisk.ReplicaState) {
	if !v.owner() || !r.Complete {
		return
	}
	if err := disk.Reached(device, r); err != nil {
		v.log.Debug("Where a device's copy is can't be noted", "device", device, "error", err)
		return
	}
	v.heardOf(device)
}

// pushEnded tells the scheduler how a push ended.
func (e *Engine) pushEnded(r *pushRun, at replica.Position, took time.Duration, err error) {
	var refusal *replica.Refusal
	result := postal.Result{Reached: at}
	switch {
	case at != (replica.Position{}):
	case errors.Is(err, errPostponed), errors.Is(err, context.Canceled), errors.Is(err, errNoCut), errors.Is(err, p2p.ErrNotConnected):
		result.Busy = true
	case errors.As(err, &refusal) && (refusal.Code == replica.RefuseBusy || refusal.Code == replica.RefuseUnknown):
		result.Busy = true
	default:
		result.Failed = true
	}
	p := &e.post
	p.mu.Lock()
	p.machine.Ended(r.v.id, r.device, time.Since(p.began), result)
	tries, next := p.machine.Failing(r.v.id, r.device)
	wait := next - time.Since(p.began)
	delete(p.runs, pushKey{r.v.id, r.device})
	p.mu.Unlock()
	sent, content := r.stats.Sent.Load(), r.stats.Content.Load()
	switch {
	case err == nil:
		r.v.log.Info("Pushed", "device", r.device, "position", fmt.Sprintf("%d/%d", at.Term, at.Barrier), "sent", sent, "content", content, "duration", took)
	case result.Failed:
		r.v.log.Info("A push ended early, it goes on later", "device", r.device, "sent", sent, "tries", tries, "wait", wait, "error", err)
	default:
		r.v.log.Debug("A push wasn't taken", "device", r.device, "sent", sent, "error", err)
	}
	e.hub.publish(api.Event{Kind: "replica.changed", VM: r.v.id, Device: r.device})
	p.soon()
}

// pushing is how far the pushes of a VM from here are.
func (p *post) pushing(vm string, now time.Time) map[string]api.Replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]api.Replica{}
	for key, r := range p.runs {
		if key.vm != vm || r.stats.Sent.Load() == 0 {
			continue
		}
		done := r.stats.Covered.Load()
		left := max(r.stats.Todo.Load()-done, 0)
		rate := r.meter.Update(now, done)
		out[key.device] = api.Replica{
			State: api.ReplicaPushing, Remaining: left, Blocks: left / blockSize, Copied: done, Rate: rate, ETA: meter.TimeLeft(left, rate),
		}
	}
	return out
}
