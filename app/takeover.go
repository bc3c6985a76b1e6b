package app

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// Takeover implements api.Engine: what a person must know before this device becomes the owner without the present one's consent.
func (e *Engine) Takeover(_ context.Context, name string) (*api.Takeover, error) {
	v, err := e.find(name)
	if err != nil {
		return nil, err
	}
	return v.takeover()
}

// TakeOver implements api.Engine. It returns when this device durably is the owner.
func (e *Engine) TakeOver(ctx context.Context, req api.TakeOverVM) error {
	v, err := e.find(req.VM)
	if err != nil {
		return err
	}
	if err := v.beginTakeOver(); err != nil {
		return err
	}
	defer v.end(opTake)
	// From here on the copy stays where it is.
	v.seal()
	defer v.unseal()
	told, err := v.takeover()
	if err != nil {
		return err
	}
	if told.Token != req.Token {
		return errConflict("What you read about "+told.VMName+" isn't true any more.", "Read it again: tagalong switch --force")
	}
	heads, disk := e.dir.Heads(v.id), v.currentDisk()
	if len(heads) != 1 || disk == nil {
		return errConflict("The history of "+told.VMName+" has just changed.", "Try again.")
	}
	pos := directory.Position(disk.Info().Position)
	term, err := e.dir.NextForced(directory.KindTakeover, v.id, heads[0].Hash(), nil, pos)
	if err != nil {
		return fmt.Errorf("number the takeover: %w", err)
	}
	if err := v.do(ctx, baton.Event{Kind: baton.EvTakeOver, Peer: heads[0].To, Term: term, Position: baton.Position(pos)}); err != nil {
		return errConflict(told.VMName+" can't be taken over at this moment.", "Try again in a moment.")
	}
	v.mu.Lock()
	taken := v.ownerLocked() && v.term == term
	v.mu.Unlock()
	if !taken {
		return &api.Error{Code: api.CodeInternal, Sentence: "The takeover couldn't be written down, so nothing has changed.", Next: "Check that this device's disk isn't full, and try again."}
	}
	e.tell("vm.taken-over", v, fmt.Sprintf("%s was taken over from %s; it is on this device now.", told.VMName, told.OwnerName))
	v.syncFeeds()
	e.saveRecordSoon()
	return nil
}

// beginTakeOver takes the VM for a takeover: also one that is stuck in a hand-off whose other side is gone.
func (v *vm) beginTakeOver() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	stuck := v.op == opSwitch && (v.state == baton.Given || v.state == baton.Loaded)
	if v.op != "" && !stuck {
		return errBusy(v.nameLocked(), v.op)
	}
	v.op = opTake
	return nil
}

// takeover gathers what is known, or says why the VM can't be taken over here.
func (v *vm) takeover() (*api.Takeover, error) {
	r, ok := v.record()
	heads := v.e.dir.Heads(v.id)
	if !ok || len(heads) == 0 {
		return nil, errNoSuchVM(v.id, nil)
	}
	if len(heads) > 1 {
		return nil, v.undecided()
	}
	owner := heads[0].To
	v.mu.Lock()
	state, disk, received := v.state, v.disk, v.received
	v.mu.Unlock()
	name := r.Name
	if ownedState(state) {
		return nil, errConflict(name+" is on this device already.", "")
	}
	t := &api.Takeover{
		VM: v.id, VMName: name, Owner: owner, OwnerName: v.e.deviceName(owner), Connected: v.e.linked(owner),
		State: api.VMUnknown,
	}
	if r.Written == r.Term { // else the rest is the word of the owner before
		t.Offline, t.Since, t.State = r.Offline, r.OfflineSince, api.VMState(r.State)
	}
	t.Seen = v.e.seen(owner)
	if t.Connected {
		return nil, errConflict(fmt.Sprintf("%s is connected, so nothing has to be forced.", t.OwnerName), fmt.Sprintf("Switch instead: tagalong switch %q", name))
	}
	replicas := v.e.dir.Replicas(v.id)
	p, err := v.e.custodyOf(v.id, disk).Preview()
	if err != nil {
		return nil, v.noCopy(name, owner, replicas)
	}
	t.Position, t.At = api.Position(p.Position), v.copyTime(p.Position, replicas[v.e.host.ID()], received)
	t.Latest, t.LatestAt = api.Position(p.Latest), p.LatestAt
	if p.Latest == p.Position {
		t.LatestAt = t.At
	}
	t.Certain = p.Certain
	if p.Missing != nil {
		missing := *p.Missing * blockSize
		t.Missing = &missing
	}
	if p.Better != "" {
		info := replicas[p.Better]
		t.Better = &api.Replica{
			Device: p.Better, DeviceName: v.e.deviceName(p.Better), State: api.ReplicaBehind, Position: api.Position(info.Position),
			Remaining: int64(info.StaleBlocks) * blockSize, Heard: info.Heard,
		}
	}
	t.Warnings = v.takeoverWarnings(t)
	t.Token = tokenOf(t, heads[0])
	return t, nil
}

