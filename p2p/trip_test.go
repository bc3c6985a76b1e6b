package p2p

import (
	"net/netip"
	"testing"
	"time"
)

// A link that is full for hours seems no longer than it is, in either direction; one that is silent but slow does.
func TestTripIsTheLengthOfTheWay(t *testing.T) {
	p := newPulse(0)
	now, written, read := time.Duration(0), int64(0), int64(0)
	beat := func(took time.Duration, out, in int64) {
		written += out
		p.received(read)
		seq, ok := p.ask(now, written)
		if !ok {
			t.Fatal("can't ask")
		}
		read += in
		p.received(read)
		if !p.answer(now+took, seq) {
			t.Fatal("answer refused")
		}
		now += beatInterval
	}
	if p.trips.shortest() != 0 {
		t.Error("something is known before the first heartbeat")
	}
	for i := range 100 { // a radio that sleeps
		beat(time.Duration(2+i*37%90)*ms, 100, 100)
	}
	if got := p.trips.shortest(); got > 8*ms || got < 2*ms {
		t.Errorf("the shortest of many is %v", got)
	}
	was := p.trips.shortest()
	for range 1000 {
		beat(400*ms, 1<<20, 0)
	}
	if got := p.trips.shortest(); got != was {
		t.Errorf("while it sends, %v became %v", was, got)
	}
	for range 1000 {
		beat(400*ms, 0, 1<<20)
	}
	// The first heartbeat after a full link is beside what was written before.
	if got := p.trips.shortest(); got != was {
		t.Errorf("while it receives, %v became %v", was, got)
	}
	for range tripSamples {
		beat(40*ms, 0, 0)
	}
	if got := p.trips.shortest(); got != 40*ms {
		t.Errorf("a longer way is told as %v", got)
	}
}

func TestPeersTellTripAndLink(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	pair(a, b)
	a.serve(t)
	b.serve(t)
	await(t, a, b.ID(), true)
	await(t, b, a.ID(), true)
	status := func() PeerStatus { return b.Peers()[0] }
	for limit := time.After(patience); status().Trip == 0; {
		select {
		case <-time.After(10 * ms):
		case <-limit:
			t.Fatalf("no round trip: %+v", status())
		}
	}
	if status().OnLink {
		t.Error("on the link, though nobody has announced anything")
	}
	b.seen(a.ID(), []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}, true)
	if status().OnLink {
		t.Error("on the link by an address that the connection doesn't lead to")
	}
	b.seen(a.ID(), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}, true)
	if !status().OnLink {
		t.Error("not on the link")
	}
	if got := b.LocalAddrs(); len(got) != 1 || got[0] != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("connected from %v", got)
	}
	// An announcement of long ago says nothing of a later connection.
	p, err := decodeID(a.ID())
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.peers[p].announcedAt -= announcedBefore + b.now()
	b.mu.Unlock()
	if status().OnLink {
		t.Error("on the link by an announcement of long ago")
	}
}
