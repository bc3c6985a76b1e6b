package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/farewell"
)

// A device that was removed is cut off by the others at once, and hears of it as soon as it meets any of them: the farewell
// protocol carries the signed removal to it, it carries that out, and answers with its own signed word, which goes to all the
// others. One that leaves by itself tells with its word what it has done. Both survive restarts: the removal is in the
// directory, what is left to be done of it beside.

// farewellKey is where a removed device keeps what it has carried out.
const farewellKey = "farewell"

// keptFarewell is that.
type keptFarewell struct {
	// Delete says that the person who left wanted the copies of others' VMs deleted.
	Delete bool `json:"delete,omitempty"`
	// Done is the version of the removal that was carried out, Wiped that everything was deleted.
	Done  uint64 `json:"done,omitempty"`
	Wiped bool   `json:"wiped,omitempty"`
}

// farewellState is what those wait for who want to know that it is done.
type farewellState struct {
	mu      sync.Mutex
	changed chan struct{} // closed when something was carried out
}

func (f *farewellState) wait() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

func (f *farewellState) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed != nil {
		close(f.changed)
	}
	f.changed = nil
}

func (e *Engine) keptFarewell() (k keptFarewell, err error) {
	b, err := e.dir.Local(farewellKey)
	if errors.Is(err, directory.ErrNotFound) {
		return k, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	return k, err
}

func (e *Engine) keepFarewell(k keptFarewell) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return e.dir.SetLocal(farewellKey, b)
}

// carryOutRemoval does what follows for this device from its removal, if it hasn't yet. followDirectory's goroutine alone
// calls it, so no VM appears meanwhile. What fails is tried again.
func (e *Engine) carryOutRemoval() {
	r, out := e.dir.Removal(e.host.ID())
	if !out {
		return
	}
	kept, err := e.keptFarewell()
	if err == nil && kept.Done == r.Version {
		return
	}
	wipe := false
	if err == nil {
		wipe, err = e.carryOut(r, kept)
	}
	e.tellLeaving(r, wipe, err)
}

// tellLeaving tells the person when a removal couldn't be carried out, once for each cause, and shows it until it could.
func (e *Engine) tellLeaving(r directory.Record, wipe bool, err error) {
	var now *api.Leaving
	if err != nil {
		now = &api.Leaving{By: r.Writer, ByName: e.deviceName(r.Writer), Wipe: wipe, Cause: strings.ReplaceAll(err.Error(), "\n", "; ")}
		now.Text = leavingText(now, e.host.ID())
	}
	e.mu.Lock()
	before := e.leaving
	e.leaving = now
	e.mu.Unlock()
	if now == nil || before != nil && *before == *now {
		return
	}
	e.log.Error("Carrying out this device's removal failed", "error", err)
	e.hub.publish(api.Event{Kind: "fleet.leaving-failed", Device: r.Writer, Text: now.Text})
}

func leavingText(l *api.Leaving, self string) string {
	text := "This device was removed from the fleet by " + l.ByName
	if l.By == self {
		text = "This device has left the fleet"
	}
	if l.Wipe {
		text += " and is to delete everything that it has of it, but couldn't delete all of it."
	} else {
		text += ", but not all that follows from that could be done."
	}
	return text + " It tries again by itself. Cause: " + l.Cause
}

// carryOut says what it was asked for, even if it fails later.
func (e *Engine) carryOut(r directory.Record, kept keptFarewell) (wipe bool, err error) {
	left := r.Writer == e.host.ID()
	wipe, err = e.dir.AcceptRemoval(r) // it was; now it only says what it asks for
	if err != nil {
		return wipe, err
	}
	text := "This device was removed from the fleet by " + e.deviceName(r.Writer) + "."
	switch {
	case wipe:
		if err := e.wipe(); err != nil {
			return wipe, err
		}
		text += " All VMs and copies on it were deleted."
	case left:
		text = "This device has left the fleet."
		if kept.Delete {
			err = e.deleteForeign()
		}
	default:
		text += " Its copies of VMs stay, but nothing updates them any more."
	}
	if err != nil {
		return wipe, err
	}
	if err := e.keepFarewell(keptFarewell{Done: r.Version, Wiped: wipe}); err != nil {
		return wipe, err
	}
	e.farewell.wake()
	e.log.Info("This device is a fleet of one now", "by", r.Writer, "wiped", wipe)
	e.hub.publish(api.Event{Kind: "fleet.left", Device: r.Writer, Text: text})
	return wipe, nil
}

