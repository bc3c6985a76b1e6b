package verify

// side is what one disk has of a leaf.
type side struct {
	record Record
	sum    Sum
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

// judge says what is to be done about each copy of a leaf of which the owner's disk isn't known to be bad: rules 2 to 5 of the package comment.
func judge(own side, copies map[string]side, overwrite bool) map[string]verdict {
	votes, attested := map[Sum]int{own.sum: 1}, map[Sum]bool{own.sum: own.record == AsRecorded}
	for _, c := range copies {
		if !ownBad(c) {
			votes[c.sum]++
			attested[c.sum] = attested[c.sum] || c.record == AsRecorded
		}
	}
	out := map[string]verdict{}
	for name, c := range copies {
		mine, theirs := attested[own.sum], attested[c.sum]
		switch {
		case c.sum == own.sum:
			out[name] = equal
		case ownBad(c), mine && !theirs, overwrite:
			out[name] = send
		case theirs && !mine:
			out[name] = better
		case votes[own.sum] > votes[c.sum]:
			out[name] = send
		default:
			out[name] = undecided
		}
	}
	return out
}
