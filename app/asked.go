package app

import (
	"encoding/json"
	"errors"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

// Until the owner has offered the VM nothing of a switch is durable: an engine that ends then is the end of it. Whoever pressed the button shall read that.

// askedSwitch is a switch that a person asked for on this device, and of which they haven't been told the end.
type askedSwitch struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Live    bool      `json:"live"`
	At      time.Time `json:"at"`
}

const askedVersion = 1

// askedKey is where it is kept in the directory's local part.
func askedKey(vm string) string { return "asked/" + vm }

// noteAsked keeps that the person asked for the switch, which has begun and may have ended meanwhile: who could call it off mustn't come before it. That it
// can't be kept is no reason not to switch.
func (v *vm) noteAsked(s api.Switch) {
	b, err := json.Marshal(askedSwitch{Version: askedVersion, ID: s.ID, From: s.From, To: s.To, Live: s.Kind == "teleport", At: s.Started})
	if err == nil {
		err = v.e.dir.SetLocal(askedKey(v.id), b)
	}
	if err != nil {
		v.log.Warn("Noting that a switch was asked for failed", "error", err)
		return
	}
	v.mu.Lock()
	under := v.sw != nil && v.sw.s.ID == s.ID && !v.sw.s.Phase.Ended()
	if under {
		v.asked = s.ID
	}
	v.mu.Unlock()
	if !under {
		v.dropAsked()
	}
}

// endAsked forgets it when its end has been told. Who is told by an engine that ends may not have heard it: the next one tells it again.
func (v *vm) endAsked(id string) {
	if v.e.ctx.Err() != nil {
		return
	}
	v.mu.Lock()
	kept := v.asked == id && id != ""
	if kept {
		v.asked = ""
	}
	v.mu.Unlock()
	if kept {
		v.dropAsked()
	}
}

func (v *vm) dropAsked() {
	if err := v.e.dir.DropLocal(directory.LocalEntry(askedKey(v.id), nil)); err != nil {
		v.log.Warn("Forgetting that a switch was asked for failed", "error", err)
	}
}

// readAsked is the switch that an earlier engine was asked for, if its end wasn't told.
func (v *vm) readAsked() (a askedSwitch, ok bool) {
	b, err := v.e.dir.Local(askedKey(v.id))
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil && !errors.Is(err, directory.ErrNotFound) {
		v.log.Warn("Reading that a switch was asked for failed", "error", err)
	}
	return a, err == nil && a.Version == askedVersion
}

// recallAsked tells the end of a switch that an earlier engine was asked for, if that came to nothing with it. The loop calls it after its first
// event: what has got further is told by the step itself.
func (v *vm) recallAsked() {
	a, ok := v.readAsked()
	if !ok {
		return
	}
	v.dropAsked()
	if v.currentSwitch() != nil || !rests(v.machine.State()) || v.ownerID() != a.From {
		return
	}
	kind := "baton"
	if a.Live {
		kind = "teleport"
	}
	r := &switchRun{s: api.Switch{
		ID: a.ID, VM: v.id, VMName: v.name(), From: a.From, FromName: v.e.deviceName(a.From), To: a.To, ToName: v.e.deviceName(a.To),
		Kind: kind, Phase: api.PhasePreflight, Started: a.At,
	}}
	v.mu.Lock()
	v.sw = r
	v.mu.Unlock()
	v.endSwitch(r, baton.ReasonRestarted)
}