// carriedOut waits until this device's removal is carried out, and returns its own word of it.
func (e *Engine) carriedOut(ctx context.Context) ([]byte, error) {
	for {
		changed := e.farewell.wait()
		r, out := e.dir.Removal(e.host.ID())
		kept, err := e.keptFarewell()
		switch {
		case err != nil:
			return nil, err
		case !out:
			return nil, directory.ErrNotFound
		case kept.Done == r.Version:
			word, err := e.dir.Acknowledge(kept.Wiped)
			if err != nil {
				return nil, err
			}
			return json.Marshal(word)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// wipe stops every guest and deletes everything of the fleet's: VMs, copies, restore points, saved memories, and what the
// directory knows of them.
//
// What fails keeps nothing else from being deleted.
func (e *Engine) wipe() error {
	var errs []error
	vms := e.allVMs()
	slices.SortFunc(vms, func(a, b *vm) int { return strings.Compare(a.id, b.id) }) // so that the same failure reads the same
	for _, v := range vms {
		errs = append(errs, e.destroy(v))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for key := range e.dir.Digest() {
		kind, rest, _ := strings.Cut(key, "/")
		if id, _, _ := strings.Cut(rest, "/"); kind == "vm" || kind == "transfer" {
			if err := e.dir.ForgetVM(id); err != nil {
				return err
			}
		}
	}
	// What couldn't be opened goes too.
	if err := os.RemoveAll(filepath.Join(e.opt.DataDir, "vms")); err != nil {
		return fmt.Errorf("delete the VMs' files: %w", err)
	}
	if err := e.heralding.forget(); err != nil {
		return err
	}
	return durable.SyncDir(e.opt.DataDir)
}

// deleteForeign deletes the copies of VMs that this device doesn't own.
func (e *Engine) deleteForeign() error {
	for _, v := range e.allVMs() {
		if v.ownerID() == e.host.ID() {
			continue
		}
		if err := e.destroy(v); err != nil {
			return err
		}
	}
	return nil
}

// destroy kills the VM's guest, if one runs here, and deletes all that this device has and knows of it.
func (e *Engine) destroy(v *vm) error {
	r, known := v.record()
	ctx, cancel := context.WithTimeout(e.ctx, actionTimeout)
	defer cancel()
	if guest := v.currentGuest(); guest != nil {
		if err := guest.Kill(ctx); err != nil {
			return fmt.Errorf("stop %s: %w", v.id, err)
		}
	}
	if err := e.forget(v); err != nil {
		return err
	}
	if known {
		// One that was just being started.
		if c, err := e.guestConfig(v.id, r); err == nil {
			if guest, err := v.tryFind(c, actionTimeout); err == nil {
				if err := errors.Join(guest.Kill(ctx), guest.Close()); err != nil {
					return fmt.Errorf("stop %s: %w", v.id, err)
				}
			}
		}
	}
	return e.dir.ForgetVM(v.id)
}

const (
	// farewellPause is how long a farewell that failed isn't tried again, farewellRefused one that wasn't believed.
	farewellPause   = 2 * time.Second
	farewellRefused = time.Minute
	// farewellTimeout is how long a device may take to delete what it has.
	farewellTimeout = 10 * time.Minute
)

// followFarewells tells those who have to be told that they, or this device, left the fleet, as soon as they are met.
func (e *Engine) followFarewells(ctx context.Context) error {
	wake, stop := e.host.Watch()
	defer stop()
	changed, stopChanged := e.dir.Changed()
	defer stopChanged()
	again := time.NewTicker(farewellPause)
	defer again.Stop()
	type end struct {
		device string
		err    error
	}
	ended := make(chan end)
	busy, met := map[string]bool{}, map[string]bool{}
	notBefore := map[string]time.Time{}
	for {
		untold := idsOf(toldNothing(e.dir))
		for _, m := range append(e.dir.RemovedMembers(), e.dir.Former()...) {
			connected := e.host.Connected(m.ID)
			// One that knows and comes all the same doesn't know any more.
			due := connected && (slices.Contains(untold, m.ID) || m.Removed && !met[m.ID])
			met[m.ID] = connected
			if !due || busy[m.ID] || time.Now().Before(notBefore[m.ID]) {
				continue
			}
			busy[m.ID] = true
			e.spawn(func() {
				err := e.sayFarewell(ctx, m)
				select {
				case ended <- end{m.ID, err}:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-changed:
		case <-again.C:
		case x := <-ended:
			delete(busy, x.device)
			switch {
			case x.err == nil, errors.Is(x.err, p2p.ErrConnLost), errors.Is(x.err, p2p.ErrNotConnected):
				// Whoever learns that a device left hangs up on it first.
			case errors.Is(x.err, farewell.ErrRefused):
				notBefore[x.device] = time.Now().Add(farewellRefused)
				e.log.Warn("A removed device doesn't believe that it was", "device", x.device, "error", x.err)
			default:
				notBefore[x.device] = time.Now().Add(farewellPause)
			}
		}
	}
}

// sayFarewell shows a removed device its removal, or a device of the fleet of before this one's own word.
func (e *Engine) sayFarewell(ctx context.Context, m directory.Member) error {
	ctx, cancel := context.WithTimeout(ctx, farewellTimeout)
	defer cancel()
	var b []byte
	var err error
	if m.Removed {
		b, err = e.removal(m.ID)
	} else {
		b, err = e.carriedOut(ctx)
	}
	if err != nil {
		return err
	}
	s, err := e.host.Open(ctx, m.ID, farewell.Protocol)
	if err != nil {
		return err
	}
	if err := farewell.Tell(ctx, s, b, func(word []byte) error { return e.noteFarewell(m, word) }); err != nil {
		e.log.Debug("A farewell failed", "device", m.ID, "error", err)
		return err
	}
	return nil
}

func (e *Engine) removal(device string) ([]byte, error) {
	r, ok := e.dir.Removal(device)
	if !ok {
		return nil, directory.ErrNotFound
	}
	return json.Marshal(r)
}

// noteFarewell makes durable that the device knows.
func (e *Engine) noteFarewell(m directory.Member, word []byte) error {
	if !m.Removed {
		return e.dir.SetTold(m.ID)
	}
	var r directory.Record
	if err := json.Unmarshal(word, &r); err != nil {
		return fmt.Errorf("read its word: %w", err)
	}
	if r.Writer != m.ID {
		return fmt.Errorf("its word is another's: %w", directory.ErrInvalid)
	}
	err := e.dir.AcceptWord(r)
	if err != nil {
		e.struck(m.ID, err)
	}
	return err
}

var errNotOurs = errors.New("about neither of the two devices")

// struck remembers a lie against the device that told it. A removal that is out of date is none: it may not have heard.
func (e *Engine) struck(device string, err error) {
	if errors.Is(err, directory.ErrSignature) || errors.Is(err, errNotOurs) {
		e.dir.Strike(device, "false farewell", err)
	}
}

// handleFarewell hears that this device was removed, or that the other one has left. Of anybody else nothing is believed here:
// that is the exchange's business, which knows who may say what.
func (e *Engine) handleFarewell(ctx context.Context, s p2p.Stream) {
	peer, mine := s.Peer(), false
	noted, err := farewell.Hear(ctx, s, func(b []byte) (func(context.Context) ([]byte, error), error) {
		var r directory.Record
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, fmt.Errorf("read the record: %w", err)
		}
		var err error
		_, rest, _ := strings.Cut(r.Key, "/")
		about, _, _ := strings.Cut(rest, "/")
		switch mine = about == e.host.ID(); {
		case mine:
			_, err = e.dir.AcceptRemoval(r)
		case about == peer && r.Writer == peer:
			err = e.dir.AcceptWord(r)
		default:
			err = errNotOurs
		}
		if err != nil {
			e.struck(peer, err)
			return nil, err
		}
		if mine {
			return e.carriedOut, nil
		}
		return func(context.Context) ([]byte, error) { return nil, nil }, nil
	})
	if err != nil {
		e.log.Info("A farewell came to nothing", "device", peer, "error", err)
	}
	if noted && mine {
		if err := e.dir.SetTold(peer); err != nil && !errors.Is(err, directory.ErrNotFound) {
			e.log.Warn("Noting that a device knows failed", "device", peer, "error", err)
		}
	}
}

// leaveTimeout is how long those who are connected may take to hear that this device leaves. The others hear when they come.
const leaveTimeout = 10 * time.Second

// LeaveFleet implements api.Engine.
func (e *Engine) LeaveFleet(ctx context.Context, req api.LeaveFleet) error {
	members := e.dir.Members()
	if len(members) == 0 {
		return errConflict("This device is in no fleet.", "")
	}
	if e.preparation() != nil {
		return &api.Error{Code: api.CodeBusy, Sentence: "This device is getting ready to work offline.", Next: "Cancel that first: tagalong offline off"}
	}
	for _, v := range e.allVMs() {
		if err := v.leaves(req.Delete); err != nil {
			return err
		}
		if v.owner() && v.copied() {
			return errConflict(v.name()+" is on this device, and others have copies of it.",
				fmt.Sprintf("Switch it to another device first (tagalong switch %q --to DEVICE), or remove it.", v.name()))
		}
	}
	if err := e.keepFarewell(keptFarewell{Delete: req.Delete}); err != nil {
		return fmt.Errorf("leave the fleet: %w", err)
	}
	var here []string
	for _, m := range members {
		if e.host.Connected(m.ID) {
			here = append(here, m.ID)
		}
	}
	if err := e.dir.Leave(); err != nil {
		return fmt.Errorf("leave the fleet: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if _, err := e.carriedOut(ctx); err != nil {
		return fmt.Errorf("leave the fleet: %w", err)
	}
	for !e.allKnow(here) && pauseFor(ctx, prepareEvery) == nil {
		continue
	}
	return nil
}

// leaves fails if this device has something of the VM that only it has, and that the person has to decide about before it leaves.
func (v *vm) leaves(deletes bool) error {
	for _, h := range v.e.dir.Heads(v.id) {
		if err := v.decided(); err != nil && h.To == v.e.host.ID() {
			return err
		}
	}
	v.mu.Lock()
	state := v.state
	v.mu.Unlock()
	switch {
	case state == baton.Ousted:
		return errBusy(v.name(), "it isn't settled yet what becomes of what this device has of it")
	case deletes && v.ownerID() != v.e.host.ID() && len(v.restorePoints()) > 0:
		return errConflict("This device keeps a restore point of "+v.name()+", which no other has.",
			"Delete it first (tagalong restore-points delete), or leave without deleting the copies.")
	}
	return nil
}

// allKnow says whether these devices of the fleet of before know that this one has left.
func (e *Engine) allKnow(ids []string) bool {
	for _, m := range e.dir.Former() {
		if !m.Told && slices.Contains(ids, m.ID) {
			return false
		}
	}
	return true
}

// copied says whether another device of the fleet has a copy of this VM, be it half of one.
func (v *vm) copied() bool {
	for _, r := range v.status().Replicas {
		if r.Position.Term > 0 || r.State == api.ReplicaLive || r.State == api.ReplicaBehind {
			return true
		}
	}
	for device, info := range v.e.dir.Replicas(v.id) {
		if v.e.dir.IsMember(device) && (info.Complete || info.Position.Term > 0) {
			return true
		}
	}
	return false
}
