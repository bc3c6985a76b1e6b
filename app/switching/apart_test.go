package switching

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/app/hypervisor"
)

// leftScene is what is around a Server: the hypervisor that a guest went ahead of, and the way to the taker.
type leftScene struct {
	*scene
	mu     sync.Mutex
	looks  []hypervisor.Apart // the last one stays
	lines  []*brokenLine
	refuse int   // how often there is no way to the taker
	sends  error // of SendRest
	lost   chan error
}

type brokenLine struct {
	line
	ended chan struct{}
}

func (l *brokenLine) Ended() <-chan struct{} { return l.ended }
func (l *brokenLine) Close()                 { l.say("line closed") }

func (s *leftScene) Apart(context.Context) (hypervisor.Apart, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.looks[0]
	if len(s.looks) > 1 {
		s.looks = s.looks[1:]
	}
	return a, nil
}

func (s *leftScene) SendRest(ctx context.Context) (io.ReadWriteCloser, error) {
	return nil, errors.Join(s.note(ctx, "send rest"), s.sends)
}
func (s *leftScene) Exited() <-chan struct{} { return nil }
func (s *leftScene) Memory(ctx context.Context) (Line, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse > 0 {
		s.refuse--
		return nil, errors.New("no way")
	}
	l := &brokenLine{line{s.scene}, make(chan struct{})}
	s.lines = append(s.lines, l)
	return l, s.note(ctx, "open")
}
func (s *leftScene) Rest(context.Context, Rest)          {}
func (s *leftScene) Lost(ctx context.Context, err error) { s.say("lost"); s.lost <- err }

func (s *leftScene) server(ctx context.Context) *Server {
	return NewServer(ctx, Serving{Attempt: "a", Guest: s, Streams: s, Host: s, Clock: s.scene, Log: slog.New(slog.DiscardHandler)}, nil)
}

// TestTheRestGoesOn breaks lines, and finds no way for a while: the rest of the memory leaves in the end.
func TestTheRestGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &leftScene{scene: &scene{}, refuse: 3, looks: []hypervisor.Apart{{Side: hypervisor.Left, Remaining: 5}}, lost: make(chan error, 1)}
		x := s.server(t.Context())
		go x.Run()
		for i := range 3 {
			time.Sleep(time.Minute)
			s.mu.Lock()
			if len(s.lines) != i+1 {
				t.Fatalf("%d lines were opened", len(s.lines))
			}
			close(s.lines[i].ended)
			s.mu.Unlock()
		}
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.looks = []hypervisor.Apart{{}}
		s.mu.Unlock()
		<-x.done
		one := []string{"open", "send rest", "release", "carry", "line closed"}
		if all := s.all(); !slices.Equal(all, slices.Concat(one, one, one, one)) {
			t.Errorf("%q", all)
		}
	})
}

// TestTheRestIsLost has a hypervisor that can't go on; and one whose end comes first.
func TestTheRestIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &leftScene{scene: &scene{}, sends: hypervisor.ErrApart, looks: []hypervisor.Apart{{Side: hypervisor.Left}}, lost: make(chan error, 1)}
		s.server(t.Context()).Run()
		if err := <-s.lost; !errors.Is(err, hypervisor.ErrApart) {
			t.Error(err)
		}
		s = &leftScene{scene: &scene{}, looks: []hypervisor.Apart{{Failed: true}}, lost: make(chan error, 1)}
		s.server(t.Context()).Run()
		if err := <-s.lost; !errors.Is(err, hypervisor.ErrApart) {
			t.Error(err)
		}
		s = &leftScene{scene: &scene{}, refuse: 1 << 30, looks: []hypervisor.Apart{{Side: hypervisor.Left}}}
		x := s.server(t.Context())
		go x.Run()
		time.Sleep(time.Hour)
		x.End()
		if all := s.all(); len(all) != 0 {
			t.Errorf("ended while it waits for a way: %q", all)
		}
	})
}

// apartOutgoing is the memory of a guest that may go ahead.
type apartOutgoing struct{ outgoing }

func (o apartOutgoing) GoAhead(ctx context.Context) error { return o.note(ctx, "go ahead") }
func (o apartOutgoing) Sever()                            { o.say("sever") }

func (s *scene) TeleportApart(ctx context.Context) (hypervisor.OutgoingApart, error) {
	return apartOutgoing{outgoing{s}}, s.note(ctx, "teleport apart")
}

// TestAGuestGoesAhead stops a guest after one pass though much is left, and lets nothing leave before its hypervisor knows.
func TestAGuestGoesAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lively()
		s.left[1].Remaining = 1 << 29
		g := NewGiver(t.Context(), Giving{
			Attempt: "1", Taker: "b", Live: true, PostCopy: true, Rule: Usual, Copy: handover.Usual,
			Place: s, Replica: s, Streams: s, Tell: s, Clock: s, Log: slog.New(slog.DiscardHandler),
		})
		g.Proceed()
		g.Run()
		all := s.all()
		order := []string{"teleport apart", "stop", "go ahead", "release", "fence", "at switchover", "finish"}
		for i, at := 0, -1; i < len(order); i++ {
			next := slices.Index(all, order[i])
			if next <= at {
				t.Fatalf("%s isn't in its place: %q", order[i], all)
			}
			at = next
		}
		g.End(t.Context())
		if all = s.all(); !slices.Equal(all[len(all)-3:], []string{"release", "line closed", "cancel"}) {
			t.Errorf("called back: %q", all)
		}
	})
}

// TestAFollowerIsApart has the giver told nothing from the first moment of an engine that was started anew on, until the guest is gone or whole.
func TestAFollowerIsApart(t *testing.T) {
	x := NewFollower(t.Context(), Taking{Log: slog.New(slog.DiscardHandler)})
	if !x.Apart() {
		t.Error("the giver would be told that it isn't needed any more")
	}
	if NewTaker(t.Context(), Taking{}).Apart() {
		t.Error("a switch that has just begun counts as one ahead of its memory")
	}
}

// aheadGuest is a guest that is ahead of its memory.
type aheadGuest struct {
	arrived
	ends error
}

type arrived interface{ Incoming }

func (g aheadGuest) Exited() <-chan struct{}                                   { return nil }
func (g aheadGuest) IncomingApart(context.Context) (io.ReadWriteCloser, error) { return nil, nil }
func (g aheadGuest) LoadedApart(context.Context) (bool, error)                 { return true, nil }
func (g aheadGuest) AwaitWhole(context.Context) error                          { return g.ends }
func (g aheadGuest) TakeRest(context.Context) (io.ReadWriteCloser, error)      { return nil, nil }

// quietHost is a taker's host to which no stream comes.
type quietHost struct{ Host }

func (quietHost) Rest(context.Context, Rest) {}
func (quietHost) Memory() <-chan Arrival     { return nil }

// TestAMemoryThatIsLostIsNotWhole: a hypervisor that ended has ended a Follower too, and not because nothing is missing any more.
func TestAMemoryThatIsLostIsNotWhole(t *testing.T) {
	for _, ends := range []error{nil, hypervisor.ErrNotRunning} {
		x := NewFollower(t.Context(), Taking{Host: quietHost{}, Log: slog.New(slog.DiscardHandler)})
		x.Follow(aheadGuest{ends: ends})
		if x.Apart() || x.Whole() != (ends == nil) {
			t.Errorf("behind %v it is apart %v, whole %v", ends, x.Apart(), x.Whole())
		}
	}
}
