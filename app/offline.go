package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/direxchange"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/told"
)

// offlineKey is where the mode is kept in the directory's local part.
const offlineKey = "offline"

const keptOfflineVersion = 1

// keptOffline is what outlives a restart of the engine.
type keptOffline struct {
	Version int `json:"version"`
	// On is the mode itself, Unaware the devices (by ID) that haven't heard of it.
	On      bool      `json:"on"`
	Since   time.Time `json:"since,omitzero"`
	Unaware []string  `json:"unaware,omitempty"`
	// Preparing says that somebody wants the mode once the VMs of Wish (by ID) are here.
	Preparing bool     `json:"preparing,omitempty"`
	Wish      []string `json:"wish,omitempty"`
}

// offlineMode is this device's disconnected mode.
type offlineMode struct {
	// command lets one person's command at a time begin or end the mode.
	command sync.Mutex

	// guarded by mu
	mu   sync.Mutex
	kept keptOffline
	prep *preparation
}

// loadOffline reads the mode of the last time.
func (e *Engine) loadOffline() error {
	b, err := e.dir.Local(offlineKey)
	if errors.Is(err, directory.ErrNotFound) {
		return nil
	}
	var kept keptOffline
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err == nil && kept.Version != keptOfflineVersion {
		err = fmt.Errorf("version %d of it: %w", kept.Version, directory.ErrVersion)
	}
	if err != nil {
		return fmt.Errorf("read whether this device works offline: %w", err)
	}
	e.offline.kept = kept
	return nil
}

// keepOffline makes a change of the mode durable, and only then true.
func (e *Engine) keepOffline(change func(k *keptOffline)) error {
	o := &e.offline
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := o.kept
	kept.Unaware = slices.Clone(kept.Unaware)
	change(&kept)
	kept.Version = keptOfflineVersion
	b, err := json.Marshal(kept)
	if err == nil {
		err = e.dir.SetLocal(offlineKey, b)
	}
	if err != nil {
		return fmt.Errorf("note the offline mode: %w", err)
	}
	o.kept = kept
	return nil
}

// offlineSince says whether this device works offline, and since when.
func (e *Engine) offlineSince() (time.Time, bool) {
	e.offline.mu.Lock()
	defer e.offline.mu.Unlock()
	return e.offline.kept.Since, e.offline.kept.On
}

func (e *Engine) preparation() *preparation {
	e.offline.mu.Lock()
	defer e.offline.mu.Unlock()
	return e.offline.prep
}

