//go:build linux

package matrix

import (
	"math/rand/v2"
	"slices"
	"strings"

	"tagalong.org/tagalong/app/api"
)

// Phase is a step of the switch at which something befalls it.
type Phase string

// The phases, in their order.
const (
	Preflight   Phase = "preflight"   // the giver has been asked, and has not offered the VM yet
	Incoming    Phase = "incoming"    // the taker's QEMU waits for memory
	PreCopy     Phase = "pre-copy"    // memory flows, the guest runs
	Switchover  Phase = "switchover"  // the guest stands still, its disk is sealed, all but the devices' state has left
	Given       Phase = "given"       // the giver has given the VM away; the taker hasn't heard
	Received    Phase = "received"    // the taker has heard, and has not written it down yet
	Unconfirmed Phase = "unconfirmed" // the guest runs on the taker; the giver doesn't know
	Hydrating   Phase = "hydrating"   // it is over, but the taker's disk lacks blocks
)

var phases = []Phase{Preflight, Incoming, PreCopy, Switchover, Given, Received, Unconfirmed, Hydrating}

// Fault is what befalls it.
type Fault string

// The faults.
const (
	TakerEngine Fault = "taker-engine" // kill -9; it is started again at once
	GiverEngine Fault = "giver-engine"
	TakerQEMU   Fault = "taker-qemu" // kill -9
	GiverQEMU   Fault = "giver-qemu"
	Link        Fault = "link"       // nothing passes, and nobody is told
	TakerDisk   Fault = "taker-disk" // nothing can be stored any more
	GiverDisk   Fault = "giver-disk"
	Cancel      Fault = "cancel" // the person who pressed the button calls it off
)

var faults = []Fault{TakerEngine, GiverEngine, TakerQEMU, GiverQEMU, Link, TakerDisk, GiverDisk, Cancel}

// Cell is one of the matrix.
type Cell struct {
	Fault Fault
	Phase Phase
}

func (c Cell) String() string { return string(c.Fault) + "/" + string(c.Phase) }

// there says whether there is anything to befall: before the switch the taker has no QEMU, and after it the giver has none.
func (c Cell) there() bool {
	return c != Cell{TakerQEMU, Preflight} && c != Cell{GiverQEMU, Hydrating}
}

// step is where which side's engine is held.
func (p Phase) step() (side, step string) {
	switch p {
	case Preflight:
		return "giver", "send-offer"
	case Incoming:
		return "taker", "send-ready"
	case PreCopy:
		return "giver", "memory"
	case Switchover:
		return "giver", "switchover"
	case Given:
		return "giver", "send-transfer"
	case Received:
		return "taker", "persist-owned"
	case Unconfirmed:
		return "taker", "send-active"
	default:
		return "", ""
	}
}

// all is every cell.
func all() []Cell {
	var cells []Cell
	for _, p := range phases {
		for _, f := range faults {
			if c := (Cell{f, p}); c.there() {
				cells = append(cells, c)
			}
		}
	}
	return cells
}

// sample is n cells: no fault twice before each came once, and no phase.
func sample(seed uint64, n int) []Cell {
	r := rand.New(rand.NewPCG(seed, 0x6d6174726978))
	cells := all()
	r.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
	var chosen []Cell
	for round := 1; len(chosen) < min(n, len(cells)); round++ {
		for _, c := range cells {
			f, p := 0, 0
			for _, o := range chosen {
				if o.Fault == c.Fault {
					f++
				}
				if o.Phase == c.Phase {
					p++
				}
			}
			if len(chosen) < n && !slices.Contains(chosen, c) && f < round && p < round {
				chosen = append(chosen, c)
			}
		}
	}
	return chosen
}

// Outcome is what became of one.
type Outcome struct {
	// Runs is who has the VM afterwards: "giver" or "taker".
	Runs string
	// Kept says that its guest went on with its memory; else it had to be started.
	Kept bool
	// Ended is how the switch ended for who pressed the button; "" if their engine has forgotten it.
	Ended api.SwitchPhase
	// Meanwhile is what was read while nothing ran because of what had befallen, and Afterwards what was read when it was over.
	Meanwhile, Afterwards *api.Error
	// Pressed is the button that was needed.
	Pressed string
}

// word is the outcome as the table has it: who has the VM, and ! if its memory was lost and it had to be started.
func (o Outcome) word() string {
	if o.Kept {
		return o.Runs
	}
	return o.Runs + "!"
}

// fits says whether the outcome is one that the table allows: several are separated by "|".
func (o Outcome) fits(allowed string) bool {
	return slices.Contains(strings.Split(allowed, "|"), o.word())
}
