//go:build linux

package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is what befalls a PC, a link or the VM.
type Kind string

// What may happen. Wounds last; the others are over at once, or end by themselves.
const (
	KillEngine Kind = "kill-engine" // kill -9; it is started again at once
	Restart    Kind = "restart"     // the engine is asked to end, and started again
	KillGuest  Kind = "kill-guest"  // kill -9 of the hypervisor, wherever the VM runs
	Switch     Kind = "switch"      // somebody presses the button on the PC
	TakeOver   Kind = "take-over"   // the owner is made unreachable, and somebody takes the VM over on the PC
	Look       Kind = "look"        // the PC's copy, as it is at this moment, must be a disk that boots
	Cable      Kind = "cable"       // wound: the PC's cable is pulled
	Mute       Kind = "mute"        // wound: nothing passes the PC's cable, and nobody is told
	Provider   Kind = "provider"    // wound: nothing passes between the sites
	Lid        Kind = "lid"         // wound: the PC sleeps
	Low        Kind = "low"         // wound: the PC's disk has less left than the reserve
	Full       Kind = "full"        // wound: the PC's disk has nothing left
)

// Lasts says that the kind is a wound.
func (k Kind) Lasts() bool {
	return slices.Contains([]Kind{Cable, Mute, Provider, Lid, Low, Full}, k)
}

// Step is one thing that happens.
type Step struct {
	At   time.Duration // since the beginning
	Kind Kind
	PC   int           // which one, by index; Owner for whichever has the VM
	For  time.Duration // how long a wound lasts
	Coin uint64        // for choices that only the moment offers
}

// Owner stands for the PC that has the VM at the time.
const Owner = -1

func (s Step) String() string {
	text := fmt.Sprintf("%.1fs %s", s.At.Seconds(), s.Kind)
	switch {
	case s.Kind == Provider || s.Kind == KillGuest:
	case s.PC == Owner:
		text += " owner"
	default:
		text += fmt.Sprintf(" %d", s.PC)
	}
	if s.For > 0 {
		text += fmt.Sprintf(" for %.1fs", s.For.Seconds())
	}
	return text
}

// Plan is what happens to a fleet of PCs in a time. The same seed makes the same plan.
type Plan []Step

func (p Plan) String() string {
	words := make([]string, len(p))
	for i, s := range p {
		words[i] = s.String()
	}
	return strings.Join(words, "; ")
}

// How often what happens, of each hundred steps.
var weights = []struct {
	kind Kind
	of   int
}{
	{KillEngine, 22}, {Restart, 4}, {KillGuest, 6}, {Switch, 20}, {TakeOver, 4}, {Look, 8},
	{Cable, 8}, {Mute, 8}, {Provider, 6}, {Lid, 8}, {Low, 3}, {Full, 3},
}

// opening is what every plan begins with, in an order of its own: even the shortest has seen the worst of each sort.
var opening = []Kind{KillEngine, KillEngine, Switch, Mute, Look, KillGuest, Lid, Provider, Switch, Full, Look, TakeOver}

// NewPlan makes a plan.
func NewPlan(seed uint64, pcs int, total time.Duration) Plan {
	r := rand.New(rand.NewPCG(seed, 0x7a6c6f6e67))
	first := slices.Clone(opening)
	r.Shuffle(len(first), func(i, j int) { first[i], first[j] = first[j], first[i] })
	var p Plan
	between := func(low, high float64) time.Duration {
		return time.Duration((low + r.Float64()*(high-low)) * float64(time.Second))
	}
	for at := between(0.5, 3); at < total; {
		s := Step{At: at.Round(time.Millisecond), Coin: r.Uint64()}
		s.PC = r.IntN(pcs)
		// What befalls the owner is what matters most.
		owner := r.IntN(3) == 0
		if len(first) > 0 {
			s.Kind, owner = first[0], len(first)%2 == 0
			first = first[1:]
		} else {
			s.Kind = weighted(r)
		}
		if owner && s.Kind != Switch && s.Kind != TakeOver {
			s.PC = Owner
		}
		if s.Kind.Lasts() {
			s.For = between(2, 12).Round(time.Millisecond)
		}
		p = append(p, s)
		at += between(1, 8)
	}
	return p
}

func weighted(r *rand.Rand) Kind {
	n := r.IntN(100)
	for _, w := range weights {
		if n -= w.of; n < 0 {
			return w.kind
		}
	}
	panic("the weights don't add up")
}