// seen is when the device was last heard, zero if never.
func (e *Engine) seen(device string) time.Time {
	for _, p := range e.host.Peers() {
		if p.ID == device {
			return p.LastSeen
		}
	}
	return time.Time{}
}

// copyTime is when this device's copy became what it is, as well as can be told.
func (v *vm) copyTime(pos directory.Position, info directory.ReplicaInfo, received time.Time) time.Time {
	switch {
	case !received.IsZero():
		return received
	case info.Position == pos && !info.Heard.IsZero():
		return info.Heard
	}
	st, err := os.Stat(filepath.Join(v.diskDir(), "base.raw"))
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// noCopy says that this device can't take over, and which one could.
func (v *vm) noCopy(name, owner string, replicas map[string]directory.ReplicaInfo) error {
	next := "No other device has one either: it takes " + v.e.deviceName(owner) + "."
	for device, info := range replicas {
		if info.Complete && device != owner && device != v.e.host.ID() && v.e.dir.IsMember(device) {
			next = fmt.Sprintf("%s has one, of %s: take it over there.", v.e.deviceName(device), sayTime(info.At))
		}
	}
	return errConflict("This device has no complete copy of "+name+", so it can't run it.", next)
}

// takeoverWarnings are what is to be read, the gravest first.
func (v *vm) takeoverWarnings(t *api.Takeover) []api.Warning {
	w := []api.Warning{}
	say := func(code api.WarningCode, format string, args ...any) {
		w = append(w, api.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
	}
	if v.e.dir.Orphan(v.id) {
		say(api.WarnRemoved, "%s was removed from your fleet; what only it had of %s is lost.", t.OwnerName, t.VMName)
	} else if t.Offline {
		say(api.WarnJourney, "%s went on a journey with %s on %s and may be working in it right now. You would have two versions, and would have to choose between them when it is back.", t.OwnerName, t.VMName, sayTime(t.Since))
	} else if t.Owner != v.e.host.ID() {
		say(api.WarnTwoVersions, "If %s still works in it, you will have two versions, and will have to choose between them when it is back.", t.OwnerName)
	}
	switch t.State {
	case api.VMRunning, api.VMPaused, api.VMStarting, api.VMSwitching:
		say(api.WarnRunning, "%s was running on %s when it was last heard of: its open windows don't come along, it starts here as after a power cut.", t.VMName, t.OwnerName)
	case api.VMSuspended:
		if !v.memoryCame() {
			say(api.WarnSuspended, "%s is suspended on %s: its open windows haven't come here, and stay there.", t.VMName, t.OwnerName)
		}
	}
	switch {
	case t.Missing == nil:
		say(api.WarnUnknown, "How much this copy lacks is unknown.")
	case *t.Missing > 0 && t.Certain:
		say(api.WarnLacks, "This copy lacks %s that was written on %s.", sayBytes(*t.Missing), t.OwnerName)
	case *t.Missing > 0:
		say(api.WarnLacksMore, "This copy lacked %s when %s last told, and may lack more by now.", sayBytes(*t.Missing), t.OwnerName)
	case !t.Certain:
		say(api.WarnLacksSince, "This copy had everything when %s last told; what was written after that is missing.", t.OwnerName)
	}
	if v.wouldStandStill() {
		say(api.WarnSecond, "%s is set to wait for a second copy when it saves, and no other device that could have one is connected: it will stand still here until one is, or until you say: tagalong vm set %q --sync one", t.VMName, t.VMName)
	}
	if t.Better != nil {
		say(api.WarnBetter, "%s has a newer copy: take it over there, if you can.", t.Better.DeviceName)
	}
	return w
}

// wouldStandStill says that the VM is to wait for a second copy, and nobody is there who could have one.
func (v *vm) wouldStandStill() bool {
	r, ok := v.record()
	if spec, err := specOf(r); !ok || err != nil || !spec.Two() {
		return false
	}
	others := 0
	for _, m := range v.e.dir.Members() {
		if m.ID == v.e.host.ID() {
			continue
		}
		if v.e.linked(m.ID) {
			return false
		}
		others++
	}
	return others > 0 // alone it doesn't wait
}

func sayTime(at time.Time) string {
	if at.IsZero() {
		return "an unknown time"
	}
	return at.Local().Format("2 January 2006, 15:04")
}

// sayBytes is a size in words, in units of 1024.
func sayBytes(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// tokenOf stands for the facts that matter: the history, what this copy is, what it lacks, and who could have more.
func tokenOf(t *api.Takeover, head directory.SignedTransfer) string {
	facts := struct {
		Head                    directory.Hash
		Position, Latest        api.Position
		Missing                 *int64
		Certain, Offline, Alive bool
		State                   api.VMState
		Better                  string
	}{head.Hash(), t.Position, t.Latest, t.Missing, t.Certain, t.Offline, t.Connected, t.State, ""}
	if t.Better != nil {
		facts.Better = t.Better.Device
	}
	// A struct of numbers and strings always marshals.
	b, _ := json.Marshal(facts)
	sum := blake3.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// persistKept makes known that this device holds something of its own, and tells the others what the guest does there.
func (v *vm) persistKept(a baton.Action) baton.Event {
	term, err := v.custody().Kept(a.State)
	if errors.Is(err, directory.ErrChain) {
		// Somebody has chosen meanwhile; the history will tell.
		v.log.Info("What is kept isn't a side of its own", "error", err)
		v.lookSoon()
		return baton.Event{Kind: baton.EvPersistFailed, Term: a.Term}
	}
	if err != nil {
		return v.persisted("Writing what is kept failed", a.Term, err)
	}
	v.noteKept(term)
	return baton.Event{Kind: baton.EvPersisted, Term: a.Term}
}

// judge answers whether anything here must not be overwritten, once the history is known. Called by the loop.
func (v *vm) judge(term uint64) (baton.Event, bool) {
	// The hypervisor of a replica waits for a memory that is the giver's.
	guest := v.machine.State() == baton.Ousted && v.currentGuest() != nil
	newer, known := v.custody().Judge(v.machine.Term(), guest || v.oldMemory())
	if !known {
		return baton.Event{}, false
	}
	v.log.Info("Compared with the new owner's history", "term", term, "newer", newer)
	return baton.Event{Kind: baton.EvJudged, Term: term, Newer: newer}, true
}

// pauseGuest stops what goes out and lets the guest stand still, with all its windows.
func (v *vm) pauseGuest(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if _, serves := v.serves(); v.outgoing != nil && !serves {
		v.outgoing.End(ctx)
		v.outgoing = nil
	}
	v.endUnder(baton.ReasonOusted)
	if guest := v.currentGuest(); guest != nil {
		if err := v.standStill(ctx, guest); err != nil {
			v.log.Error("Pausing the guest failed; its disk is fenced", "error", err)
		}
	}
	v.stopFeeds()
}

// standStill pauses a guest that isn't paused yet. Pausing waits for the guest's requests, so its disk must be served.
func (v *vm) standStill(ctx context.Context, guest hypervisor.Guest) error {
	if err := guest.Settle(ctx); err != nil {
		return err
	}
	if state, err := guest.State(ctx); err != nil || state == hypervisor.StatePaused {
		return err
	}
	if err := v.startExport(); err != nil {
		return err
	}
	return v.halt(ctx, guest)
}

// restartFacts is what a machine must know before it takes up what an earlier engine left.
func (e *Engine) restartFacts(id string, m *baton.Machine, disk *vmdisk.Store, guest bool) baton.Facts {
	f := baton.Facts{HypervisorAlive: guest}
	if disk != nil {
		f.DiskActive = disk.Info().Owned
	}
	if ev, news := e.custodyOf(id, disk).News(m); news && !ev.Mine && (ev.Kind == baton.EvSuperseded || ev.Kind == baton.EvChosen) {
		f.Superseded, f.Owner = ev.Term, ev.Peer
	}
	return f
}

// followHistory tells the machine what the VM's history says that it doesn't know. Called by the loop.
func (v *vm) followHistory(ctx context.Context) {
	v.tellHeads()
	v.tellSignedTwice()
	v.endForeign()
	defer v.repairSoon()
	v.repeatChoice()
	for range maxNews {
		ev, news := v.custody().News(v.machine)
		if !news {
			return
		}
		before := v.machine.Encode()
		state := v.machine.State()
		if err := v.step(ctx, ev); err != nil || v.machine.State() == state && string(before) == string(v.machine.Encode()) {
			return
		}
	}
}

// repeatChoice signs a choice again that this VM's history has overtaken, if there is one. Called by the loop.
func (v *vm) repeatChoice() {
	signed, err := v.custody().Repeat(v.machine)
	v.again = err != nil
	switch {
	case err != nil:
		v.log.Error("A choice wasn't repeated; it is tried again", "error", err)
	case signed:
		v.log.Info("A choice is repeated that a hand-off had overtaken")
	}
}

// maxNews bounds how much news one change of the directory can bring.
const maxNews = 8

// repairSoon takes up a repair that is due, once the machine knows of the choice.
func (v *vm) repairSoon() {
	if t, due := v.repairDue(); due && ownedState(v.machine.State()) && v.machine.Term() >= t.Term {
		v.resolutionJob(t)
	}
}
