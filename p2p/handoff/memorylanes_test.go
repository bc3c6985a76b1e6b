package handoff

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/p2p/flow"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// slowStream carries so many bytes a second.
type slowStream struct {
	Stream
	rate float64
}

func (s slowStream) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(float64(len(p)) / s.rate * float64(time.Second)))
	return s.Stream.Write(p)
}

// halfEmpty is content of which half compresses to nearly nothing.
func halfEmpty(seed uint64, n int) []byte {
	r, b := rand.New(rand.NewPCG(seed, 5)), make([]byte, n)
	for i := range b {
		if i%512 < 256 {
			b[i] = byte(r.Uint32())
		}
	}
	return b
}

// ends are a giver, over a link of so many bytes a second (0 is as fast as it goes), and a taker.
func ends(t *testing.T, rate float64, lanes int) (giver, taker *Memory) {
	t.Helper()
	a, b := wiretest.Pipe(t)
	if rate > 0 {
		a = slowStream{a, rate}
	}
	giver, taker = newMemory(a, MemoryFramed, lanes), newMemory(b, MemoryFramed, 0)
	t.Cleanup(func() { _, _ = giver.Reset(), taker.Reset() })
	return giver, taker
}

// Over a link that one core can't keep busy several compress, over one that it can one does, and one too if there is no other; what arrives is the same.
func TestLanesAreTakenAsTheLinkNeedsThem(t *testing.T) {
	for name, c := range map[string]struct {
		rate  float64
		lanes int
		want  func(started int) bool
	}{
		"2.5 Gbit/s":               {295e6, flow.MaxLanes, func(n int) bool { return n >= 2 }},
		"2.5 Gbit/s with one core": {295e6, 1, func(n int) bool { return n == 0 }},
		"100 Mbit/s":               {12.5e6, flow.MaxLanes, func(n int) bool { return n == 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				giver, taker := ends(t, c.rate, c.lanes)
				content := halfEmpty(1, 8<<20)
				read := make(chan []byte)
				go func() {
					p, err := io.ReadAll(taker)
					if err != nil {
						t.Error(err)
					}
					read <- p
				}()
				for at := 0; at < len(content); at += forwardPiece {
					if _, err := giver.Write(content[at : at+forwardPiece]); err != nil {
						t.Fatal(err)
					}
				}
				if err := giver.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(<-read, content) {
					t.Error("something else arrived")
				}
				if n := giver.lanes.started; !c.want(n) {
					t.Errorf("%d lanes were started", n)
				}
				t.Logf("%d lanes, %.2f bytes on the stream for each", giver.lanes.started, float64(giver.Wire())/float64(len(content)))
			})
		})
	}
}

// Whatever is planned for each piece, in whatever sizes they come: each byte arrives once and in order.
func TestLanesKeepTheOrder(t *testing.T) {
	giver, taker := ends(t, 0, flow.MaxLanes)
	content := halfEmpty(2, 4<<20)
	read := make(chan []byte)
	go func() {
		p, err := io.ReadAll(taker)
		if err != nil {
			t.Error(err)
		}
		read <- p
	}()
	r := rand.New(rand.NewPCG(3, 3))
	for rest := content; len(rest) > 0; {
		giver.state()
		plan := giver.pack.Plan([]float64{875e3, 118e6, 200e6, 295e6, 5e9}[r.IntN(5)], r.IntN(4) == 0)
		plan.Lanes = 1 + r.IntN(flow.MaxLanes)
		n := min(len(rest), 1+r.IntN([]int{100, 20 << 10, 64 << 10, maxMemData}[r.IntN(4)]))
		pack := giver.spread
		if r.IntN(8) == 0 {
			pack = giver.packHere
		}
		if err := pack(plan, rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := giver.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-read, content) {
		t.Error("something else arrived")
	}
	if giver.Arrived() != int64(len(content)) || giver.lanes.started != flow.MaxLanes {
		t.Errorf("%d bytes are said to have arrived of %d, of %d lanes", giver.Arrived(), len(content), giver.lanes.started)
	}
}

// A taker whose hypervisor takes nothing holds the lanes back after a few pieces; what the giver's end was given meanwhile goes no further, and ends with it.
func TestLanesOfAStreamThatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		giver, taker := ends(t, 0, flow.MaxLanes)
		plan := giver.pack.Plan(200e6, false)
		if plan.Lanes < 2 {
			t.Fatalf("%+v", plan)
		}
		ended := make(chan error)
		piece := halfEmpty(3, forwardPiece)
		go func() {
			for {
				if err := giver.spread(plan, piece); err != nil {
					ended <- err
					return
				}
			}
		}()
		synctest.Wait()
		giver.mu.Lock()
		parcels := len(giver.lanes.order) + len(giver.lanes.free)
		giver.mu.Unlock()
		// What the taker keeps for its hypervisor, the window and what waits before it, and the parcels.
		if way := giver.passed.Load(); parcels > 2*flow.MaxLanes || way > memAhead+1<<20 {
			t.Errorf("%d bytes are on their way, %d parcels", way, parcels)
		}
		if err := giver.Reset(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err == nil {
			t.Error("it could go on after the stream was dropped")
		}
		if err := taker.Reset(); err != nil {
			t.Error(err)
		}
	})
}

// A small piece, as the last of a switch is, goes at once when nothing is before it, and is there when what was before it is.
func TestLanesHoldNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		giver, taker := ends(t, 0, flow.MaxLanes)
		plan, piece, small := giver.pack.Plan(200e6, false), halfEmpty(4, forwardPiece), []byte("the last of it")
		for _, pieces := range [][][]byte{{small}, {piece}, {piece, piece, small}} {
			n := 0
			for _, p := range pieces {
				if err := giver.spread(plan, p); err != nil {
					t.Fatal(err)
				}
				n += len(p)
			}
			began := time.Now()
			if _, err := io.ReadFull(taker, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 0 {
				t.Errorf("%d pieces: the last came after %v", len(pieces), took)
			}
		}
	})
}
