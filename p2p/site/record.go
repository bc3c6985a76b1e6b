package site

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// version is that of the encoding below. New fields that old programs may ignore don't change it.
const version = 1

// Limits of a record.
const (
	MaxRecord = 32 << 10 // bytes, encoded
	MaxName   = 64       // bytes of a site's name
	maxID     = 128      // bytes of a device's ID
	maxSees   = 128      // devices that one sees
	maxPins   = 64       // that one device has written
	maxNumber = 1 << 53  // of claims and pins: what JSON's readers agree on
)

var (
	// ErrInvalid: not the canonical encoding of a record, or beyond the limits.
	ErrInvalid = errors.New("site: invalid record")
	// ErrVersion: written by a newer program in a way that this one doesn't understand.
	ErrVersion = errors.New("site: unknown version of a record")
	// ErrName: not a name for a site: empty, "auto", too long, or with characters that can't be shown.
	ErrName = errors.New("site: not a name for a site")
	// ErrPins: no more devices can be pinned from this device.
	ErrPins = errors.New("site: too many pins")
)

// Power is what a device runs on.
type Power string

// The kinds of power.
const (
	PowerUnknown Power = ""
	Mains        Power = "mains"
	Battery      Power = "battery"
)

// Link is how a device is connected on its way to other sites.
type Link string

// The kinds of links.
const (
	LinkUnknown Link = ""
	Wired       Link = "wired"
	Wireless    Link = "wireless"
)

// Record is what a device says of where it is. The zero Record says nothing: as of a device whose program knows of no sites.
type Record struct {
	Power Power
	Link  Link
	// Up is since when it has been up, by its own clock, to the second; zero: unknown.
	Up time.Time
	// Sees are the devices that it counts as near it.
	Sees []Seen
	// Claim is its claim to be postmaster; 0: none.
	Claim uint64
	// Pins are the person's words that were said on this device.
	Pins []Pin
}

// Seen is one device that another one sees.
type Seen struct {
	ID string
	// Heard says that it heard its announcement itself, and doesn't rely on the other's ears.
	Heard bool
}

// Pin is the person's word about where a device is.
type Pin struct {
	Device string
	Site   string // "": where it is seen
	Number uint64 // the highest about a device counts
}

// encoded is a Record's form. A field that is missing is zero.
type encoded struct {
	V     int             `json:"v"`
	Power string          `json:"power,omitempty"`
	Link  string          `json:"link,omitempty"`
	Up    int64           `json:"up,omitempty"` // seconds since 1970
	Sees  map[string]bool `json:"sees,omitempty"`
	Claim uint64          `json:"claim,omitempty"`
	Pins  []encodedPin    `json:"pins,omitempty"`
}

type encodedPin struct {
	Device string `json:"device"`
	Site   string `json:"site,omitempty"`
	Number uint64 `json:"n"`
}

// Encode returns the JSON of r. The order of Sees and Pins doesn't matter. The error is ErrInvalid.
func (r Record) Encode() ([]byte, error) {
	e := encoded{V: version, Power: string(r.Power), Link: string(r.Link), Claim: r.Claim}
	if !r.Up.IsZero() {
		e.Up = r.Up.Unix()
	}
	if len(r.Sees) > 0 {
		e.Sees = make(map[string]bool, len(r.Sees))
	}
	for _, s := range r.Sees {
		e.Sees[s.ID] = s.Heard
	}
	for _, p := range r.Pins {
		e.Pins = append(e.Pins, encodedPin(p))
	}
	slices.SortFunc(e.Pins, func(a, b encodedPin) int { return strings.Compare(a.Device, b.Device) })
	if err := e.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(e)
	if err == nil && len(b) > MaxRecord {
		err = fmt.Errorf("%d bytes", len(b))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return b, nil
}

// Decode reads what Encode wrote; an empty b is the zero Record. It takes b from anybody. The errors are ErrInvalid and ErrVersion.
func Decode(b []byte) (Record, error) {
	if len(b) == 0 {
		return Record{}, nil
	}
	if len(b) > MaxRecord {
		return Record{}, fmt.Errorf("%w: %d bytes", ErrInvalid, len(b))
	}
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if head.V != version {
		if head.V > version {
			return Record{}, fmt.Errorf("%w: %d", ErrVersion, head.V)
		}
		return Record{}, fmt.Errorf("%w: version %d", ErrInvalid, head.V)
	}
	var e encoded
	if err := json.Unmarshal(b, &e); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := e.check(); err != nil {
		return Record{}, err
	}
	r := Record{Power: Power(e.Power), Link: Link(e.Link), Claim: e.Claim}
	// What a newer program tells apart is unknown to this one.
	if r.Power != Mains && r.Power != Battery {
		r.Power = PowerUnknown
	}
	if r.Link != Wired && r.Link != Wireless {
		r.Link = LinkUnknown
	}
	if e.Up != 0 {
		r.Up = time.Unix(e.Up, 0).UTC()
	}
	for _, id := range slices.Sorted(maps.Keys(e.Sees)) {
		r.Sees = append(r.Sees, Seen{id, e.Sees[id]})
	}
	for _, p := range e.Pins {
		r.Pins = append(r.Pins, Pin(p))
	}
	return r, nil
}

func (e *encoded) check() error {
	// Times beyond these years don't survive being written and read.
	const years = 1 << 36
	bad := len(e.Power) > MaxName || len(e.Link) > MaxName || e.Up < -years || e.Up > years ||
		len(e.Sees) > maxSees || len(e.Pins) > maxPins || e.Claim > maxNumber
	for id := range e.Sees {
		bad = bad || !validID(id)
	}
	for i, p := range e.Pins {
		bad = bad || !validID(p.Device) || p.Site != "" && CheckName(p.Site) != nil || p.Number == 0 || p.Number > maxNumber ||
			i > 0 && e.Pins[i-1].Device >= p.Device
	}
	if bad {
		return ErrInvalid
	}
	return nil
}

func validID(id string) bool {
	return id != "" && len(id) <= maxID && strings.IndexFunc(id, func(c rune) bool { return c <= ' ' || c >= 0x7f }) < 0
}

// CheckName returns nil if a site may be called so, and else ErrName.
func CheckName(name string) error {
	strange := func(c rune) bool { return !unicode.IsPrint(c) || c == utf8.RuneError }
	if name == "" || name == "auto" || len(name) > MaxName || strings.TrimSpace(name) != name || strings.IndexFunc(name, strange) >= 0 {
		return ErrName
	}
	return nil
}

// sees returns what r says of a device.
func (r *Record) sees(id string) (s Seen, ok bool) {
	i := slices.IndexFunc(r.Sees, func(s Seen) bool { return s.ID == id })
	if i < 0 {
		return s, false
	}
	return r.Sees[i], true
}
