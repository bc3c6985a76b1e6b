package app

import (
	"context"
	"encoding/json"
	"fmt"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
)

// carryNote is what is kept of it.
type carryNote struct {
	Version int    `json:"v"`
	To      string `json:"to"`
	Term    uint64 `json:"term"`
	Was     bool   `json:"was,omitempty"`
}

func carryKey(vm string) string { return "carry/" + vm }

// takeUpCarry goes on with what an earlier engine was about. s is what is known of the saved memory.
func (v *vm) takeUpCarry(s saved) {
	if v.carried() != nil {
		return
	}
	// Only then: what ends a carrying drops its note before it isn't one any more.
	raw, err := v.e.dir.Local(carryKey(v.id))
	if err != nil {
		return // there is nothing, mostly
	}
	var note carryNote
	if err := json.Unmarshal(raw, &note); err != nil || note.Version != 1 || s.header == nil || s.header.For != note.To || note.Term != v.currentTerm() || !v.e.dir.IsMember(note.To) {
		v.dropCarryNote()
		return
	}
	c := v.newCarry(note.To, note.Was)
	at := s.header.At
	v.startCarry(c, api.PhaseSend, func(context.Context) error {
		v.switchStopped(at)
		return nil
	})
}

func (v *vm) currentTerm() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.term
}

func (v *vm) writeCarryNote(c *carryRun) error {
	raw, err := json.Marshal(carryNote{Version: 1, To: c.to, Term: v.currentTerm(), Was: c.was})
	if err != nil {
		return fmt.Errorf("describe where the VM is to go: %w", err)
	}
	if err := v.e.dir.SetLocal(carryKey(v.id), raw); err != nil {
		return errFullDisk(err)
	}
	return nil
}

// dropCarryNote forgets where the VM was to go. Should that fail, a later engine finds a note that fits no header.
func (v *vm) dropCarryNote() {
	if err := v.e.dir.DropLocal(directory.LocalEntry(carryKey(v.id), nil)); err != nil {
		v.log.Warn("Forgetting where the VM was to go failed", "error", err)
	}
}
