package site

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// When a device becomes postmaster; see the package's comment.
const (
	// Settle is how long a better device waits before it takes over from one that is there.
	Settle = time.Minute
	// Stagger is how long each of those waits for the one before it, when there is no postmaster.
	Stagger = 10 * time.Second
	// Regain is how long a device that wasn't running waits before it acts or claims.
	Regain = 10 * time.Second
	// stopped is a gap between two ticks that shows that the device wasn't running.
	stopped = 5 * time.Second
)

// Facts are what a device knows of itself.
type Facts struct {
	Power Power
	Link  Link
	Up    time.Time
}

// Input is all that a tick takes in.
type Input struct {
	// Now never goes back, and goes on while the device sleeps, as well as is known.
	Now time.Duration
	// Away says that the device says goodbye: it works offline, or ends.
	Away  bool
	Facts Facts
	// Peers are all other devices of the fleet, each once.
	Peers []Peer
	// Records are what all devices of the fleet have published, this one too. They are not changed.
	Records map[string]Record
}

// View is what a device knows of the fleet's sites.
type View struct {
	// Sites are all of them; see Sites. Here is this device's.
	Sites []Site
	Here  Site
	// Pins are the sites to which devices are pinned.
	Pins map[string]string
	// Acting says that this device is to do a postmaster's work now.
	Acting bool
}

// At returns the site of a device; its Members are empty if it isn't of the fleet.
func (v View) At(id string) Site {
	for _, s := range v.Sites {
		if slices.Contains(s.Members, id) {
			return s
		}
	}
	return Site{}
}

// Node is one device's part in all this. It is not safe for concurrent use.
type Node struct {
	self    string
	sights  sights
	pins    []Pin
	claim   uint64
	high    uint64 // the highest claim that was seen where this device was
	power   steady[Power]
	link    steady[Link]
	began   bool
	now     time.Duration // of the latest tick
	quiet   time.Duration // until then it neither acts nor claims
	none    since[string] // since when this site has no postmaster
	lagging since[string] // since when this postmaster runs on something worse
}

// New makes the node of a device. before is what its record said when it last ran: of that only the pins still hold.
func New(self string, before Record) *Node {
	return &Node{self: self, sights: sights{}, pins: slices.Clone(before.Pins)}
}

// Tick takes in the facts, once a second or so, and returns the view and what this device's record is to say from now on. It is to be
// published if it isn't what in.Records has.
func (n *Node) Tick(in Input) (View, Record) {
	gap := in.Now - n.now
	n.now = in.Now
	if !n.began || gap > stopped || in.Away {
		n.quiet = in.Now + Regain
	}
	if !n.began || gap >= LeaveAfter || in.Away {
		n.began = true
		n.sights, n.claim = sights{}, 0
	}
	records := maps.Clone(in.Records)
	if records == nil {
		records = map[string]Record{}
	}
	draft := Record{
		Power: n.power.take(in.Now, in.Facts.Power), Link: n.link.take(in.Now, in.Facts.Link),
		// As the others will read it, or each would find itself up a moment later than it says.
		Up:    in.Facts.Up.Truncate(time.Second),
		Claim: n.claim, Pins: slices.Clone(n.pins),
	}
	records[n.self] = draft
	pins := Pinned(records)
	if !in.Away {
		n.sights.update(in.Now, n.self, in.Peers, records, pins)
		draft.Sees = n.sights.list()
		records[n.self] = draft
		here := View{Sites: Sites(records)}.At(n.self)
		if n.decide(records, here) {
			draft.Claim = n.claim
			records[n.self] = draft
		}
	}
	v := View{Sites: Sites(records), Pins: pins}
	v.Here = v.At(n.self)
	published := len(v.Here.Members) == 1 || in.Records[n.self].Claim == n.claim
	v.Acting = !in.Away && in.Now >= n.quiet && v.Here.Postmaster == n.self && published
	return v, draft
}

// decide changes this device's claim, and says so, if that is due.
func (n *Node) decide(records map[string]Record, here Site) bool {
	before := n.claim
	for _, id := range here.Members {
		n.high = max(n.high, records[id].Claim)
	}
	n.claim = n.next(records, here)
	return n.claim != before
}

