package app

import (
	"context"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
)

// How a VM came to where it is, as the history tells.
const (
	howTeleport = "teleport" // running, with its memory
	howSuspend  = "suspend"  // with its saved memory
	howStart    = "start"    // stopped
	howTakeover = "takeover" // without its owner's consent
)

// History implements api.Engine.
func (e *Engine) History(_ context.Context, name string) ([]api.HistoryEntry, error) {
	v, err := e.find(name)
	if err != nil {
		return nil, err
	}
	transfers := e.dir.History(v.id)
	lost := e.lostSides(transfers)
	out := make([]api.HistoryEntry, 0, len(transfers))
	for _, t := range transfers {
		h := api.HistoryEntry{
			VM: v.id, Term: t.Term, Owner: t.To, OwnerName: e.deviceName(t.To), Position: api.Position(t.Position), At: t.At, Kind: string(t.Kind),
			Hash: t.Hash().String(), Lost: lost[t.Hash()],
		}
		if t.Prev != (directory.Hash{}) {
			h.Prev = t.Prev.String()
		}
		for _, over := range t.Over {
			h.Over = append(h.Over, over.String())
		}
		if t.From != "" && t.From != t.To {
			h.From, h.FromName = t.From, e.deviceName(t.From)
		}
		switch t.Kind {
		case directory.KindTakeover:
			h.How = howTakeover
		case directory.KindSwitch:
			if n, ok := e.dir.Note(v.id, t.Term); ok {
				h.How, h.Pause, h.Memory, h.Disk = n.How, n.Pause, n.Memory, n.Disk
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// lostSides are the transfers that only led to what the person has chosen against.
func (e *Engine) lostSides(transfers []directory.SignedTransfer) map[directory.Hash]bool {
	byHash := make(map[directory.Hash]directory.SignedTransfer, len(transfers))
	followed := make(map[directory.Hash]bool, len(transfers))
	for _, t := range transfers {
		byHash[t.Hash()] = t
		followed[t.Prev] = true
	}
	lost, kept := map[directory.Hash]bool{}, map[directory.Hash]bool{}
	for _, t := range transfers {
		if followed[t.Hash()] {
			continue
		}
		side := kept
		if e.dir.GivenUp(t.Hash()) {
			side = lost
		}
		for h := t.Hash(); !side[h]; h = byHash[h].Prev {
			if _, known := byHash[h]; !known {
				break
			}
			side[h] = true
		}
	}
	for h := range kept {
		delete(lost, h)
	}
	return lost
}

// noteSwitch tells the fleet how a switch to this device went. It is only shown: a failure is logged.
func (v *vm) noteSwitch(term uint64, s api.Switch) {
	n := directory.Note{VM: v.id, Term: term, How: howStart, Memory: s.Memory, Disk: s.Disk, Began: s.Started, Ended: s.Ended}
	switch s.Kind {
	case "teleport":
		n.How, n.Pause = howTeleport, s.Pause
	case kindCarried:
		n.How, n.Pause = howSuspend, s.Pause
	}
	if err := v.e.dir.PutNote(n); err != nil {
		v.log.Warn("Noting how the VM came here failed", "term", term, "error", err)
	}
}
