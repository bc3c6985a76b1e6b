package app

import (
	"context"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/replica"
)

// decided fails while the VM has two histories, of which the person has to choose.
func (v *vm) decided() error {
	if len(v.e.dir.Heads(v.id)) > 1 {
		return v.undecided()
	}
	return nil
}

// rather is what stops the person more than err does: a conflict.
func (v *vm) rather(err error) error {
	if undecided := v.decided(); undecided != nil {
		return undecided
	}
	return err
}

func (v *vm) undecided() error { return errTwoVersions(v.name()) }

func errTwoVersions(name string) *api.Error {
	return errConflict(fmt.Sprintf("There are two versions of %s, and you have to choose one first.", name), fmt.Sprintf("See them: tagalong conflict %q", name))
}

// mayReceive says whether an owner's writes may come into this device's copy: nil, or a *replica.Refusal. Everything that
// writes a replica asks it first.
func (v *vm) mayReceive() error {
	v.mu.Lock()
	state := v.state
	v.mu.Unlock()
	switch state {
	case baton.Replica, baton.Accepting, baton.Loaded:
	default:
		return &replica.Refusal{Code: replica.RefuseBusy, Text: "this device still holds the VM"}
	}
	if !v.custody().MayReceive() {
		v.lookSoon()
		return &replica.Refusal{Code: replica.RefuseBusy, Text: "this device's copy has something that the owner's history lacks"}
	}
	return v.dropStale()
}

// conflict is what the person has to decide, or nil.
func (v *vm) conflict() *api.Conflict {
	heads := v.e.dir.Heads(v.id)
	if len(heads) < 2 {
		return nil
	}
	c := &api.Conflict{Since: api.Position(v.e.dir.CommonPosition(v.id))}
	for _, h := range heads {
		c.Sides = append(c.Sides, v.side(h, h.Hash() == heads[0].Hash()))
		if h.Kind != directory.KindSwitch && h.At.After(c.Found) {
			c.Found = h.At
		}
	}
	return c
}

// side describes one of the histories. Only the owner of the preferred one may run.
func (v *vm) side(h directory.SignedTransfer, preferred bool) api.ConflictSide {
	self := v.e.host.ID()
	hash := h.Hash()
	s := api.ConflictSide{
		Branch: hex.EncodeToString(hash[:]), Owner: h.To, OwnerName: v.e.deviceName(h.To), Here: h.To == self,
		Connected: h.To == self || v.e.linked(h.To), Term: h.Term, Position: api.Position(h.Position), At: h.At, Kind: string(h.Kind), State: api.VMUnknown,
	}
	if note, ok := v.e.dir.Note(v.id, h.Term); ok && h.Kind == directory.KindKept {
		s.State = api.VMState(note.How)
		if note.Disk > 0 {
			s.Changed = &note.Disk
		}
		if !note.Ended.IsZero() {
			s.At = note.Ended
		}
	}
	if r, ok := v.record(); ok && preferred && r.Written == h.Term {
		s.Position, s.At = api.Position(r.Position), r.At
		if s.Connected {
			s.State = api.VMState(r.State)
		}
	}
	if s.Here {
		s.State = v.stands()
		if disk := v.currentDisk(); disk != nil {
			s.Position = api.Position(disk.Info().Position)
		}
	}
	if s.Connected && s.State == api.VMRunning {
		s.At = time.Now() // its record tells of the last change of its state
	}
	return s
}

// stands is what the VM does on this device, whoever owns it.
func (v *vm) stands() api.VMState {
	v.mu.Lock()
	guest, state := v.guest, v.guestWas
	v.mu.Unlock()
	switch {
	case guest != nil:
		return guestState(state)
	case v.suspended():
		return api.VMSuspended
	default:
		return api.VMStopped
	}
}

// noteKept tells the other devices of this device's side: what the guest does, and how much was changed.
func (v *vm) noteKept(term uint64) {
	t, ok := v.e.dir.Transfer(v.id, term)
	if !ok || t.Kind != directory.KindKept {
		return
	}
	if disk := v.currentDisk(); disk != nil && disk.Info().Stale == 0 {
		if _, err := v.lookSaved(); err != nil {
			v.log.Warn("Whether this side is suspended can't be read", "error", err)
		}
	}
	n := directory.Note{VM: v.id, Term: term, How: string(v.stands()), Ended: time.Now()}
	if n.How == string(api.VMRunning) {
		n.How = string(api.VMPaused) // it was told to stand still a moment ago
	}
	n.Disk = v.changedSince(v.e.dir.CommonPosition(v.id))
	if err := v.e.dir.PutNote(n); err != nil {
		v.log.Warn("Telling of this device's side failed", "error", err)
	}
}

// changedSince is how many bytes of blocks this disk has written since a peer's replica at pos, 0 if that isn't known.
func (v *vm) changedSince(pos directory.Position) int64 {
	disk := v.currentDisk()
	if disk == nil {
		return 0
	}
	var n int64
	for _, p := range disk.Peers() {
		if directory.Position(p.Acked) == pos {
			n = max(n, p.Remaining)
		}
	}
	return n
}

