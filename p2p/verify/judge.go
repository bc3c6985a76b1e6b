package verify

// side is what one disk has of a leaf.
type side struct {
	record Record
	sum    Sum
	// Of a copy: without is what it was compared without, own the owner's sum without that. stands says that nothing feeds it, at where.
	without Mask
	own     Sum
	stands  bool
	at      Position
}

// verdict is what is to be done about a copy.
type verdict int

const (
	equal     verdict = 0
	send      verdict = 1 // it is bad
	undecided verdict = 2
	better    verdict = 3 // the owner's disk is probably the bad one
)

// ownBad says that the owner's leaf is known to be bad: rule 1.
func ownBad(own side) bool { return own.record == NotAsRecorded || own.record == Unreadable }

// judge says what is to be done about each copy of a leaf of which the owner's disk isn't known to be bad: rules 2 to 5 of the package comment. What
// another copy says counts only if it was compared in all that this one was.
func judge(own side, copies map[string]side, overwrite bool) map[string]verdict {
	out := map[string]verdict{}
	for name, c := range copies {
		if c.sum == c.own {
			out[name] = equal
			continue
		}
		mine, theirs, forMine, forTheirs := own.record == AsRecorded, false, 1, 0
		for _, o := range copies {
			switch {
			case ownBad(o):
			case o.sum == o.own && o.without.within(c.without):
				forMine++
				mine = mine || o.record == AsRecorded
			case o.sum == c.sum && o.without == c.without:
				forTheirs++
				theirs = theirs || o.record == AsRecorded
			}
		}
		switch {
		case ownBad(c), overwrite:
			out[name] = send
		case c.record == AsRecorded && own.record != AsRecorded && mine:
			// Whoever else has what the owner has may have it from there.
			out[name] = undecided
		case c.record == AsRecorded && own.record != AsRecorded:
			out[name] = better
		case mine && !theirs:
			out[name] = send
		case theirs && !mine:
			out[name] = better
		case forMine > forTheirs:
			out[name] = send
		default:
			out[name] = undecided
		}
	}
	return out
}
