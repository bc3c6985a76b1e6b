package limits

import "time"

const (
	// wishFor is for how long a wish is open of which nothing comes.
	wishFor = 10 * time.Minute
	// longRound is from how long on a push that ended unfinished has brought something: its wish stays open for another try.
	longRound = time.Minute
)

// all is the VM that stands for every one.
const all = ""

// wish is that somebody wants to have it now.
type wish struct {
	gen uint64
	at  time.Time
}

// wishes are those that are open. Pure but for their own state: time is what the caller says.
type wishes struct {
	gen    uint64
	asked  map[string]wish   // by VM, or all
	served map[string]uint64 // by VM: up to which number; kept while there is a wish for all
	under  map[string]int    // pushes under way, by VM
	held   map[string]int    // what else is under way, by VM
}

func newWishes() wishes {
	return wishes{asked: map[string]wish{}, served: map[string]uint64{}, under: map[string]int{}, held: map[string]int{}}
}

func (w *wishes) ask(vm string, now time.Time) {
	w.gen++
	w.asked[vm] = wish{w.gen, now}
}

// open is the latest wish for a VM that isn't served.
func (w *wishes) open(vm string) (gen uint64, open bool) {
	for _, of := range []string{all, vm} {
		if x, ok := w.asked[of]; ok && x.gen > w.served[vm] && x.gen > gen {
			gen, open = x.gen, true
		}
	}
	return gen, open
}

// any says whether some wish is open.
func (w *wishes) any() bool { return len(w.asked) > 0 }

func (w *wishes) serve(vm string, gen uint64) {
	if x, ok := w.asked[vm]; ok && vm != all && x.gen <= gen {
		delete(w.asked, vm)
	}
	if _, ok := w.asked[all]; ok {
		w.served[vm] = max(w.served[vm], gen)
	}
}

func (w *wishes) begin(vm string) { w.under[vm]++ }

func (w *wishes) hold(vm string) { w.held[vm]++ }

func (w *wishes) release(vm string, began, now time.Time) {
	if w.held[vm]--; w.held[vm] <= 0 {
		delete(w.held, vm)
	}
	w.renew(vm, began, now)
}

func (w *wishes) end(vm string, began, now time.Time) {
	if w.under[vm]--; w.under[vm] <= 0 {
		delete(w.under, vm)
	}
	w.renew(vm, began, now)
}

// renew keeps wishes open for another try after something that took long.
func (w *wishes) renew(vm string, began, now time.Time) {
	if now.Sub(began) < longRound {
		return
	}
	for _, of := range []string{all, vm} {
		if x, ok := w.asked[of]; ok && x.gen > w.served[vm] {
			w.asked[of] = wish{x.gen, now}
		}
	}
}

func (w *wishes) rounds() (n int) {
	for _, k := range w.under {
		n += k
	}
	return n
}

// busy says that something is under way for a wish.
func (w *wishes) busy(of string, x wish) bool {
	if of != all {
		return w.under[of] > 0 || w.held[of] > 0
	}
	for _, busy := range []map[string]int{w.under, w.held} {
		for vm := range busy {
			if x.gen > w.served[vm] {
				return true
			}
		}
	}
	return false
}

// expire drops wishes of which nothing came, and says whether there were some.
func (w *wishes) expire(now time.Time) (dropped bool) {
	for of, x := range w.asked {
		if now.Sub(x.at) >= wishFor && !w.busy(of, x) {
			delete(w.asked, of)
			dropped = true
		}
	}
	if _, ok := w.asked[all]; !ok {
		clear(w.served)
	}
	return dropped
}

// lapse is when the next wish will be dropped; zero if none will.
func (w *wishes) lapse() (first time.Time) {
	for of, x := range w.asked {
		if at := x.at.Add(wishFor); !w.busy(of, x) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// calm drops all wishes.
func (w *wishes) calm() {
	clear(w.asked)
	clear(w.served)
}
