package app

import (
	"context"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

// The phases of a resolution's job.
const (
	phaseSettling = "settling" // the device follows the choice
	phaseHeeding  = "heeding"  // the device of the side that was kept has yet to hear of the choice
	phaseKeeping  = "keeping"  // what was given up becomes a restore point, or a VM of its own
	phaseChecking = "checking" // every block is checked
)

// settlePoll is how often a resolution's job looks how far the device is.
const settlePoll = 20 * time.Millisecond

// resolutionJob is the job that tells how this device follows a choice; there is one at a time.
func (v *vm) resolutionJob(t directory.SignedTransfer) *api.Job {
	about := api.Job{Kind: kindResolve, VM: v.id, VMName: v.name()}
	job, err := v.e.startJob(about, func(ctx context.Context, j *job) error { return v.followChoice(ctx, j, t) })
	if err == nil {
		return job
	}
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	for _, j := range v.e.jobs {
		if s := j.snapshot(); s.Kind == kindResolve && s.VM == v.id && !s.Done {
			return &s
		}
	}
	about.Done = true // it has ended between the two looks
	return &about
}

// followChoice waits until this device has done its part, and does what only the owner of the side that was kept can.
func (v *vm) followChoice(ctx context.Context, j *job, t directory.SignedTransfer) error {
	j.enter(phaseSettling)
	self := v.e.host.ID()
	for !v.settledOn(t) {
		if err := v.decided(); err != nil {
			return err // something else was chosen on another device
		}
		if !v.custody().Heeded(t) {
			j.enter(phaseHeeding)
		} else if run := v.asideRun(); run != nil {
			phase, done, total, err := run.progress()
			if err != nil {
				return err
			}
			if phase != "" {
				j.enter(phase)
				j.progressOf(done, total)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settlePoll):
		}
	}
	if t.To == self && t.How == string(api.ResolveRepair) {
		if err := v.repair(ctx, j, t.Term); err != nil {
			return err
		}
	}
	text := v.chosenText(t)
	if c := j.snapshot().Check; c != nil && !c.Clean {
		text += fmt.Sprintf(" The check found damage that no other copy could mend: tagalong disk check %q", v.name())
	} else if c != nil {
		text += " Its disk is as it should be; it checks its file systems at its next start."
	}
	j.say(text)
	return nil
}

// settledOn says that nothing is left to be waited for on this device.
func (v *vm) settledOn(t directory.SignedTransfer) bool {
	v.mu.Lock()
	state, term := v.state, v.term
	v.mu.Unlock()
	if t.To == v.e.host.ID() {
		return ownedState(state) && term >= t.Term || v.ownerID() != t.To
	}
	return state == baton.Replica || ownedState(state) && term > t.Term
}

// isVM says that there is a VM of that ID.
func (e *Engine) isVM(id string) bool {
	_, known := e.dir.VM(id)
	return known
}

// chosenText says what the choice has come to, and where the other side is now.
func (v *vm) chosenText(t directory.SignedTransfer) string {
	name, winner := v.name(), v.e.deviceName(t.To)
	if owner := v.ownerID(); owner != t.To {
		return fmt.Sprintf("%s has gone on since: it is on %s.", name, v.e.deviceName(owner))
	}
	text := fmt.Sprintf("%s goes on on %s.", name, winner)
	for _, h := range t.Over {
		a := v.e.dir.Ancestry(h)
		if len(a) == 0 {
			continue
		}
		loser := a[len(a)-1].To
		place := "on " + v.e.deviceName(loser)
		if loser == v.e.host.ID() {
			place = "on this device"
		}
		where := place
		if loser != v.e.host.ID() && !v.e.linked(loser) {
			where += ", which does its part when it is back"
		}
		switch api.Resolution(t.How) {
		case api.ResolveBoth:
			id, _ := secondIDs(t, v.id, loser)
			switch known := v.e.isVM(id); {
			case known:
				text += fmt.Sprintf(" The other version is a VM of its own %s.", place)
				continue
			case loser == v.e.host.ID():
				if p, err := v.shelf().Get(pointID(t)); err == nil {
					text += " " + p.Why + " It is kept as a restore point."
					continue
				}
			}
			text += fmt.Sprintf(" The other version becomes a VM of its own %s, or a restore point if its disk isn't whole.", where)
		case api.ResolveOpen:
			text += fmt.Sprintf(" The other version is kept %s; bring %s there (tagalong switch) to see it as a read-only disk.", where, name)
			if loser == t.To || v.ownerID() == loser {
				text = fmt.Sprintf("%s goes on on %s, and sees the other version as a read-only disk.", name, winner)
			}
		default:
			text += fmt.Sprintf(" The other version is kept as a restore point %s, until you delete it.", where)
		}
	}
	return text
}