func (n *Node) next(records map[string]Record, here Site) uint64 {
	switch {
	case len(here.Members) == 1:
		n.none.end()
		n.lagging.end()
		return 0
	case here.Postmaster == n.self:
		n.none.end()
		n.lagging.end()
		return n.claim
	case here.Postmaster == "":
		n.lagging.end()
		turn := slices.Index(candidates(records, here.Members), n.self)
		if n.none.lasts(n.now, "none") < time.Duration(turn)*Stagger || n.now < n.quiet {
			return 0
		}
		return n.above(records, here)
	}
	n.none.end()
	if candidates(records, here.Members)[0] != n.self || compareClass(records[n.self], records[here.Postmaster]) >= 0 || n.now < n.quiet {
		n.lagging.end()
		return 0
	}
	if n.lagging.lasts(n.now, here.Postmaster) < Settle {
		return 0
	}
	return n.above(records, here)
}

// above is a claim above all that are known, or 0 if there is none. What a device claimed that isn't here any more doesn't
// count if nothing could be above it.
func (n *Node) above(records map[string]Record, here Site) uint64 {
	if n.high >= maxNumber {
		n.high = 0
		for _, id := range here.Members {
			n.high = max(n.high, records[id].Claim)
		}
	}
	if n.high >= maxNumber {
		return 0
	}
	n.high++
	return n.high
}

// Pin notes the person's word about where a device is; "" is where it is seen. The next tick's record carries it. Errors: ErrName,
// ErrInvalid (no device's ID), ErrPins.
func (n *Node) Pin(device, site string, records map[string]Record) error {
	if site != "" {
		if err := CheckName(site); err != nil {
			return fmt.Errorf("pin: %w", err)
		}
	}
	if !validID(device) {
		return fmt.Errorf("pin: %w", ErrInvalid)
	}
	others := map[string]uint64{} // the highest word of another device
	for by, r := range records {
		for _, p := range r.Pins {
			if by != n.self {
				others[p.Device] = max(others[p.Device], p.Number)
			}
		}
	}
	high := others[device]
	for _, p := range n.pins {
		if p.Device == device {
			high = max(high, p.Number)
		}
	}
	if high >= maxNumber {
		return fmt.Errorf("pin: no number is left for the device: %w", ErrPins)
	}
	// What another device has overruled, or is about nobody any more, needs no room.
	keep := slices.DeleteFunc(slices.Clone(n.pins), func(p Pin) bool {
		_, in := records[p.Device]
		return p.Device == device || others[p.Device] > p.Number || !in
	})
	if len(keep) >= maxPins {
		return fmt.Errorf("pin: %w", ErrPins)
	}
	keep = append(keep, Pin{device, site, high + 1})
	slices.SortFunc(keep, func(a, b Pin) int { return strings.Compare(a.Device, b.Device) })
	n.pins = keep
	return nil
}

// Equal says whether two records say the same.
func (r Record) Equal(o Record) bool {
	return r.Power == o.Power && r.Link == o.Link && r.Up.Equal(o.Up) && r.Claim == o.Claim &&
		slices.Equal(r.Sees, o.Sees) && slices.Equal(r.Pins, o.Pins)
}

// steady is a fact that is believed when it has held for JoinAfter; anything is better than nothing.
type steady[T comparable] struct {
	is    T
	other since[T]
}

func (s *steady[T]) take(now time.Duration, v T) T {
	var unknown T
	switch {
	case v == s.is:
		s.other.end()
	case s.is == unknown || s.other.lasts(now, v) >= JoinAfter:
		s.is = v
		s.other.end()
	}
	return s.is
}

// since is how long something has been the same.
type since[T comparable] struct {
	on   bool
	what T
	at   time.Duration
}

// lasts is how long it has been v by now.
func (s *since[T]) lasts(now time.Duration, v T) time.Duration {
	if !s.on || s.what != v {
		*s = since[T]{true, v, now}
	}
	return now - s.at
}

func (s *since[T]) end() { *s = since[T]{} }
