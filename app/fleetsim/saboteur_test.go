package fleetsim

import (
	"testing"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// saboteur breaks one rule on purpose, in what stands between the real parts, to prove that the simulator would notice.
type saboteur string

// What can be broken.
const (
	forgetsGiving   saboteur = "the giver forgets that it gave"
	resumesGiven    saboteur = "a giver resumes from Given when the link is lost"
	clearsEarly     saboteur = "a dirty bit is cleared when it was sent"
	runsLoaded      saboteur = "the taker is active before the transfer is here"
	doesntStop      saboteur = "the guest isn't stopped, and the disk isn't fenced, before it is given"
	ignoresTerm     saboteur = "a replica doesn't ask who the owner is, and under which term"
	skipsJudge      saboteur = "what a superseded device holds isn't compared"
	signsNothing    saboteur = "what is kept isn't signed"
	receivesAll     saboteur = "an owner's writes come into what was not judged"
	runsOn          saboteur = "the guest of a superseded owner runs on"
	setsNothing     saboteur = "nothing is set aside for the side that was given up"
	keepsForeign    saboteur = "the stream of a superseded owner goes on"
	takesUnwritten  saboteur = "a takeover is active before it is written"
	acksUnapplied   saboteur = "a barrier is acknowledged before it is durable"
	comparesNothing saboteur = "a replica that was compared counts as equal"
	yieldsNothing   saboteur = "a disk that lost goes on under its old term"
	alwaysCertain   saboteur = "it is certain what a replica lacks while the guest writes"
	renamesUntold   saboteur = "a disk gets another position, and its saved memory doesn't know"
	guessesEqual    saboteur = "what a replica lacks isn't known, and nothing is pushed"
	staysCertain    saboteur = "what was certain isn't taken back when the guest starts"
)

func (s saboteur) given(e *engine, g custody.Giving) error {
	if s == forgetsGiving {
		_, err := e.dir.Give(vmID, g.Term, g.To, g.Attempt, g.Position, g.Kind)
		return err
	}
	return e.custody().Given(g)
}

func (s saboteur) tookOver(e *engine, a baton.Action) error {
	if s == takesUnwritten {
		_ = e.disk.Activate(a.Term)
		e.d.w.activated(e.d)
	}
	return e.custody().TookOver(a.Term, a.Position, a.State)
}

func (s saboteur) kept(e *engine, a baton.Action) (uint64, error) {
	if s == signsNothing {
		return a.Term, e.dir.SaveBaton(vmID, a.State)
	}
	return e.custody().Kept(a.State)
}

func (s saboteur) judge(e *engine, guest bool) (newer, known bool) {
	if s == skipsJudge {
		return false, true
	}
	return e.custody().Judge(e.machine.Term(), guest)
}

func (s saboteur) mayReceive(e *engine) bool {
	return s == receivesAll || s == ignoresTerm || e.custody().MayReceive()
}

func (s saboteur) yield(e *engine, term uint64) error {
	if s == yieldsNothing {
		return e.custody().Resume(e.disk.Info().Term)
	}
	return e.custody().Yield(term)
}

func (s saboteur) sent(f *mirror, pos vmdisk.Position) {
	if s == clearsEarly {
		f.feed.Acked(pos)
	}
}

// stepped is called after each event of the machine.
func (s saboteur) stepped(e *engine, ev baton.Event) {
	switch {
	case s == resumesGiven && e.machine.State() == baton.Given && ev.Kind == baton.EvLinkLost:
		e.queue = append(e.queue, baton.Action{Kind: baton.ActResume, Term: e.machine.Term() - 1, Guest: true})
	case s == runsLoaded && ev.Kind == baton.EvLoadedLocal && e.machine.State() == baton.Loaded:
		term, _, _ := e.dir.Owner(vmID)
		e.queue = append(e.queue, baton.Action{Kind: baton.ActActivateDisk, Term: term + 1})
	}
}

// sabotages say which seed notices each, as of when it was last looked for. Seeds shift with every change: then others are tried.
var sabotages = []struct {
	what saboteur
	seed uint64
}{
	{forgetsGiving, 4}, {resumesGiven, 4}, {clearsEarly, 1}, {runsLoaded, 1}, {doesntStop, 1}, {ignoresTerm, 306}, {skipsJudge, 18},
	{signsNothing, 18}, {receivesAll, 133}, {runsOn, 28}, {setsNothing, 20}, {takesUnwritten, 6},
	{acksUnapplied, 1713}, {comparesNothing, 6}, {yieldsNothing, 6},
	{alwaysCertain, 1}, {staysCertain, 12}, {renamesUntold, 22}, {keepsForeign, 91}, {guessesEqual, 17},
}

// TestSabotageIsNoticed breaks one rule at a time: a defect of that kind must be found, or the simulator proves nothing.
func TestSabotageIsNoticed(t *testing.T) {
	for _, s := range sabotages {
		t.Run(string(s.what), func(t *testing.T) {
			for i := range uint64(2000) {
				seed := s.seed + i
				if w := live(t, seed, s.what, false); w.err != nil && live(t, seed, "", false).err == nil {
					t.Logf("seed %d: %v", seed, w.err)
					return
				}
			}
			t.Error("not noticed in 2000 seeds")
		})
	}
}
