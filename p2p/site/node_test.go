package site

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

const ms = time.Millisecond

// bench is one node whose surroundings a test sets.
type bench struct {
	t    *testing.T
	n    *Node
	in   Input
	view View
	rec  Record
}

// newBench makes node m among others, all of which see each other and m; nobody is connected.
func newBench(t *testing.T, others string) *bench {
	b := &bench{t: t, n: New("m", Record{})}
	b.in = Input{Records: map[string]Record{"m": {}}, Facts: Facts{Power: Mains, Link: Wired, Up: time.Unix(100, 0)}}
	for _, id := range others {
		b.in.Peers = append(b.in.Peers, Peer{ID: string(id)})
		r := Record{Sees: []Seen{{"m", true}}}
		for _, o := range others {
			if o != id {
				r.Sees = append(r.Sees, Seen{string(o), true})
			}
		}
		b.in.Records[string(id)] = r
	}
	b.tick()
	return b
}

func (b *bench) tick() {
	b.view, b.rec = b.n.Tick(b.in)
	b.in.Records["m"] = b.rec
}

// pass lets time pass, one tick a second.
func (b *bench) pass(d time.Duration) {
	for end := b.in.Now + d; b.in.Now < end; {
		b.in.Now += time.Second
		b.tick()
	}
}

// peer changes what is observed of a device.
func (b *bench) peer(id string, connected, onLink bool, trip time.Duration) {
	for i := range b.in.Peers {
		if b.in.Peers[i].ID == id {
			b.in.Peers[i] = Peer{id, connected, onLink, trip}
		}
	}
}

func (b *bench) sees(want string) {
	b.t.Helper()
	got := ""
	for _, s := range b.rec.Sees {
		got += s.ID
	}
	if got != want {
		b.t.Errorf("after %v it sees %q, want %q", b.in.Now, got, want)
	}
}

func (b *bench) post(who string, acting bool) {
	b.t.Helper()
	if b.view.Here.Postmaster != who || b.view.Acting != acting {
		b.t.Errorf("after %v the postmaster is %q (acting here: %v), want %q, %v", b.in.Now, b.view.Here.Postmaster, b.view.Acting, who, acting)
	}
}

func TestJoinAndLeave(t *testing.T) {
	b := newBench(t, "a")
	b.peer("a", true, true, ms)
	b.tick()
	b.pass(JoinAfter - time.Second)
	b.sees("")
	b.pass(time.Second)
	b.sees("a")
	for range 20 { // a laptop's bad radio
		b.peer("a", false, false, 0)
		b.pass(20 * time.Second)
		b.peer("a", true, true, 19*ms)
		b.pass(2 * time.Second)
		b.sees("a")
	}
	b.peer("a", true, true, 21*ms) // the way has become longer
	b.pass(LeaveAfter - time.Second)
	b.sees("a")
	b.pass(time.Second)
	b.sees("")
	b.peer("a", true, true, 9*ms)
	b.pass(time.Hour)
	b.sees("")
}

func TestWhatIsNoProof(t *testing.T) {
	for _, c := range []struct {
		why       string
		p         Peer
		vouch     bool // says that it heard us
		want, how string
	}{
		{"a VPN that carries multicast", Peer{"a", true, true, 40 * ms}, true, "", ""},
		{"a neighbour's fast line", Peer{"a", true, false, ms}, false, "", ""},
		{"not measured", Peer{"a", true, true, 0}, true, "", ""},
		{"announced, but not there", Peer{"a", false, true, ms}, true, "", ""},
		{"multicast passes one way only", Peer{"a", true, false, ms}, true, "a", "borrowed"},
		{"heard", Peer{"a", true, true, ms}, false, "a", "heard"},
	} {
		b := newBench(t, "a")
		b.in.Records["a"] = Record{Sees: []Seen{{"m", c.vouch}}}
		b.in.Peers[0] = c.p
		b.pass(time.Minute)
		b.sees(c.want)
		if len(b.rec.Sees) > 0 && b.rec.Sees[0].Heard != (c.how == "heard") {
			t.Errorf("%s: %+v", c.why, b.rec.Sees)
		}
		if t.Failed() {
			t.Fatal(c.why)
		}
	}
}

// A laptop that was carried elsewhere must not join two sites.
func TestMoveDoesNotJoinSites(t *testing.T) {
	b := newBench(t, "ab")
	b.peer("a", true, true, ms)
	b.pass(time.Minute)
	b.sees("a")
	b.peer("a", false, false, 0)
	b.peer("b", true, true, ms)
	b.pass(LeaveAfter - time.Second)
	b.sees("a")
	b.pass(time.Second)
	b.sees("b")
}

