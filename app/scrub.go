package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/courtesy"
	"tagalong.org/tagalong/app/meter"
	"tagalong.org/tagalong/app/scrub"
	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/vmdisk"
)

// The background verification goes through a VM's disk, with all its copies that can be compared, one span (256 MiB) a step, while this device isn't on
// battery, as far as that can be known; package scrub says when, and which. What it has done outlives the engine. scrubRetry is how long it rests after a step
// that failed.
const scrubRetry = 10 * time.Minute

// scrubMakeUp is how far apart the steps are at least that make up for what a device missed.
const scrubMakeUp = 30 * time.Second

func scrubKey(vm string) string { return "scrub/" + vm }

// scrubbed is what is kept; nothing, if that can't be read: then the round begins anew. Callers hold v.scrubs.
func (v *vm) scrubbed() (s scrub.State) {
	b, err := v.e.dir.Local(scrubKey(v.id))
	if err != nil || json.Unmarshal(b, &s) != nil || !s.Readable() {
		s = scrub.State{Version: scrub.Version}
	}
	return s
}

// keepScrubbed stores what is to be kept. Callers hold v.scrubs.
func (v *vm) keepScrubbed(s scrub.State) error {
	b, err := json.Marshal(s)
	if err == nil {
		err = v.e.dir.SetLocal(scrubKey(v.id), b)
	}
	return err
}

// lastVerified is when each device's copy was verified.
func (v *vm) lastVerified() map[string]time.Time {
	v.scrubs.Lock()
	defer v.scrubs.Unlock()
	return v.scrubbed().Verified
}

func damageKey(vm string) string { return "damage/" + vm }

// damage is what is kept of what was found; nothing, if that can't be read. Callers hold v.scrubs.
func (v *vm) damage() (d scrub.Damage) {
	b, err := v.e.dir.Local(damageKey(v.id))
	if err != nil || json.Unmarshal(b, &d) != nil || d.Version != scrub.DamageVersion {
		d = scrub.Damage{Version: scrub.DamageVersion}
	}
	return d
}

// noteDamage keeps what was found between two bytes of the disk. A round that found nothing where nothing was writes nothing. Callers hold v.scrubs.
func (v *vm) noteDamage(r *verify.Result, found *api.Verification, from, to int64, now time.Time) {
	d := v.damage()
	if len(d.Found) == 0 && d.More == 0 && len(found.Findings) == 0 {
		return
	}
	for _, f := range found.Findings {
		v.log.Warn("A verification found damage", "off", f.Off, "len", f.Len, "here", f.Here, "copies", f.Copies)
	}
	compared := func(device string) bool {
		c, took := r.Copies[device]
		return took && c.Err == nil || !v.e.dir.IsMember(device)
	}
	d.Passed(scrub.Part{From: from, To: to, Compared: compared, Findings: found.Findings, More: found.MoreFindings}, now)
	b, err := json.Marshal(d)
	if err == nil {
		err = v.e.dir.SetLocal(damageKey(v.id), b)
	}
	if err != nil {
		v.log.Warn("Noting what a verification found failed", "error", err)
	}
}

// verifying tells of the background verification of a VM that is here, and of what was found.
func (v *vm) verifying(disk *vmdisk.Store, now time.Time) (*api.Verifying, *api.Damage) {
	v.scrubs.Lock()
	defer v.scrubs.Unlock()
	s, d := v.scrubbed(), v.damage()
	p := s.Progress(disk.Info().Term, disk.Size())
	out := &api.Verifying{Ended: s.Ended, Total: disk.Size(), Done: p, Rests: v.scrubRests}
	switch {
	case p > 0:
		out.Began, out.Rate = s.Began, v.scrubMeter.Rate(now)
		out.ETA = meter.TimeLeft(out.Total-p, out.Rate)
	case now.Before(s.Ended.Add(scrub.Every)):
		out.Next, out.Rests = s.Ended.Add(scrub.Every), ""
	}
	return out, d.Told(now)
}

// rests says why the background verification doesn't go on; "" that it does.
func (v *vm) rests(why string) {
	v.scrubs.Lock()
	defer v.scrubs.Unlock()
	v.scrubRests = why
}

// passed notes a verification that the person asked for: what it found, and if it went through to the end, that too.
func (v *vm) passed(r *verify.Result, found *api.Verification, whole bool) {
	v.scrubs.Lock()
	defer v.scrubs.Unlock()
	v.noteDamage(r, found, 0, r.Read, time.Now())
	if !whole {
		return
	}
	s := v.scrubbed()
	var equal []string
	for _, c := range found.Copies {
		if c.Missing == "" && c.Equal+c.Busy+c.Behind == found.Read {
			equal = append(equal, c.Device)
		}
	}
	s.Whole(found.Started, time.Now(), equal)
	if err := v.keepScrubbed(s); err != nil {
		v.log.Warn("Noting a verification failed", "error", err)
	}
}

