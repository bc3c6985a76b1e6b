package verify

import "slices"

// Outcome is what became of one copy of a damaged place, or of the owner's disk.
type Outcome string

// The outcomes. They are what the local API tells, too.
const (
	// Repaired: it was bad, it was repaired, and it has been compared since.
	Repaired Outcome = "repaired"
	// Sent: a copy was bad and gets the place again, but couldn't be compared since then.
	Sent Outcome = "sent"
	// Stuck: a copy was bad, got the place again, and differs still.
	Stuck Outcome = "stuck"
	// Damaged: the owner's disk isn't what it recorded, or can't be read, and nobody has what was recorded, or nothing was. Nothing was changed.
	Damaged Outcome = "damaged"
	// Undecided: the copy differs, and nothing says which side is right. Nothing was changed.
	Undecided Outcome = "undecided"
	// Better: the copy differs and is what its device recorded, while the owner has no record. Nothing was changed.
	Better Outcome = "better"
	// Withheld: the copy differs from the owner's damaged place, and was left as it is.
	Withheld Outcome = "withheld"
)

// Finding is a place that was damaged, in bytes of the disk.
type Finding struct {
	Off, Len int64
	// Here is what became of the owner's disk there; empty if it is right, for all that is known.
	Here Outcome
	// Copies are the copies that differed, by name.
	Copies map[string]Outcome
}

// differs says that a copy with this outcome isn't what the owner's disk is.
func (o Outcome) differs() bool { return o == Stuck || o == Undecided || o == Better || o == Withheld }

// same says whether g goes on where f ends, in the same span, with the same words.
func (f *Finding) same(g *Finding) bool {
	if f.Off+f.Len != g.Off || g.Off%SpanSize == 0 || f.Here != g.Here || len(f.Copies) != len(g.Copies) {
		return false
	}
	for name, o := range f.Copies {
		if g.Copies[name] != o {
			return false
		}
	}
	return true
}

// Open says that something is wrong there still.
func (f *Finding) Open() bool {
	open := func(o Outcome) bool { return o != "" && o != Repaired && o != Sent }
	for _, o := range f.Copies {
		if open(o) {
			return true
		}
	}
	return open(f.Here)
}

// MaxFindings bounds Result.Findings; neighbours in one span with the same words are one.
const MaxFindings = 1000

// Result is what a round found, in bytes of the disk, zeros and holes included.
type Result struct {
	// Read is how much of the disk the round went through, AsRecorded how much of that has a record and is what it says.
	Read, AsRecorded int64
	// Copies has each copy that took part, by name.
	Copies map[string]*CopyResult
	// Findings are in order; MoreFindings is how many bytes further ones cover.
	Findings     []Finding
	MoreFindings int64
}

// CopyResult is how one copy fared.
type CopyResult struct {
	// Equal was the same, at the end at least; Busy was written too often to tell; Behind is what the copy lacks where it stands, or what isn't here,
	// so that it couldn't be compared; the rest of what was read, up to where the copy dropped out, differs.
	Equal, Busy, Behind int64
	// Err is why the copy dropped out, at the byte Until of the disk; nil if it didn't.
	Err   error
	Until int64

	// before is Equal, Busy and Behind where the span began that is under way.
	before [3]int64
}

// Through says that the copy was compared with all that was read, as far as it could be, and is the same.
func (c *CopyResult) Through(read int64) bool { return c.Err == nil && c.Equal+c.Busy+c.Behind == read }

// Clean says that nothing was found, or that all was repaired.
func (r *Result) Clean() bool {
	return r.MoreFindings == 0 && !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Open() })
}

// add notes a finding.
func (r *Result) add(f Finding) {
	if k := len(r.Findings) - 1; k >= 0 && r.Findings[k].same(&f) {
		r.Findings[k].Len += f.Len
		return
	}
	if len(r.Findings) == MaxFindings {
		r.MoreFindings += f.Len
		return
	}
	r.Findings = append(r.Findings, f)
}
