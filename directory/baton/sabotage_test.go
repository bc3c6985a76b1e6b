package baton

import (
	"slices"
	"testing"
)

// TestExplorerNotices breaks one rule at a time: a defect of that kind must be
// found, or the explorer proves nothing.
func TestExplorerNotices(t *testing.T) {
	drop := func(kind ActionKind) sabotage {
		return func(_ *world, _ *device, _ Event, acts []Action) []Action {
			return slices.DeleteFunc(slices.Clone(acts), func(a Action) bool { return a.Kind == kind })
		}
	}
	breaks := func(what string) sabotage {
		return func(w *world, _ *device, _ Event, acts []Action) []Action {
			w.broken = what
			return acts
		}
	}
	for name, sab := range map[string]sabotage{
		"giver resumes from given": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if d.m.State() == Given && ev.Kind == EvLinkLost {
				return append(acts, Action{Kind: ActResume, Term: d.m.d.Term - 1, Guest: true})
			}
			return acts
		},
		"giver forgets given": func(_ *world, d *device, ev Event, acts []Action) []Action {
			for i := range acts {
				if acts[i].Kind == ActPersistGiven {
					acts[i].State = d.m.Encode()
				}
			}
			return acts
		},
		"taker runs before the transfer": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if ev.Kind == EvLoadedLocal && d.m.State() == Loaded {
				return append(acts, Action{Kind: ActActivateDisk, Term: d.m.try.term + 1}, Action{Kind: ActRunGuest})
			}
			return acts
		},
		"attempts are not named freshly": func(w *world, d *device, ev Event, acts []Action) []Action {
			w.reuse = true
			d.m.d.Aborted = nil
			return acts
		},
		"active before it is durable": func(_ *world, _ *device, ev Event, acts []Action) []Action {
			if len(acts) > 0 && acts[len(acts)-1].Kind == ActPersistOwned {
				a := acts[len(acts)-1]
				return append(acts[:len(acts)-1:len(acts)-1], Action{Kind: ActSendActive, Peer: a.Peer, Term: a.Term}, a)
			}
			return acts
		},
		"the transfer leaves before it is durable": func(_ *world, _ *device, ev Event, acts []Action) []Action {
			if len(acts) == 1 && acts[0].Kind == ActPersistGiven {
				a := acts[0]
				return []Action{{Kind: ActSendTransfer, Peer: a.Peer, Term: a.Term, Attempt: a.Attempt, Live: a.Live, GuestHeld: true}, a}
			}
			return acts
		},
		"an aborted attempt keeps its hypervisor": drop(ActKillHypervisor),
		"the transfer is not sent again": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if ev.Kind == EvTick || ev.Kind == EvLinkUp || ev.Kind == EvRestart {
				return slices.DeleteFunc(slices.Clone(acts), func(a Action) bool { return a.Kind == ActSendTransfer })
			}
			return acts
		},
		"a failure to store is believed after a doubtful one": func(w *world, d *device, ev Event, acts []Action) []Action {
			w.broken = "store"
			d.m.unsure = false
			return acts
		},
		"aborts do not resume":               drop(ActResume),
		"a superseded owner's guest goes on": drop(ActPauseGuest),
		"a superseded owner's disk stays active": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if ev.Kind == EvSuperseded || ev.Kind == EvChosen {
				return slices.DeleteFunc(slices.Clone(acts), func(a Action) bool { return a.Kind == ActFenceDisk })
			}
			return acts
		},
		"a superseded hand-off is resumed": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if i := slices.IndexFunc(acts, func(a Action) bool { return a.Kind == ActSendAbort && a.Reason == ReasonOusted }); i >= 0 {
				return append(slices.Clone(acts), Action{Kind: ActResume, Term: d.m.d.Term, Guest: true})
			}
			return acts
		},
		"an owner that comes back begins before it asks": breaks("facts"),
		"a late transfer of a side that lost is taken": func(_ *world, d *device, _ Event, acts []Action) []Action {
			if d.m.State() == Replica || d.m.State() == Owned {
				d.m.d.Over = 0
			}
			return acts
		},
		"nothing is ever newer":                      breaks("judge"),
		"a disk is overwritten before it was judged": breaks("gate"),
		"what is kept is not made known":             drop(ActPersistKept),
		"the side that loses is given up without a restore point": func(_ *world, d *device, _ Event, acts []Action) []Action {
			acts = slices.Clone(acts)
			for i := range acts {
				if acts[i].Kind == ActSetAside {
					acts = slices.Delete(acts, i, i+1)
					d.local = append(d.local, Event{Kind: EvSetAside})
					break
				}
			}
			return acts
		},
		"the guest of the side that loses stays": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if ev.Kind == EvChosen || ev.Kind == EvRestart {
				return slices.DeleteFunc(slices.Clone(acts), func(a Action) bool { return a.Kind == ActKillHypervisor })
			}
			return acts
		},
		"an unjudged guest is killed": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if ev.Kind == EvSuperseded && d.m.State() == Ousted {
				return append(slices.Clone(acts), Action{Kind: ActKillHypervisor})
			}
			return acts
		},
		"a takeover activates before it is durable": func(_ *world, _ *device, _ Event, acts []Action) []Action {
			if n := len(acts); n > 0 && acts[n-1].Kind == ActPersistTakeover {
				return append(acts[:n-1:n-1], Action{Kind: ActActivateDisk, Term: acts[n-1].Term}, acts[n-1])
			}
			return acts
		},
		"a choice activates before it is durable": func(_ *world, d *device, ev Event, acts []Action) []Action {
			if n := len(acts); ev.Kind == EvChosen && ev.Mine && n > 0 {
				return append(acts[:n-1:n-1], Action{Kind: ActActivateDisk, Term: acts[n-1].Term}, acts[n-1])
			}
			return acts
		},
		"the owner that was chosen goes on under its old term": drop(ActRenewTerm),
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 4000; seed++ {
				if w := explore(seed, sab); w.err != nil {
					t.Logf("seed %d: %v", seed, w.err)
					return
				}
			}
			t.Fatal("not noticed in 4000 seeds")
		})
	}
}

// TestDoubtfulStore is the control of the sabotage that believes a failure: with
// a store that fails as often, but a machine that does not believe it, all is well.
func TestDoubtfulStore(t *testing.T) {
	for seed := range uint64(100) {
		w := explore(seed, func(w *world, _ *device, _ Event, acts []Action) []Action {
			w.broken = "store"
			return acts
		})
		if w.err != nil {
			t.Fatalf("seed %d: %v", seed, w.err)
		}
	}
}
