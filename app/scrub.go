package app

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/p2p/verify"
)

// The background verification goes through a VM's disk, with all its live copies, one span (256 MiB) a step: at most 8.5 MiB/s, and only while
// this device isn't on battery, as far as that can be known, and its guests have hardly used their disks since the last step. What
// it has done outlives the engine.
const (
	scrubStep = 30 * time.Second
	// scrubEvery is how long after a whole round the next one begins, scrubRetry how long after a step that failed.
	scrubEvery = 7 * 24 * time.Hour
	scrubRetry = 10 * time.Minute
)

// scrubState is what is kept of a VM's verifications, by its owner. It is a value of this device only, in JSON.
type scrubState struct {
	Version int `json:"version"`
	// Term and From say how far the round under way is that began at Began; it belongs to that term, and is none if From is 0.
	Term  uint64    `json:"term"`
	From  int64     `json:"from"`
	Began time.Time `json:"began"`
	// Equal has the devices whose copies were equal, or were made so, in every step of that round.
	Equal map[string]bool `json:"equal"`
	// Ended is when a whole round last ended, Verified when the last one began that found a device's copy equal.
	Ended    time.Time            `json:"ended"`
	Verified map[string]time.Time `json:"verified"`
}

const scrubVersion = 1

func scrubKey(vm string) string { return "scrub/" + vm }

// scrubbed is what is kept; nothing, if that can't be read: then the round begins anew. Callers hold v.scrubs.
func (v *vm) scrubbed() (s scrubState) {
	b, err := v.e.dir.Local(scrubKey(v.id))
	if err != nil || json.Unmarshal(b, &s) != nil || s.Version != scrubVersion || s.From < 0 {
		s = scrubState{Version: scrubVersion}
	}
	if s.Verified == nil {
		s.Verified = map[string]time.Time{}
	}
	return s
}

// keepScrubbed stores what is to be kept. Callers hold v.scrubs.
func (v *vm) keepScrubbed(s scrubState) error {
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

// wholeRound notes a verification that went through to the end.
func (v *vm) wholeRound(r *api.Verification) {
	v.scrubs.Lock()
	defer v.scrubs.Unlock()
	s := v.scrubbed()
	s.From, s.Equal, s.Ended = 0, nil, time.Now()
	for _, c := range r.Copies {
		if c.Missing == "" && c.Equal+c.Busy+c.Behind == r.Read {
			s.Verified[c.Device] = r.Started
		}
	}
	if err := v.keepScrubbed(s); err != nil {
		v.log.Warn("Noting a verification failed", "error", err)
	}
}

// scrub verifies this device's VMs in the background.
func (e *Engine) scrub(ctx context.Context) error {
	tick := time.NewTicker(scrubStep)
	defer tick.Stop()
	before := e.guestRequests()
	failed := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now := e.guestRequests()
		busy := now-before >= int64(courtesyBusy*scrubStep/time.Second)
		if before = now; busy || e.onBattery() {
			continue
		}
		for _, v := range e.allVMs() {
			if !v.owner() || time.Since(failed[v.id]) < scrubRetry {
				continue
			}
			if err := v.scrubSpan(ctx, time.Now()); err != nil && ctx.Err() == nil {
				failed[v.id] = time.Now()
				v.log.Info("A step of the background verification failed, it is tried again later", "error", err)
			}
		}
	}
}

// errSpanDone ends a round after its first span.
var errSpanDone = errors.New("one span is done")

// scrubSpan does the next step of the VM's round, if one is due.
func (v *vm) scrubSpan(ctx context.Context, now time.Time) error {
	disk := v.currentDisk()
	if disk == nil {
		return nil
	}
	term, size := disk.Info().Term, disk.Size()
	v.scrubs.Lock()
	s := v.scrubbed()
	v.scrubs.Unlock()
	if s.From > 0 && (s.Term != term || s.From >= size) {
		s.From = 0 // it was elsewhere meanwhile
	}
	if s.From == 0 {
		if now.Sub(s.Ended) < scrubEvery && !s.Ended.After(now) {
			return nil
		}
		s.Term, s.Began, s.Equal = term, now, nil
	}
	from, next := s.From, int64(0)
	r, skipped, err := v.verify(ctx, verifying{from: from, next: func(off int64, _ *verify.Result) error { next = off; return errSpanDone }})
	if !errors.Is(err, errSpanDone) {
		return err
	}
	if len(r.Copies) == 0 && len(skipped) > 0 {
		return nil // nobody is there to compare with: another time
	}
	equal := map[string]bool{}
	for device, c := range r.Copies {
		equal[device] = c.Through(r.Read) && (from == 0 || s.Equal[device])
	}
	s.Equal, s.From = equal, next
	if next >= size {
		s.From, s.Equal, s.Ended = 0, nil, now
		for device, all := range equal {
			if all {
				s.Verified[device] = s.Began
			}
		}
	}
	v.tellFindings(r, skipped, now, size)
	v.scrubs.Lock()
	defer v.scrubs.Unlock()
	// A verification that the person asked for may have ended meanwhile: what it knows is newer.
	if v.scrubbed().Ended.After(s.Ended) {
		return nil
	}
	return v.keepScrubbed(s)
}

// tellFindings tells the person what the background verification found.
func (v *vm) tellFindings(r *verify.Result, skipped map[string]error, now time.Time, size int64) {
	if len(r.Findings) == 0 {
		return
	}
	found := v.verification(r, skipped, now, size)
	for _, f := range found.Findings {
		v.log.Warn("The background verification found damage", "off", f.Off, "len", f.Len, "here", f.Here, "copies", f.Copies)
	}
	text := found.Findings[0].Sentence
	if found.Findings[0].Next != "" {
		text += " " + found.Findings[0].Next
	}
	if len(found.Findings) > 1 {
		text = found.Sentence + " See it with: tagalong verify " + v.name()
	}
	v.e.hub.publish(api.Event{Kind: "vm.damage", VM: v.id, Text: text, Damage: found})
}
