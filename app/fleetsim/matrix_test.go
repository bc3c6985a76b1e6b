package fleetsim

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/directory/baton"
)

// The failure matrix of package switching, on model hypervisors: one thing is hurt while a switch stands at one step, and what becomes of the
// VM is what the table in its package comment says. Each cell is lived through with many orders of events.

var flagCells = flag.Uint64("fleet.cells", 4, "how many seeds are tried of each cell of the failure matrix")

// readMatrix reads the table: what may become of the VM, by who is hurt and the step.
func readMatrix(t *testing.T) map[[2]string][]string {
	b, err := os.ReadFile("../switching/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	table, steps := map[[2]string][]string{}, []string(nil)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(strings.TrimPrefix(line, "//"))
		switch {
		case len(f) > 0 && f[0] == "preflight":
			steps = f
		case steps != nil && len(f) == len(steps)+1:
			for i, cell := range f[1:] {
				for end := range strings.SplitSeq(cell, "|") {
					end, _, _ = strings.Cut(end, "/") // what the person reads is build/matrix's
					table[[2]string{f[0], steps[i]}] = append(table[[2]string{f[0], steps[i]}], end)
				}
			}
		}
	}
	if len(table) == 0 {
		t.Fatal("there is no table in the comment of package switching")
	}
	return table
}

// simulated are the rows and columns that models have: all but a taker that is gone for good, of which lives of their own are full.
var (
	simulatedRows  = []string{"taker-engine", "giver-engine", "taker-qemu", "giver-qemu", "link", "taker-disk", "giver-disk", "cancel"}
	simulatedSteps = []string{"preflight", "incoming", "pre-copy", "switchover", "given", "received", "unconfirmed", "hydrating"}
)

// at says whether the switch from a to b stands at the step.
func at(step string, a, b *device) bool {
	giver, taker, o := a.e.machine.State(), b.e.machine.State(), a.e.outgoing
	waits := b.guest != nil && b.guest.kind == incoming
	switch step {
	case "preflight":
		// From when the giver was asked: what is done before may as well have been done before the asking.
		return taker == baton.Accepting && b.e.incoming == nil && giver == baton.Offering
	case "incoming":
		return giver == baton.Offering && waits && (o == nil || o.way == nil)
	case "pre-copy":
		return o != nil && o.way != nil && o.way.bytes > 0 && a.guest != nil && a.guest.kind == running
	case "switchover":
		return giver == baton.Sending && waits
	case "given":
		return giver == baton.Given && taker == baton.Loaded
	case "received":
		return taker == baton.Taking
	case "unconfirmed":
		return giver == baton.Given && b.guest != nil && b.guest.kind == running
	case "hydrating":
		return giver == baton.Replica && b.e.hydrates() && b.guest != nil && b.guest.kind == running
	}
	return false
}

