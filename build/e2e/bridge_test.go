//go:build linux

package e2e

import (
	"context"
	"flag"
	"net"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

var bridgeSwitches = flag.Int("bridge.switches", 1, "how often a guest on a bridge is switched, to and fro")

const (
	guestAddr = "10.97.0.200"
	// packetEvery is 50 packets a second, as a call has.
	packetEvery = 20 * time.Millisecond
)

// TestBridged has a guest that is on the local network itself, by a bridge on each PC. A third PC calls it, with 50 packets a
// second, and sends it a stream, while it is switched. The stream has to arrive whole; for how long the call is interrupted is printed, beside what
// an emulated guest on a busy computer leaves out anyhow: packets are lost only while it stands still, and answered late whenever it gets no processor.
func TestBridged(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f, err := story.BeginFleet(ctx, story.Options{Binary: built.binary, Image: built.image, Dir: t.TempDir(), Out: t.Output(),
		Rate:  console.Rate{Records: 20, Fsync: 8, Mem: 1, Set: 16},
		Sites: []lab.Site{{Name: "lan", Hosts: []string{"desk", "lap", "caller"}}}, Prepare: func(ctx context.Context, h *lab.Host) (bool, error) {
			if h.Name() == "caller" {
				return false, nil
			}
			return true, h.Bridge(ctx)
		}})
	defer func() {
		if t.Failed() {
			t.Log(f.LastWords())
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	desk := f.PC("desk")
	job, err := desk.Client.CreateVM(ctx, api.CreateVM{Name: "Work", CPUs: 1, MemoryMiB: 256, Image: built.image, Format: "raw", Network: true, Bridged: true})
	must(err)
	must(f.AwaitJob(ctx, "desk", job))
	_, err = f.UntilVM(ctx, f.PC("lap"), "Work", "known", func(api.VM) bool { return true })
	must(err)
	c, _, err := f.Boot(ctx, "desk", "Work")
	must(err)
	_, err = c.Command(ctx, "net "+guestAddr+"/24", "OK net")
	must(err)

	call, stream := begin(t, ctx, f.Lab.Host("caller"))
	at, to := "desk", "lap"
	for range *bridgeSwitches {
		must(f.AwaitLive(ctx, at, "Work", 1))
		must(call.answered(ctx))    // the call has begun
		usual := call.interrupted() // what was before isn't the switch's
		before, packets := stream.sent(), call.sentN.Load()
		_, err := f.PC(to).Client.Switch(ctx, api.SwitchVM{VM: "Work"})
		must(err)
		v, err := f.UntilVM(ctx, f.PC(to), "Work", "switched", func(v api.VM) bool { return v.Switch != nil && v.Switch.Phase.Ended() })
		must(err)
		if v.Switch.Phase != api.PhaseDone {
			t.Fatalf("the switch ended as %s: %v", v.Switch.Phase, v.Switch.Error)
		}
		must(call.answered(ctx))
		cut := call.interrupted()
		must(stream.further(ctx, before))
		c, err := f.Listen(ctx, to, "Work")
		must(err)
		verdict, err := c.Verify(ctx)
		must(err)
		if !verdict.OK {
			t.Errorf("the guest says: %s", verdict.Text)
		}
		lost := call.lost(packets)
		t.Logf("switched to %s: it stood still for %v by the hosts' clock; of %d packets, 50 a second, %d had no answer: %v (seed 001 §5.4: 0.25 s); at most %v without any, before the switch %v",
			to, v.Switch.Pause.Round(time.Millisecond), call.sentN.Load()-packets, lost, time.Duration(lost)*packetEvery, cut.Round(time.Millisecond), usual.Round(time.Millisecond))
		at, to = to, at
	}
	call.end()
	whole, stall, took, err := stream.end()
	must(err)
	alone := time.Duration(whole) * time.Second / streamRate
	t.Logf("the stream came whole: %d KiB in %v, %+.1f %% of the time that its rate makes it, with %d switches; for at most %v nothing",
		whole>>10, took.Round(time.Millisecond), 100*(took.Seconds()/alone.Seconds()-1), *bridgeSwitches, stall.Round(time.Millisecond))
}

// begin calls the guest, and sends it a stream, from a host.
func begin(t *testing.T, ctx context.Context, from *lab.Host) (*caller, *streamer) {
	t.Helper()
	c, s := &caller{}, &streamer{}
	err := from.Do(func() (err error) {
		if c.conn, err = net.Dial("udp4", net.JoinHostPort(guestAddr, "7")); err != nil {
			return err
		}
		s.conn, err = net.Dial("tcp4", net.JoinHostPort(guestAddr, "7"))
		return err
	})
	if err != nil {
		t.Fatalf("nobody answers on the bridge: %v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	c.begin(ctx)
	s.begin(ctx)
	t.Cleanup(func() {
		cancel()
		c.conn.Close()
		s.conn.Close()
		c.wait()
		s.wait()
	})
	return c, s
}