// Somebody whose radio fails all the time must not keep others out for good.
func TestFlappingNeighbourKeepsNobodyOut(t *testing.T) {
	b := newBench(t, "ab")
	b.peer("a", true, true, ms)
	b.pass(10 * time.Second)
	b.peer("a", false, false, 0)
	b.peer("b", true, true, ms)
	since := b.in.Now
	for i := 0; b.in.Now < since+LeaveAfter+JoinAfter+time.Second; i++ {
		b.peer("a", i%20 == 0, i%20 == 0, ms)
		b.pass(time.Second)
	}
	b.peer("a", false, false, 0)
	b.sees("ab")
}

func TestFirstPostmaster(t *testing.T) {
	b := newBench(t, "a")
	b.peer("a", true, true, ms)
	b.post("m", false) // alone, but not for long enough to know
	b.pass(Regain + time.Second)
	b.post("m", true)
	if b.rec.Claim == 0 {
		t.Error("no claim in company")
	}
	// A claim that couldn't be published is none.
	b.in.Records["m"] = Record{}
	b.view, b.rec = b.n.Tick(b.in)
	b.post("m", false)
}

func TestTheNextOnesWaitForTheirTurn(t *testing.T) {
	b := newBench(t, "ab")
	b.in.Facts = Facts{Power: Battery}
	b.n = New("m", Record{})
	with(b.in.Records, "a", func(r *Record) { r.Power, r.Link = Mains, Wired })
	with(b.in.Records, "b", func(r *Record) { r.Power, r.Link = Mains, Wireless })
	b.peer("a", true, true, ms)
	b.peer("b", true, true, ms)
	b.pass(JoinAfter + time.Second) // two are before it
	b.sees("ab")
	b.pass(2*Stagger - 2*time.Second)
	b.post("", false)
	b.pass(3 * time.Second)
	b.post("m", true)
}

func TestGoodbyeHandsOnAtOnce(t *testing.T) {
	b := newBench(t, "ab")
	with(b.in.Records, "a", func(r *Record) { r.Claim, r.Power, r.Link = 5, Mains, Wired })
	b.peer("a", true, true, ms)
	b.peer("b", true, true, ms)
	b.pass(time.Minute)
	b.post("a", false)
	b.in.Records["a"] = Record{Power: Mains, Link: Wired}
	b.pass(time.Second)
	b.post("m", false) // claimed, and not published yet
	b.pass(time.Second)
	b.post("m", true)
	if b.rec.Claim != 6 {
		t.Errorf("claim %d", b.rec.Claim)
	}
	// Its own goodbye.
	b.in.Away = true
	b.tick()
	b.sees("")
	if b.rec.Claim != 0 || b.view.Acting {
		t.Errorf("gone, it still says %+v (acting: %v)", b.rec, b.view.Acting)
	}
}

func TestLease(t *testing.T) {
	b := newBench(t, "a")
	with(b.in.Records, "a", func(r *Record) { r.Claim, r.Power, r.Link = 5, Mains, Wired })
	b.peer("a", true, true, ms)
	b.pass(time.Minute)
	b.peer("a", false, false, 0) // a short sleep
	b.pass(LeaveAfter - time.Second)
	b.post("a", false)
	b.peer("a", true, true, ms)
	b.pass(time.Second)
	b.peer("a", false, false, 0)
	b.pass(LeaveAfter - time.Second)
	b.post("a", false)
	b.pass(2 * time.Second)
	b.post("m", true)
}

func TestBetterDeviceTakesOverAfterAWhile(t *testing.T) {
	for _, c := range []struct {
		why   string
		other Record
		want  string
	}{
		{"battery", Record{Power: Battery, Link: Wired}, "m"},
		{"wireless", Record{Power: Mains, Link: Wireless}, "m"},
		{"up later", Record{Power: Mains, Link: Wired, Up: time.Unix(200, 0)}, "a"},
		{"the same", Record{Power: Mains, Link: Wired, Up: time.Unix(100, 0)}, "a"},
	} {
		b := newBench(t, "a")
		c.other.Sees, c.other.Claim = []Seen{{"m", true}}, 5
		b.in.Records["a"] = c.other
		b.peer("a", true, true, ms)
		b.pass(JoinAfter + time.Second)
		b.pass(max(Regain-b.in.Now, 0))
		b.post("a", false)
		b.pass(Settle - 2*time.Second)
		b.post("a", false)
		b.pass(10 * time.Second)
		b.post(c.want, c.want == "m")
		if t.Failed() {
			t.Fatal(c.why)
		}
	}
}