// scrub verifies this device's VMs in the background.
func (e *Engine) scrub(ctx context.Context) error {
	tick := time.NewTicker(scrub.Tick)
	defer tick.Stop()
	pace := scrub.Pace{Busy: courtesy.Busy}
	failed := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now := time.Now()
		if e.onBattery() {
			pace.Rest(now, e.courtesy.Requests())
			for _, v := range e.allVMs() {
				v.rests(api.VerifyRestsBattery)
			}
			continue
		}
		step, why := pace.Tick(now, e.courtesy.Requests()), ""
		if pace.Slowed(now) {
			why = api.VerifyRestsGuests
		}
		for _, v := range e.allVMs() {
			switch {
			case !v.owner():
				continue
			case time.Since(failed[v.id]) < scrubRetry:
				v.rests(api.VerifyRestsFailed)
				continue
			case !step:
				if why != "" {
					v.rests(why)
				}
				continue
			}
			err := v.scrubSpan(ctx, time.Now())
			switch {
			case err == nil:
				v.rests(why)
			case errors.Is(err, errNobodyThere):
				v.rests(api.VerifyRestsAlone)
			case ctx.Err() == nil:
				failed[v.id] = time.Now()
				v.rests(api.VerifyRestsFailed)
				v.log.Info("A step of the background verification failed, it is tried again later", "error", err)
			}
		}
	}
}

// errDropped: a copy that was to be compared dropped out.
var errDropped = errors.New("the copy dropped out")

// errSpanDone ends a round after its first span.
var errSpanDone = errors.New("one span is done")

// scrubSpan does the next step of the VM's round, if one is due. Error errNobodyThere: another time, when there is a copy to compare with.
func (v *vm) scrubSpan(ctx context.Context, now time.Time) error {
	disk := v.currentDisk()
	if disk == nil {
		return nil
	}
	term, size := disk.Info().Term, disk.Size()
	v.scrubs.Lock()
	s := v.scrubbed()
	v.scrubs.Unlock()
	from, only, due := s.Next(term, size, verify.SpanSize, now, nil)
	if !due && v.mayMakeUp(now) {
		from, only, due = s.Next(term, size, verify.SpanSize, now, v.comparable())
	}
	if !due {
		return nil
	}
	next := int64(0)
	r, skipped, err := v.verify(ctx, verifying{from: from, only: only, withCopies: true, next: func(off int64, _ *verify.Result) error { next = off; return errSpanDone }})
	if !errors.Is(err, errSpanDone) {
		return err
	}
	equal := map[string]bool{}
	for device, c := range r.Copies {
		if c.Err == nil {
			equal[device] = c.Through(r.Read)
		}
	}
	if only != nil && len(equal) == 0 {
		return fmt.Errorf("make up for what was missed: %w", errDropped) // and isn't at the next step
	}
	s.Stepped(from, next, size, verify.SpanSize, now, equal)
	found := v.verification(r, skipped, now, size)
	v.tellFindings(found)
	v.scrubs.Lock()
	defer v.scrubs.Unlock()
	v.noteDamage(r, found, from, next, now)
	if only == nil {
		v.scrubMeter.Stepped(time.Now(), next-from)
	}
	// A verification that the person asked for may have ended meanwhile: what it knows is newer.
	if v.scrubbed().Ended.After(s.Ended) {
		return nil
	}
	return v.keepScrubbed(s)
}

// mayMakeUp says whether it is time to look who could get made up for what it missed: that costs a count of what all lack.
func (v *vm) mayMakeUp(now time.Time) bool {
	v.scrubs.Lock()
	defer v.scrubs.Unlock()
	if since := now.Sub(v.madeUp); since >= 0 && since < scrubMakeUp {
		return false
	}
	v.madeUp = now
	return true
}

// comparable are the devices whose copies could be compared now.
func (v *vm) comparable() (devices []string) {
	v.mu.Lock()
	feeds := maps.Clone(v.feeds)
	v.mu.Unlock()
	for _, device := range slices.Sorted(maps.Keys(feeds)) {
		at := feeds[device].progress().phase
		if v.e.linked(device) && (at == vmdisk.Live || at == vmdisk.Detached) && (!v.e.fromAfar(device) || v.e.limits.Allowance(v.id).May) {
			devices = append(devices, device)
		}
	}
	return devices
}

// tellFindings tells the person what the background verification found.
func (v *vm) tellFindings(found *api.Verification) {
	if len(found.Findings) == 0 {
		return
	}
	text := found.Findings[0].Sentence
	if found.Findings[0].Next != "" {
		text += " " + found.Findings[0].Next
	}
	if len(found.Findings) > 1 {
		text = found.Sentence + " See it with: tagalong vm show " + v.name()
	}
	v.e.hub.publish(api.Event{Kind: "vm.damage", VM: v.id, Text: text, Damage: found})
}
