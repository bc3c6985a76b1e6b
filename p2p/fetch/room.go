package fetch

import (
	"cmp"
	"context"
	"time"
)

// Pace slows what it is asked to let through.
type Pace interface {
	// Wait returns when n more bytes may come, or with ctx's error.
	Wait(ctx context.Context, n int64) error
	// Rate in bytes a second; 0 is without limit.
	Rate() int64
}

// Allowance is what may be fetched from a holder though nobody waits for it. What somebody waits for, or soon will, always may be.
type Allowance struct {
	Pull bool
	// Pace of what is pulled; nil is as fast as it comes.
	Pace Pace
}

// Allow says what may be pulled from a holder, if it is one; at first everything may. What is on its way comes.
func (p *Pool) Allow(name string, a Allowance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.members[name]
	if m == nil || m.allowance == a {
		return
	}
	m.allowance = a
	p.turn()
	p.notify()
}

func (p *Pool) paceOf(l *link) Pace {
	p.mu.Lock()
	defer p.mu.Unlock()
	return l.m.allowance.Pace
}

// turn says that another Room is to be asked for. The caller holds mu.
func (p *Pool) turn() {
	close(p.changed)
	p.changed = make(chan struct{})
}

const (
	// queued is how many pieces more than are on their way should be asked for: they are stored, or wait for their turn.
	queued = 4
	// slowly is how much is asked for where there is a rate: what waits for that isn't in the order of what is wanted any more.
	slowly = 2 * leastPiece
)

// Room is how much is worth fetching at once of what nobody waits for, in bytes: what fills the paths to all who are there, and a little
// more. Piece is what one Fetch should be for. Changed is closed when that is another one by something else than what has been fetched.
type Room struct {
	Pull, Ahead, Piece int64
	Changed            <-chan struct{}
}

// Room says how much that is now.
func (p *Pool) Room() Room {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, r := time.Now(), Room{Changed: p.changed}
	var pull int64 // the largest piece of those that may be pulled from
	for _, l := range p.links {
		tight := l.tight(now)
		piece := l.pace.piece(tight)
		room := l.pace.limit(tight) + queued*piece
		r.Ahead += room
		r.Piece = max(r.Piece, piece)
		switch a := l.m.allowance; {
		case !a.Pull:
			continue
		case a.Pace != nil && a.Pace.Rate() != 0:
			room = min(room, max(slowly, a.Pace.Rate()/8))
			piece = leastPiece
		}
		r.Pull += room
		pull = max(pull, piece)
	}
	r.Piece = max(leastPiece, cmp.Or(pull, r.Piece))
	return r
}