// A cable that is pulled for a moment changes nothing, again and again.
func TestPowerThatComesAndGoes(t *testing.T) {
	b := newBench(t, "a")
	with(b.in.Records, "a", func(r *Record) { r.Claim, r.Power, r.Link = 5, Mains, Wired })
	b.peer("a", true, true, ms)
	for range 30 {
		with(b.in.Records, "a", func(r *Record) { r.Power = Battery })
		b.pass(Settle - time.Second)
		with(b.in.Records, "a", func(r *Record) { r.Power = Mains })
		b.pass(time.Second)
		b.post("a", false)
	}
	before := b.rec
	for range 30 { // its own is said when it has settled
		b.in.Facts.Power = Battery
		for range JoinAfter / time.Second {
			b.pass(time.Second)
			if !b.rec.Equal(before) {
				t.Fatalf("the record changed to %+v", b.rec)
			}
		}
		b.in.Facts.Power = Mains
		b.pass(2 * time.Second)
	}
	b.in.Facts.Power = Battery
	b.pass(JoinAfter + time.Second)
	if b.rec.Power != Battery {
		t.Error("what has settled isn't said")
	}
}

func TestHigherClaimWins(t *testing.T) {
	b := newBench(t, "a")
	b.peer("a", true, true, ms)
	b.pass(time.Minute)
	b.post("m", true)
	with(b.in.Records, "a", func(r *Record) { r.Claim, r.Power = b.rec.Claim+1, Battery })
	b.pass(time.Second)
	b.post("a", false)
	if b.rec.Claim != 0 {
		t.Errorf("still claims %d", b.rec.Claim)
	}
}

// A device that wasn't running has lost its claim, and doesn't act before it can have heard of others.
func TestAfterASleep(t *testing.T) {
	for _, slept := range []time.Duration{stopped + time.Second, LeaveAfter} {
		b := newBench(t, "a")
		b.peer("a", true, true, ms)
		b.pass(time.Minute)
		b.post("m", true)
		b.in.Now += slept
		b.tick()
		if b.view.Acting {
			t.Errorf("acts right after %v of sleep", slept)
		}
		if kept := b.rec.Claim != 0; kept != (slept < LeaveAfter) {
			t.Errorf("after %v the claim is %d", slept, b.rec.Claim)
		}
		b.pass(Regain + time.Second)
		b.post("m", true)
	}
}

// A number that nothing is above goes with who claimed it.
func TestClaimWithoutEnd(t *testing.T) {
	b := newBench(t, "a")
	with(b.in.Records, "a", func(r *Record) { r.Claim, r.Power = maxNumber, Battery })
	b.peer("a", true, true, ms)
	b.pass(10 * Settle)
	b.post("a", false)
	with(b.in.Records, "a", func(r *Record) { r.Claim = 0 })
	b.pass(2 * time.Second)
	b.post("m", true)
}

func TestPins(t *testing.T) {
	b := newBench(t, "abc")
	b.peer("a", true, true, ms)
	b.peer("b", true, false, 70*ms)
	b.pass(time.Minute)
	b.sees("a")
	for _, d := range []string{"m", "b"} {
		if err := b.n.Pin(d, "Home", b.in.Records); err != nil {
			t.Fatal(err)
		}
	}
	b.tick()
	b.sees("") // at once
	b.pass(time.Minute)
	b.sees("b")
	if b.view.Here.Name != "Home" || b.view.Pins["b"] != "Home" {
		t.Errorf("it is in %+v, pins %v", b.view.Here, b.view.Pins)
	}
	// Another device's later word.
	with(b.in.Records, "c", func(r *Record) { r.Pins = []Pin{{"m", "", 9}} })
	b.pass(time.Minute)
	b.sees("a")
	if err := b.n.Pin("m", "Attic", b.in.Records); err != nil {
		t.Fatal(err)
	}
	b.tick()
	if b.view.Here.Name != "Attic" {
		t.Errorf("it is in %+v", b.view.Here)
	}
	again := New("m", b.rec) // a restart
	v, _ := again.Tick(b.in)
	if v.Here.Name != "Attic" || v.Pins["b"] != "Home" {
		t.Errorf("after a restart it is in %+v, pins %v", v.Here, v.Pins)
	}
	for _, bad := range []string{"auto", " x", "a\nb", string(make([]byte, 99))} {
		if err := b.n.Pin("m", bad, b.in.Records); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	with(b.in.Records, "c", func(r *Record) { r.Pins = []Pin{{"m", "", maxNumber}} })
	if err := b.n.Pin("m", "Home", b.in.Records); !errors.Is(err, ErrPins) {
		t.Errorf("no number is left: %v", err)
	}
}

func TestPinsHaveALimit(t *testing.T) {
	n, records := New("m", Record{}), map[string]Record{"m": {}}
	for i := range maxPins + 1 {
		id := fmt.Sprintf("d%03d", i)
		records[id] = Record{}
		err := n.Pin(id, "Home", records)
		if want := i >= maxPins; want != (err != nil) {
			t.Fatalf("pin %d: %v", i, err)
		}
	}
	delete(records, "d000") // it has left the fleet
	if err := n.Pin("d064", "Home", records); err != nil {
		t.Error(err)
	}
	if _, r := n.Tick(Input{Records: records}); len(r.Pins) != maxPins {
		t.Errorf("%d pins", len(r.Pins))
	} else if _, err := r.Encode(); err != nil {
		t.Error(err)
	}
}
