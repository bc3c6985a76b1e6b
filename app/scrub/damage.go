package scrub

import (
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
)

// DamageVersion is that of Damage.
const DamageVersion = 1

// maxDamage bounds Damage.Found.
const maxDamage = 50

// Damage is what verifications found to be wrong with a VM's disk or its copies, and what of that is left. It is kept by the VM's owner, in JSON. What was
// repaired is told for a week: a drive that did it once may do it again. The zero Damage, but for its version, is none.
type Damage struct {
	Version int `json:"version"`
	// Found is in the order in which it was found; More is how many bytes further findings cover.
	Found []api.FoundDamage `json:"found,omitempty"`
	More  int64             `json:"more,omitempty"`
}

// Part is what a verification went through: all that lies between two bytes of the disk.
type Part struct {
	From, To int64
	// Compared says whether a device's copy was compared with that, or can't be any more.
	Compared func(device string) bool
	Findings []api.VerifyFinding
	More     int64
}

// Passed notes what was found in a part. What was open there and isn't found any more is over, if those were compared that it was about. No finding may lie
// across the part's ends.
func (d *Damage) Passed(p Part, now time.Time) {
	if p.To <= p.From {
		return
	}
	again := func(f api.FoundDamage) bool {
		return slices.ContainsFunc(p.Findings, func(g api.VerifyFinding) bool { return f.Off < g.Off+g.Len && g.Off < f.Off+f.Len })
	}
	d.Found = slices.DeleteFunc(d.Found, func(f api.FoundDamage) bool {
		switch within := p.From <= f.Off && f.Off < p.To; {
		case !f.Open:
			return within && again(f) || !f.At.After(now.Add(-Every))
		case !within:
			return false
		}
		return again(f) || !slices.ContainsFunc(f.OpenFor(), func(device string) bool { return !p.Compared(device) })
	})
	if p.From == 0 {
		d.More = 0 // it is counted anew
	}
	for _, f := range p.Findings {
		if len(d.Found) == maxDamage {
			d.More += f.Len
			continue
		}
		d.Found = append(d.Found, api.FoundDamage{At: now, VerifyFinding: f})
	}
	d.More += p.More
}

// Told is what there is to be told now; nil if nothing is.
func (d *Damage) Told(now time.Time) *api.Damage {
	out := &api.Damage{More: d.More, Open: d.More > 0, Found: []api.FoundDamage{}}
	for _, f := range d.Found {
		if !f.Open && !f.At.After(now.Add(-Every)) {
			continue
		}
		out.Open = out.Open || f.Open
		out.Found = append(out.Found, f)
		if f.At.After(out.At) {
			out.At = f.At
		}
	}
	if len(out.Found) == 0 {
		return nil
	}
	return out
}