// GoOffline implements api.Engine.
func (e *Engine) GoOffline(ctx context.Context, req api.GoOffline) (*api.Job, error) {
	e.offline.command.Lock()
	defer e.offline.command.Unlock()
	if since, on := e.offlineSince(); on {
		return nil, errConflict("This device works offline already, since "+clock(since)+".", "End that first: tagalong offline off")
	}
	if p := e.preparation(); p != nil {
		if !req.Now {
			return nil, &api.Error{Code: api.CodeBusy, Sentence: "This device is getting ready to work offline already.",
				Next: "Go now anyway (tagalong offline on --now), or cancel (tagalong offline off)."}
		}
		p.hurryUp()
		s := p.job.snapshot()
		return &s, nil
	}
	wish, err := e.wish(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := e.keepOffline(func(k *keptOffline) { *k = keptOffline{Preparing: true, Wish: wish} }); err != nil {
		return nil, err
	}
	job, err := e.prepareOffline(wish, req.Now)
	if err != nil {
		// What wasn't begun isn't to be taken up at the next start.
		err = errors.Join(err, e.keepOffline(func(k *keptOffline) { *k = keptOffline{} }))
	}
	return job, err
}

// resumeOffline goes on with a preparation that the engine's end interrupted.
func (e *Engine) resumeOffline() error {
	e.offline.mu.Lock()
	kept := e.offline.kept
	e.offline.mu.Unlock()
	if !kept.Preparing {
		return nil
	}
	_, err := e.prepareOffline(kept.Wish, false)
	return err
}

// wish is the VMs that are to be brought here, by ID. Unless the person is in a hurry, what can't come is said at once.
func (e *Engine) wish(ctx context.Context, req api.GoOffline) ([]string, error) {
	var vms []*vm
	for _, name := range req.VMs {
		v, err := e.find(name)
		if err != nil {
			return nil, err
		}
		vms = append(vms, v)
	}
	if len(req.VMs) == 0 {
		for _, r := range e.records() {
			if v := e.vm(r.ID); v != nil {
				vms = append(vms, v)
			}
		}
	}
	if req.CopyOnly {
		return nil, nil
	}
	var wish []string
	for _, v := range vms {
		if err := v.decided(); err != nil && !req.Now && !v.owner() {
			return nil, err
		}
		if !req.Now && !v.owner() && !e.awaitLink(ctx, v.ownerID()) {
			err := api.AsError(v.errAway())
			return nil, &api.Error{Code: err.Code, Sentence: err.Sentence + " Only a copy of " + v.name() + " would come along, which must not be started.",
				Next: "Wait until it is back, name the VMs that shall come along, or go without it (--now)."}
		}
		wish = append(wish, v.id)
	}
	return wish, nil
}

// GoOnline implements api.Engine.
func (e *Engine) GoOnline(ctx context.Context) error {
	e.offline.command.Lock()
	defer e.offline.command.Unlock()
	if p := e.preparation(); p != nil {
		p.job.cancel()
		select {
		case <-p.job.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if _, on := e.offlineSince(); !on {
		return nil
	}
	if err := e.keepOffline(func(k *keptOffline) { *k = keptOffline{} }); err != nil {
		return err
	}
	e.announce()
	e.saveRecords()
	e.hub.publish(api.Event{Kind: "offline.off", Text: "This device doesn't work offline any more: copies are brought up to date by themselves."})
	return nil
}

// begun makes the mode true, and tells the others while they can hear it.
func (e *Engine) begun(ctx context.Context) error {
	others := e.dir.Members()
	err := e.keepOffline(func(k *keptOffline) {
		*k = keptOffline{On: true, Since: time.Now().UTC().Truncate(time.Second)}
		for _, m := range others {
			k.Unaware = append(k.Unaware, m.ID)
		}
	})
	if err != nil {
		return err
	}
	e.tickSites()
	e.announce()
	e.saveRecords()
	var wg sync.WaitGroup
	for _, m := range others {
		if e.host.Connected(m.ID) {
			wg.Go(func() { e.tellOffline(ctx, m.ID) })
		}
	}
	wg.Wait()
	return nil
}

// toldTimeout is how long a connected device may take to have heard that this one works offline.
const toldTimeout = 8 * time.Second

// tellOffline waits until a device has taken the records that say that this one works offline.
func (e *Engine) tellOffline(ctx context.Context, device string) {
	ctx, cancel := context.WithTimeout(ctx, toldTimeout)
	defer cancel()
	s, err := e.host.Open(ctx, device, told.Protocol)
	if err == nil {
		err = told.Ask(ctx, s, e.ownVersions())
	}
	if err != nil {
		e.log.Info("A device may not know that this one works offline", "device", device, "error", err)
		return
	}
	err = e.keepOffline(func(k *keptOffline) {
		k.Unaware = slices.DeleteFunc(k.Unaware, func(id string) bool { return id == device })
	})
	if err != nil {
		e.log.Warn("Noting that a device has heard failed", "device", device, "error", err)
	}
}

// tellOfflineLater tells a device that has just come, if it hasn't heard yet.
func (e *Engine) tellOfflineLater(device string) {
	e.offline.mu.Lock()
	due := slices.Contains(e.offline.kept.Unaware, device)
	e.offline.mu.Unlock()
	if due {
		e.spawn(func() { e.tellOffline(e.ctx, device) })
	}
}

// ownVersions are the versions of this device's record and of those of its VMs.
func (e *Engine) ownVersions() map[string]uint64 {
	var keys []string
	for key := range e.dir.Digest() {
		if kind, _, _ := strings.Cut(key, "/"); kind == "device" || kind == "vm" {
			keys = append(keys, key)
		}
	}
	versions := map[string]uint64{}
	for _, r := range e.dir.Get(keys) {
		if r.Writer == e.host.ID() {
			versions[r.Key] = r.Version
		}
	}
	return versions
}

// handleTold answers whether records have arrived here.
func (e *Engine) handleTold(ctx context.Context, s p2p.Stream) {
	if err := told.Answer(ctx, s, direxchange.Store{Dir: e.dir}); err != nil {
		e.log.Debug("Answering what has arrived failed", "device", s.Peer(), "error", err)
	}
}

// offlineStatus derives what is told of the mode.
func (e *Engine) offlineStatus() api.Offline {
	e.offline.mu.Lock()
	kept, prep := e.offline.kept, e.offline.prep
	e.offline.mu.Unlock()
	s := api.Offline{On: kept.On, Since: kept.Since, VMs: []api.OfflineVM{}}
	if prep != nil {
		s.Job = prep.job.snapshot().ID
	}
	for _, id := range kept.Unaware {
		s.Unaware = append(s.Unaware, e.deviceName(id))
	}
	sort.Strings(s.Unaware)
	for _, r := range e.records() {
		if v := e.vm(r.ID); v != nil {
			s.VMs = append(s.VMs, v.offlineVM(r))
		}
	}
	sort.Slice(s.VMs, func(i, j int) bool { return s.VMs[i].VMName < s.VMs[j].VMName })
	return s
}

// offlineVM is what this device has of the VM if no other can be reached.
func (v *vm) offlineVM(r directory.VM) api.OfflineVM {
	s := api.OfflineVM{VM: v.id, VMName: r.Name, Taken: v.owner(), OwnerName: v.e.deviceName(v.ownerID()), Missing: v.missing(r)}
	if disk := v.currentDisk(); disk != nil {
		s.Position = api.Position(disk.Info().Position)
	}
	if s.Taken {
		s.At = time.Now()
	} else if info, ok := v.e.replicaInfo(r, v.e.host.ID()); ok {
		s.At = info.At
	}
	return s
}

// missing is how many bytes of the VM's disk aren't on this device; nil if that isn't known.
func (v *vm) missing(r directory.VM) *int64 {
	var n int64
	if v.owner() {
		if disk := v.currentDisk(); disk != nil {
			n = disk.Info().Stale
		}
		return &n
	}
	info, ok := v.e.replicaInfo(r, v.e.host.ID())
	if !ok {
		return nil
	}
	n = int64(info.StaleBlocks) * blockSize
	return &n
}

// replicaInfo is what the owner last told of a device's copy.
func (e *Engine) replicaInfo(r directory.VM, device string) (directory.ReplicaInfo, bool) {
	info, ok := e.dir.Replicas(r.ID)[device]
	if !ok {
		info, ok = r.Replicas[device]
	}
	return info, ok
}

// tookAlong says whether the VM's owner told that it works offline, and since when.
func (v *vm) tookAlong() (since time.Time, ok bool) {
	r, known := v.record()
	if !known || !r.Offline || r.Written != r.Term || r.Owner == v.e.host.ID() {
		return time.Time{}, false
	}
	return r.OfflineSince, true
}

// errAway says why a VM can't be had from its owner, which doesn't answer.
func (v *vm) errAway() error {
	owner := v.e.deviceName(v.ownerID())
	since, along := v.tookAlong()
	if !along {
		err := api.AsError(errUnreachable(owner))
		err.Next += fmt.Sprintf(" If it is lost, take over what is here: tagalong switch --force %q", v.name())
		return err
	}
	return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("%s took %s along: it works offline since %s.", owner, v.name(), clock(since)),
		Next: fmt.Sprintf("Switch when it is back. If it is lost, take over what is here: tagalong switch --force %q", v.name())}
}

// errNotHere says why a VM can't be started here.
func (v *vm) errNotHere() error {
	owner := v.e.deviceName(v.ownerID())
	if _, on := v.e.offlineSince(); on {
		r, _ := v.record()
		s := v.offlineVM(r)
		return &api.Error{Code: api.CodeElsewhere, Sentence: fmt.Sprintf("This device has only %s; it must not be started, because %s has the VM.", copyText(s), owner),
			Next: fmt.Sprintf("Switch when %s can be reached again.", owner)}
	}
	if since, along := v.tookAlong(); along {
		return &api.Error{Code: api.CodeElsewhere, Sentence: fmt.Sprintf("%s took %s along: it works offline since %s.", owner, v.name(), clock(since)),
			Next: fmt.Sprintf("Bring it here when %s is back: tagalong switch %q", owner, v.name())}
	}
	return errElsewhere(v.name(), owner)
}

// copyText names a copy by what is known of it.
func copyText(s api.OfflineVM) string {
	text := fmt.Sprintf("a copy of %s (position %d/%d", s.VMName, s.Position.Term, s.Position.Barrier)
	if s.Position == (api.Position{}) {
		return "a part of a copy of " + s.VMName
	}
	if !s.At.IsZero() {
		text += ", of " + clock(s.At)
	}
	return text + ")"
}

// clock is a moment as a person reads it, by this device's clock.
func clock(t time.Time) string {
	t = t.Local()
	if y, d := t.Year(), t.YearDay(); y == time.Now().Year() && d == time.Now().YearDay() {
		return t.Format("15:04")
	}
	return t.Format("2 January 2006, 15:04")
}