// cellWorld lives through one cell, and says who has the VM afterwards: "giver" or "taker", with a ! if it doesn't run there; "" if the step wasn't
// come by.
func cellWorld(seed uint64, who, step string, verbose bool) (w *world, end string) {
	w = barrenWorld(seed, "", verbose)
	w.sites, w.two, w.stepwise = 0, seed%3 == 0, true
	w.populate(2)
	w.settle()
	a, b := w.devices[0], w.devices[1]
	w.start(a)
	w.guestWrites(a, w.newRequest(a))
	w.guestFlushes(a)
	w.settle()
	w.after()
	if w.behind = step == "hydrating"; w.behind {
		for range 4 {
			w.guestWrites(a, w.newRequest(a))
		}
	}
	b.e.step(baton.Event{Kind: baton.EvWant, Peer: a.id, Ask: w.name()})
	for n := 0; !at(step, a, b); n++ {
		if n == 3000 || w.err != nil {
			return w, ""
		}
		w.lives(a, b)
	}
	w.note("at %s, %s", step, who)
	w.behind = false
	switch who {
	case "taker-engine":
		w.crash(b, false)
	case "giver-engine":
		w.crash(a, false)
	case "taker-qemu":
		w.die(b)
	case "giver-qemu":
		w.die(a)
	case "link":
		w.net.cut[[2]string{a.id, b.id}], w.net.cut[[2]string{b.id, a.id}] = true, true
	case "taker-disk":
		w.fill(b, true)
	case "giver-disk":
		w.fill(a, true)
	case "cancel":
		b.e.step(baton.Event{Kind: baton.EvCancel})
	}
	for n := 0; w.fills && n < 3000 && w.err == nil && !a.e.decided(); n++ {
		w.lives(a, b) // a person takes longer to free some space
	}
	for n := range 120 {
		w.lives(a, b)
		if n == 40 {
			clear(w.net.cut)
		}
		if n > 60 && n%10 == 0 {
			w.powerUpAll()
		}
		if n == 80 {
			w.fill(a, false)
			w.fill(b, false)
		}
	}
	for range 40 { // until all that waits for time has waited long enough
		w.pass(3 * time.Second)
		w.tick()
		w.notice(a, b)
		w.notice(b, a)
		w.settle()
		w.after()
	}
	_, owner, _ := a.e.dir.Owner(vmID)
	d, end := w.dev(owner), "giver"
	if d == b {
		end = "taker"
	}
	if d.guest == nil || d.guest.kind != running {
		end += "!"
	}
	if w.err == nil {
		w.heal()
	}
	return w, end
}

// decided says that a giver's part of a hand-off is over, one way or the other.
func (e *engine) decided() bool {
	switch e.machine.State() {
	case baton.Offering, baton.Sending, baton.Giving:
		return false
	}
	return true
}

// fill leaves no byte of a device's drive, or gives all back.
func (w *world) fill(d *device, full bool) {
	w.fills = w.fills || full
	d.full = full
	d.mem.SetFull(full)
}

// powerUpAll starts the engines that don't run.
func (w *world) powerUpAll() {
	for _, d := range w.devices {
		if d.e == nil {
			w.powerUp(d)
			w.after()
		}
	}
}

// lives lets something happen that is in the way of a switch.
func (w *world) lives(a, b *device) {
	switch n := w.rng.IntN(20); {
	case n < 1:
		w.pass(200 * time.Millisecond)
		w.tick()
	case n < 2:
		w.notice(a, b)
		w.notice(b, a)
	case n < 4:
		w.some(w.guestActs)
	case n < 6:
		w.some(func(d *device) bool { return !w.behind && w.bring(d, w.others(d)[0]) })
	case n < 8:
		w.some(func(d *device) bool { return w.receive(d) || w.report(d) })
	default:
		w.some(w.ordinary)
	}
	w.after()
}

func TestFailureMatrix(t *testing.T) {
	table := readMatrix(t)
	for _, who := range simulatedRows {
		for _, step := range simulatedSteps {
			want, there := table[[2]string{who, step}]
			if !there {
				t.Errorf("%s, %s isn't in the table", who, step)
			}
			if slices.Equal(want, []string{"-"}) {
				continue
			}
			ends, missed := map[string]int{}, uint64(0)
			for seed := *flagFrom; seed < *flagFrom+*flagCells; seed++ {
				var end string
				synctest.Test(t, func(*testing.T) {
					var w *world
					w, end = cellWorld(seed, who, step, false)
					defer w.close()
					if w.err != nil {
						t.Errorf("%s, %s, seed %d: %v", who, step, seed, w.err)
					}
				})
				if end == "" {
					missed++
					continue
				}
				if ends[end]++; !slices.Contains(want, end) {
					t.Errorf("%s, %s, seed %d: %s, not %s", who, step, seed, end, strings.Join(want, " or "))
				}
			}
			if missed > *flagCells/2 {
				t.Errorf("%s, %s: it came to that in %d of %d lives only", who, step, *flagCells-missed, *flagCells)
			}
			t.Logf("%-12s %-11s %v", who, step, ends)
		}
	}
}
