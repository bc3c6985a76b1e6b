package fleetsim

import (
	"bytes"
	"testing"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/blockset"
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
	losesPages      saboteur = "a page of a guest's memory doesn't arrive"
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
	writesBeside    saboteur = "a guest writes after its memory was saved"
	goesOnBeside    saboteur = "a guest that is found beside its saved memory goes on"
	guessesEqual    saboteur = "what a replica lacks isn't known, and nothing is pushed"
	staysCertain    saboteur = "what was certain isn't taken back when the guest starts"
	lendsOld        saboteur = "a holder serves a block of an older position"
	wholeEarly      saboteur = "a disk that hydrates counts itself whole too early"
	tellsFewer      saboteur = "a taker is told fewer blocks than its copy lacks"
	overwritesNewer saboteur = "a fetched block overwrites what was written meanwhile"
	leavesOut       saboteur = "a push leaves out a block that differs"
	answersAlone    saboteur = "a flush is answered though only its owner has it"
	commitsHalf     saboteur = "half of a cut is committed"
	mendsUnproven   saboteur = "an owner's disk is mended with what isn't what was recorded"
	patchesWhole    saboteur = "a copy is repaired with what it doesn't have yet"
	trustsTheIndex  saboteur = "a block isn't read where the index says that it is"
	overwritesAll   saboteur = "a copy is overwritten where nothing says that it is the bad one"
	leavesUnnamed   saboteur = "what an owner has is pushed as of before the newest takeover or choice"
	staysBelow      saboteur = "a choice that a hand-off has overtaken isn't said again"
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

func (s saboteur) repeat(e *engine) (signed bool, err error) {
	if s == staysBelow {
		return false, nil
	}
	return e.custody().Repeat(e.machine)
}

func (s saboteur) unnamed(e *engine) bool {
	if s == leavesUnnamed {
		return e.disk.Info().Position == vmdisk.Position{}
	}
	return e.custody().Unnamed()
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

// lacks is what a holder is believed to lack.
func (s saboteur) lacks(known fetch.Lacks) fetch.Lacks {
	if s == lendsOld {
		return nil
	}
	return known
}

// answered is called when what was fetched for a has been taken in: was is the holder's.
func (s saboteur) answered(d *device, a *asked, was []byte) {
	if s == overwritesNewer {
		_ = d.e.disk.WriteAt(was, a.off, false)
	}
}

// activating is called before a taker's disk becomes active under term.
func (s saboteur) activating(e *engine, term uint64) {
	t, ok := e.dir.Transfer(vmID, term)
	if s != tellsFewer || !ok || e.disk == nil {
		return
	}
	_, sets, _ := bytes.Cut(e.d.lacks.b, []byte{'\n'})
	b, at, err := e.disk.StaleIn(sets, e.d.id)
	if err != nil || at != vmdisk.Position(t.Position) || at == e.disk.Position() {
		return
	}
	set, err := blockset.Decode(b, blockset.Most)
	if err == nil && !set.Empty() {
		first := set.Next(0, true)
		set.Remove(first, first+1)
		_ = e.disk.SetStale(set.AppendTo(nil), at)
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
	{forgetsGiving, 4}, {resumesGiven, 9}, {clearsEarly, 3}, {runsLoaded, 2}, {doesntStop, 2}, {losesPages, 11}, {ignoresTerm, 317}, {skipsJudge, 21},
	{signsNothing, 21}, {receivesAll, 177}, {runsOn, 37}, {setsNothing, 21}, {takesUnwritten, 9},
	{acksUnapplied, 11}, {comparesNothing, 21}, {yieldsNothing, 6},
	{alwaysCertain, 1}, {staysCertain, 15}, {writesBeside, 30}, {goesOnBeside, 366}, {keepsForeign, 114}, {guessesEqual, 17},
	{lendsOld, 164}, {wholeEarly, 8}, {tellsFewer, 8}, {overwritesNewer, 8}, {leavesOut, 9}, {commitsHalf, 3}, {answersAlone, 4}, {leavesUnnamed, 52},
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
