package main

import (
	"fmt"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// fact is a line of what a person reads before a choice.
type fact struct{ label, text string }

// factLines are facts with their labels in a column.
func factLines(facts []fact) []string {
	width := 0
	for _, f := range facts {
		width = max(width, len(f.label))
	}
	lines := make([]string, len(facts))
	for i, f := range facts {
		lines[i] = strings.TrimRight(fmt.Sprintf("  %-*s  %s", width, f.label, clean(f.text)), " ")
	}
	return lines
}

// moment is a time as one would say it, and exactly. The clock that it was told by may be another device's.
func moment(t, now time.Time) string {
	if t.IsZero() {
		return "at a time that nobody told"
	}
	return fmt.Sprintf("%s (%s)", t.Local().Format("2006-01-02 15:04"), ago(t, now))
}

func positionWords(p api.Position) string { return fmt.Sprintf("%d/%d", p.Term, p.Barrier) }

// amount is a number of bytes and of blocks; nil is unknown.
func amount(n *int64) string {
	const block = 4096
	if n == nil {
		return "unknown"
	}
	if *n < block {
		return size(*n)
	}
	return fmt.Sprintf("%s (%s)", size(*n), count(*n/block, "block"))
}

// count is "1 block", "2 blocks".
func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// lossWords says what a takeover gives up.
func lossWords(t *api.Takeover) string {
	switch {
	case t.Missing == nil && t.Certain:
		return "how much is unknown, but it isn't growing unless " + t.OwnerName + " has started it again"
	case t.Missing == nil:
		return "unknown"
	case *t.Missing == 0 && t.Certain:
		return "nothing, unless " + t.OwnerName + " has started it again: it was stopped there, and this copy has all of it"
	case *t.Missing == 0:
		return "nothing of what was told; but all that was written there since"
	case t.Certain:
		return "exactly " + amount(t.Missing) + ", unless " + t.OwnerName + " has started it again: it was stopped there"
	default:
		return "at least " + amount(t.Missing) + ", and all that was written there since"
	}
}

// takeoverFacts is what a person reads before a VM is taken over.
func takeoverFacts(t *api.Takeover, orphan bool, now time.Time) []fact {
	owner := t.OwnerName
	switch {
	case orphan:
		owner += ", which was removed from your fleet"
	case t.Connected:
		owner += ", connected now; it could simply be asked for the VM: tagalong switch " + shellWord(t.VMName)
	case t.Seen.IsZero():
		owner += ", never heard of from here"
	default:
		owner += ", last heard of " + moment(t.Seen, now)
	}
	facts := []fact{{"Owner", owner}}
	if t.Offline {
		facts = append(facts, fact{"On a journey", "since " + moment(t.Since, now) + ": the VM may well be in use there now"})
	}
	facts = append(facts,
		fact{"Last known", string(t.State) + " there"},
		fact{"Copy here", "as of " + moment(t.At, now) + ", position " + positionWords(t.Position)})
	if t.Latest != (api.Position{}) && t.Latest != t.Position {
		facts = append(facts, fact{"Newest known", "as of " + moment(t.LatestAt, now) + ", position " + positionWords(t.Latest)})
	}
	facts = append(facts, fact{"May be lost", lossWords(t)})
	if b := t.Better; b != nil {
		text := b.DeviceName + " has a newer copy, position " + positionWords(b.Position)
		if b.Remaining > 0 {
			text += ", " + size(b.Remaining) + " behind"
		}
		facts = append(facts, fact{"Better", text + "; take it over there, and less is lost"})
	}
	return facts
}

// sideName is whose side it is.
func sideName(s api.ConflictSide) string {
	if s.Here {
		return s.OwnerName + " (this device)"
	}
	return s.OwnerName
}

// sideState says what the VM does on that side, and what waits there.
func sideState(s api.ConflictSide) string {
	text := string(s.State)
	switch s.State {
	case api.VMPaused:
		text = "paused, its open windows wait"
	case api.VMSuspended:
		text = "suspended, its open windows wait"
	case api.VMUnknown, "":
		text = "unknown"
	}
	if !s.Here && !s.Connected {
		text += ", as last known"
	}
	return text
}

// sideBegan says how a side came to be.
func sideBegan(kind string) string {
	switch kind {
	case "takeover":
		return "took it over"
	case "kept":
		return "kept its own"
	case "resolved":
		return "was chosen"
	default:
		return "went on"
	}
}

// givenUp says what becomes of a side that isn't chosen.
func givenUp(s api.ConflictSide) string {
	text := fmt.Sprintf("The side of %s is given up.", sideName(s))
	switch s.State {
	case api.VMPaused, api.VMRunning, api.VMSwitching, api.VMStarting:
		text += " The VM there is turned off, and its open windows are gone."
	case api.VMSuspended:
		text += " Its suspended windows are gone."
	}
	switch {
	case s.Changed == nil:
		text += fmt.Sprintf(" What it wrote since, if anything, stays on %s as a restore point until you delete it.", s.OwnerName)
	case *s.Changed == 0:
		text += " It has written nothing since."
	default:
		text += fmt.Sprintf(" The %s that it wrote since stays on %s as a restore point until you delete it.", size(*s.Changed), s.OwnerName)
	}
	if !s.Here && !s.Connected {
		text += fmt.Sprintf(" %s isn't connected; that happens when it comes back.", s.OwnerName)
	}
	return text
}

// resolutionWords says what a choice does, beside what becomes of the other sides.
func resolutionWords(how api.Resolution, keep api.ConflictSide, others []api.ConflictSide, vm, name string) []string {
	lines := []string{fmt.Sprintf("%q goes on as it is on %s.", vm, sideName(keep))}
	if how == api.ResolveBoth {
		if name == "" {
			name = "a name that tells it apart"
		} else {
			name = fmt.Sprintf("the name %q", name)
		}
		for _, s := range others {
			lines = append(lines, fmt.Sprintf("The side of %s becomes a VM of its own, with %s and its own network address. Nothing is given up.", sideName(s), name))
		}
		return lines
	}
	for _, s := range others {
		lines = append(lines, givenUp(s))
	}
	switch how {
	case api.ResolveOpen:
		lines = append(lines, fmt.Sprintf("%q can then see it as a second disk, read-only, to copy files out, whenever it is on the device that has it.", vm))
	case api.ResolveRepair:
		lines = append(lines, "Every block is checked and, where it is bad, mended from the other copies; the guest checks its file systems at its next start.")
	}
	return lines
}

// pointsWords counts restore points and what they take.
func pointsWords(points []api.RestorePoint) string {
	var bytes int64
	for _, p := range points {
		bytes += p.Bytes
	}
	return fmt.Sprintf("%s, %s", count(int64(len(points)), "restore point"), size(bytes))
}