// signedTwice says that a member of the fleet has the VM by a transfer of a term that another transfer began here, and how it is called.
func (v *vm) signedTwice() (there string, twice bool) {
	for _, t := range v.e.dir.Forks(v.id) {
		if t.To != v.ownerID() && v.e.dir.IsMember(t.To) {
			return v.e.deviceName(t.To), true
		}
	}
	return "", false
}

// tellSignedTwice tells the person of it, once. Called by the loop.
func (v *vm) tellSignedTwice() {
	there, twice := v.signedTwice()
	v.mu.Lock()
	before := v.twice
	v.twice = there
	v.mu.Unlock()
	if twice && there != before {
		v.e.tell("vm.signed-twice", v, errSignedTwice(v.name(), v.e.deviceName(v.ownerID()), there).Error())
	}
}

// tellHeads tells the person that there are several versions, or that there are no more. Called by the loop.
func (v *vm) tellHeads() {
	heads := v.e.dir.Heads(v.id)
	now, sides := "", make([]string, 0, len(heads))
	for _, h := range heads {
		now += h.Hash().String()
		sides = append(sides, v.e.deviceName(h.To))
	}
	if len(heads) < 2 {
		now = ""
	}
	v.mu.Lock()
	before := v.heads
	v.heads = now
	v.mu.Unlock()
	if now == before {
		return
	}
	if now == "" {
		v.e.tell("vm.resolved", v, fmt.Sprintf("There is one version of %s again; it goes on on %s.", v.name(), v.e.deviceName(v.ownerID())))
		return
	}
	sort.Strings(sides)
	v.e.tell("vm.conflict", v, fmt.Sprintf("There are two versions of %s: on %s. Nothing is lost, but you have to choose: tagalong conflict %q", v.name(), strings.Join(sides, " and on "), v.name()))
}

// tellTurn tells the person when a takeover elsewhere has reached this device, and when nothing came of it.
func (v *vm) tellTurn(before, after baton.State, kind baton.EventKind) {
	name := v.name()
	switch {
	case after == baton.Ousted && before != baton.Ousted:
		v.e.tell("vm.superseded", v, fmt.Sprintf("%s was taken over by %s while this device was away. It stands still here until it is clear what is newer.", name, v.e.deviceName(v.ownerID())))
	case before == baton.Ousted && after == baton.Replica && kind == baton.EvJudged:
		v.setProblemQuietly(nil)
		v.e.tell("vm.fast-forwarded", v, fmt.Sprintf("%s went on on %s, and this device had nothing newer: its copy catches up by itself.", name, v.e.deviceName(v.ownerID())))
	case before == baton.Ousted:
		v.setProblemQuietly(nil)
	}
	v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
}

func (v *vm) setProblemQuietly(p *api.Error) {
	v.mu.Lock()
	v.problem = p
	v.mu.Unlock()
}

// Resolve implements api.Engine.
func (e *Engine) Resolve(_ context.Context, req api.ResolveConflict) (*api.Job, error) {
	v, err := e.find(req.VM)
	if err != nil {
		return nil, err
	}
	choice, err := v.choice(req)
	if err != nil {
		return nil, err
	}
	t, err := e.dir.Resolve(v.id, choice.keep.Hash(), choice.over, choice.pos, string(req.How), req.Name)
	if err != nil {
		return nil, &api.Error{Code: api.CodeInternal, Sentence: "Your choice couldn't be written down.", Next: "Try again.", Cause: err.Error()}
	}
	v.log.Info("The person has chosen", "how", req.How, "term", t.Term, "owner", t.To)
	job := v.resolutionJob(t)
	v.lookSoon()
	return job, nil
}

// choice is what a resolution would sign.
type choice struct {
	keep directory.SignedTransfer
	over []directory.Hash
	pos  directory.Position
}

// choice checks what the person asks for.
func (v *vm) choice(req api.ResolveConflict) (choice, error) {
	var c choice
	name, self := v.name(), v.e.host.ID()
	heads := v.e.dir.Heads(v.id)
	if len(heads) < 2 {
		return c, errConflict("There is one version of "+name+" only: nothing has to be chosen.", "")
	}
	switch req.How {
	case api.ResolveKeep, api.ResolveBoth, api.ResolveOpen, api.ResolveRepair:
	default:
		return c, &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%q is no way out of a conflict.", req.How), Next: "There are: keep, both, open, repair."}
	}
	found, mine := false, false
	var where []string
	for _, h := range heads {
		hash := h.Hash()
		mine = mine || h.To == self
		where = append(where, v.e.deviceName(h.To))
		if hex.EncodeToString(hash[:]) == req.Keep {
			c.keep, found = h, true
		} else {
			c.over = append(c.over, hash)
		}
	}
	switch {
	case !mine:
		return c, &api.Error{Code: api.CodeElsewhere, Sentence: "None of the versions of " + name + " is on this device.", Next: "Choose on " + strings.Join(where, " or on ") + "."}
	case !found:
		return c, errConflict("That isn't one of the versions of "+name+" any more.", fmt.Sprintf("See them: tagalong conflict %q", name))
	}
	if req.How == api.ResolveBoth && req.Name != "" {
		if err := v.e.checkName(req.Name); err != nil {
			return c, err
		}
	}
	c.pos = directory.Position(v.side(c.keep, c.keep.Hash() == heads[0].Hash()).Position)
	return c, nil
}
