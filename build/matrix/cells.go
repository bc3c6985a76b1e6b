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

// The phases of a switch of a VM that is suspended for its way (api.WaySuspend), in their order.
const (
	Suspending Phase = "suspending" // the guest stands still, its memory is about to be saved
	Sending    Phase = "sending"    // its memory is saved and its hypervisor gone; it goes to the taker with the disk
	Handed     Phase = "handed"     // the giver has given the VM away; the taker hasn't heard
	Taken      Phase = "taken"      // the taker has heard, and has not written it down yet
	Restoring  Phase = "restoring"  // the taker has loaded the memory, and the guest is about to go on
)

var carried = []Phase{Suspending, Sending, Handed, Taken, Restoring}

// carried says whether the phase is one of a switch of a VM that is suspended for its way.
func (p Phase) carried() bool { return slices.Contains(carried, p) }

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
	// Lost is Link, and who is at the giver holds the taker for lost, and takes the VM over that stands still.
	Lost Fault = "taker-lost"
)

var faults = []Fault{TakerEngine, GiverEngine, TakerQEMU, GiverQEMU, Link, Lost, TakerDisk, GiverDisk, Cancel}

// whileCarried are the faults that befall a VM that is suspended for its way. A disk that is full is the hand-over's, as of any other.
var whileCarried = []Fault{TakerEngine, GiverEngine, TakerQEMU, GiverQEMU, Link, Cancel}

// Cell is one of the matrix.
type Cell struct {
	Fault Fault
	Phase Phase
}

func (c Cell) String() string { return string(c.Fault) + "/" + string(c.Phase) }

// there says whether there is anything to befall: before the switch the taker has no QEMU, and after it the giver has none; and only when the VM
// was given away and nobody has heard of it does it run nowhere for a lost link. Of a VM that is suspended on its way there is a QEMU only at its ends.
func (c Cell) there() bool {
	if c.Phase.carried() {
		return (c.Fault != GiverQEMU || c.Phase == Suspending) && (c.Fault != TakerQEMU || c.Phase == Restoring)
	}
	return c != Cell{TakerQEMU, Preflight} && c != Cell{GiverQEMU, Hydrating} && (c.Fault != Lost || c.Phase == Given)
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
	case Suspending:
		return "giver", "saving"
	case Sending:
		return "giver", "sending"
	case Handed:
		return "giver", "send-transfer"
	case Taken:
		return "taker", "persist-owned"
	case Restoring:
		return "taker", "restoring"
	default:
		return "", ""
	}
}

// all is every cell of a switch of a VM that runs.
func all() []Cell { return cellsOf(phases, faults) }

// allCarried is every cell of one that is suspended for its way.
func allCarried() []Cell { return cellsOf(carried, whileCarried) }

func cellsOf(phases []Phase, faults []Fault) []Cell {
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

// sample is n of the cells: no fault twice before each came once, and no phase.
func sample(cells []Cell, seed uint64, n int) []Cell {
	r := rand.New(rand.NewPCG(seed, 0x6d6174726978))
	cells = slices.Clone(cells)
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
	// Remedies are what the person was told to do, in turn: while nothing ran, and when it was over.
	Remedies []api.Remedy
}

// read notes what the person was told to do, once if it is told again.
func (o *Outcome) read(e *api.Error) {
	if e != nil && e.Remedy != "" && (len(o.Remedies) == 0 || o.Remedies[len(o.Remedies)-1] != e.Remedy) {
		o.Remedies = append(o.Remedies, e.Remedy)
	}
}

// word is the outcome as the table has it: who has the VM, ! if its memory was lost and it had to be started, and what the person was told to do.
func (o Outcome) word() string {
	w := o.Runs
	if !o.Kept {
		w += "!"
	}
	between := "/"
	for _, r := range o.Remedies {
		w, between = w+between+string(r), "+"
	}
	return w
}

// fits says whether the outcome is one that the table allows: several are separated by "|".
func (o Outcome) fits(allowed string) bool {
	return slices.Contains(strings.Split(allowed, "|"), o.word())
}

// possible says whether words are what the table may have for a cell.
func possible(words string) bool {
	for word := range strings.SplitSeq(words, "|") {
		runs, remedies, told := strings.Cut(word, "/")
		if runs = strings.TrimSuffix(runs, "!"); runs != "giver" && runs != "taker" {
			return false
		}
		if !told {
			continue
		}
		for r := range strings.SplitSeq(remedies, "+") {
			switch api.Remedy(r) {
			case api.RemedySwitch, api.RemedyStart, api.RemedyResume, api.RemedyTake, api.RemedyWait:
			default:
				return false
			}
		}
	}
	return true
}
