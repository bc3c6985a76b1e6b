//go:build linux

package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// sites makes two sites, two hosts at home and one at the office.
func sites(t *testing.T, wan WAN) *Lab {
	t.Helper()
	l, err := NewSites(deadline(t), wan, Site{Name: "home", Hosts: []string{"desk", "nas"}}, Site{Name: "office", Hosts: []string{"laptop"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// fetch lets from download n bytes from to, and returns how long they came in after the first of them was read, and how long all of it took: the link's work
// lies within the latter, however late this computer looks.
func fetch(t *testing.T, from, to *Host, n int64) (came, took time.Duration) {
	t.Helper()
	start := time.Now()
	var ln net.Listener
	err := to.Do(func() (err error) {
		ln, err = net.Listen("tcp", netip.AddrPortFrom(to.Addr(), 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 64<<10)
		for left := n; left > 0; {
			m, err := c.Write(b[:min(left, int64(len(b)))])
			if left -= int64(m); err != nil {
				return
			}
		}
	}()
	defer func() {
		ln.Close()
		<-done
	}()
	var c net.Conn
	err = from.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: time.Minute}).Dial("tcp", ln.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if got, err := io.Copy(io.Discard, c); err != nil || got != n-1 {
		t.Fatalf("%d of %d bytes: %v", got+1, n, err)
	}
	return time.Since(began), time.Since(start)
}

// fastest lets from download n bytes from to until they come as fast as that, in bits a second, three times at most, and returns how fast they came at best, and
// how fast all of a download was.
func fastest(t *testing.T, from, to *Host, n int64, enough float64) (came, whole float64) {
	t.Helper()
	for tries := 0; tries < 3 && came < enough; tries++ {
		a, b := fetch(t, from, to, n)
		came, whole = max(came, float64(n)*8/a.Seconds()), max(whole, float64(n)*8/b.Seconds())
	}
	return came, whole
}

// shortest is the shortest of some connections' round trips.
func shortest(t *testing.T, from *Host, to netip.AddrPort) time.Duration {
	t.Helper()
	best := time.Hour
	for range 8 {
		best = min(best, opening(t, from, to))
	}
	return best
}

// opening is how long it takes to open a connection.
func opening(t *testing.T, from *Host, to netip.AddrPort) time.Duration {
	t.Helper()
	began := time.Now()
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: time.Minute}).Dial("tcp", to.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return time.Since(began)
}

// A link's rate and delay are what was asked for; within a site neither is felt. The upper bounds of speed are the link's own; the
// lower ones leave room for a computer that is busy with other things.
func TestALinkIsAsItWasShaped(t *testing.T) {
	l := sites(t, WAN{Rate: 20_000_000, RoundTrip: 60 * time.Millisecond})
	desk, nas, laptop, k := l.Host("desk"), l.Host("nas"), l.Host("laptop"), l.Link("office", "home")
	if laptop.Addr() != netip.MustParseAddr("10.97.1.1") || laptop.Site() != "office" || len(l.Links()) != 1 || l.Link("home", "moon") != nil {
		t.Fatalf("laptop is at %v in %s; links %v", laptop.Addr(), laptop.Site(), l.Links())
	}
	if got := shortest(t, desk, listen(t, laptop)); got < 60*time.Millisecond || got > 180*time.Millisecond {
		t.Errorf("the round trip takes %v, shaped to 60ms", got)
	}
	if got := shortest(t, desk, listen(t, nas)); got > 30*time.Millisecond {
		t.Errorf("the round trip within a site takes %v", got)
	}

	for _, rate := range []int64{20_000_000, 7_000_000} {
		if err := k.Shape(deadline(t), WAN{Rate: rate, RoundTrip: 20 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		const n = 3 << 20
		came, whole := fastest(t, desk, laptop, n, float64(rate)/2)
		t.Logf("%d bit/s: %.3f of it", rate, came/float64(rate))
		if whole > float64(rate) || came < float64(rate)/2 {
			t.Errorf("%.0f of %d bit/s was used, %.0f over all", came, rate, whole)
		}
		down, up := k.Carried("office"), k.Carried("home")
		fetch(t, desk, laptop, n)
		down, up = k.Carried("office")-down, k.Carried("home")-up
		if down < n || down > n*5/4 || up <= 0 || up > n/5 {
			t.Errorf("for %d bytes the link has carried %d there and %d back", n, down, up)
		}
	}

	if err := k.Shape(deadline(t), WAN{}); err != nil {
		t.Fatal(err)
	}
	const n = 8 << 20
	before := k.Carried("office")
	if fast, _ := fastest(t, desk, laptop, n, 20_000_000); fast < 20_000_000 {
		t.Errorf("without limits %.0f bit/s pass", fast)
	}
	if k.Carried("office")-before < n {
		t.Error("without limits the link doesn't count")
	}
	carried := func() int64 { return k.Carried("office") + k.Carried("home") }
	for still, ctx := 0, deadline(t); still < 10; time.Sleep(10 * time.Millisecond) { // earlier connections end
		if now := carried(); now == before {
			still++
		} else {
			before, still = now, 0
		}
		if ctx.Err() != nil {
			t.Fatal("the link is never still")
		}
	}
	fetch(t, desk, nas, n)
	if now := carried(); now-before > n/1000 {
		t.Errorf("what stays within a site was carried out of it: %d bytes", now-before)
	}
}

// A full link that becomes slow goes on carrying.
func TestAFullLinkBecomesSlow(t *testing.T) {
	fast, slow := WAN{Rate: 100_000_000, RoundTrip: 4 * time.Millisecond}, WAN{Rate: 8_000_000, RoundTrip: 4 * time.Millisecond}
	l := sites(t, fast)
	k := l.Link("home", "office")
	done := make(chan struct{})
	go func() {
		defer close(done)
		fetch(t, l.Host("desk"), l.Host("laptop"), 64<<20)
	}()
	carries := func(n int64, what string) {
		for ctx, before := deadline(t), k.Carried("office"); k.Carried("office")-before < n; time.Sleep(5 * time.Millisecond) {
			if ctx.Err() != nil {
				t.Fatalf("nothing is carried on a link that is %s", what)
			}
		}
	}
	for range 8 {
		carries(4<<20, "fast")
		if err := k.Shape(deadline(t), slow); err != nil {
			t.Fatal(err)
		}
		carries(64<<10, "slow")
		if err := k.Shape(deadline(t), fast); err != nil {
			t.Fatal(err)
		}
	}
	<-done
}

// What fills a link waits in its router, as it does in people's homes.
func TestAFullLinkHasAQueue(t *testing.T) {
	l := sites(t, WAN{Rate: 4_000_000, RoundTrip: 10 * time.Millisecond, Queue: 400 * time.Millisecond})
	desk, laptop := l.Host("desk"), l.Host("laptop")
	addr := listen(t, laptop)
	idle := shortest(t, desk, addr)
	k := l.Link("home", "office")
	before := k.Carried("office")
	const n = 4 << 20
	done := make(chan struct{})
	go func() {
		defer close(done)
		fetch(t, desk, laptop, n)
	}()
	for ctx := deadline(t); k.Carried("office")-before < 256<<10; time.Sleep(5 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("nothing is carried")
		}
	}
	// What counts ended while there was more to come than the queue holds.
	counted := 0
	for range 8 {
		full := opening(t, desk, addr)
		if k.Carried("office")-before > n-512<<10 {
			break
		}
		counted++
		if full < 2*idle {
			t.Errorf("the round trip over a full link takes %v, over an idle one %v", full, idle)
		}
	}
	if counted == 0 {
		t.Error("nobody came through while the link was full")
	}
	<-done
}

func TestACutLinkIsSilent(t *testing.T) {
	l := sites(t, WAN{RoundTrip: 2 * time.Millisecond})
	desk, nas, laptop, k := l.Host("desk"), l.Host("nas"), l.Host("laptop"), l.Link("home", "office")
	addr := listen(t, laptop)
	if got := eventually(t, desk, addr); got != "laptop" {
		t.Fatalf("%s answered", got)
	}
	k.Cut()
	before := k.Carried("home") + k.Carried("office")
	var late net.Error
	if _, err := dial(desk, addr, 300*time.Millisecond); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("over a cut link: %v", err)
	}
	if got := eventually(t, desk, listen(t, nas)); got != "nas" {
		t.Errorf("%s answered", got)
	}
	if now := k.Carried("home") + k.Carried("office"); now != before {
		t.Errorf("a cut link has carried %d bytes", now-before)
	}
	k.Heal()
	if got := eventually(t, desk, addr); got != "laptop" {
		t.Fatalf("%s answered", got)
	}
}

// mDNS works within a site and not between two.
func TestMulticastStaysAtItsSite(t *testing.T) {
	l := sites(t, WAN{})
	hear := func(h *Host) *net.UDPConn {
		t.Helper()
		var c *net.UDPConn
		err := h.Do(func() error {
			ifi, err := net.InterfaceByName(device)
			if err != nil {
				return err
			}
			c, err = net.ListenMulticastUDP("udp4", ifi, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	near, far := hear(l.Host("nas")), hear(l.Host("laptop"))
	say := func(to, text string) {
		t.Helper()
		err := l.Host("desk").Do(func() error {
			c, err := net.Dial("udp4", to)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = io.WriteString(c, text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	heard := func(c *net.UDPConn, again func()) string {
		t.Helper()
		b := make([]byte, 100)
		for ctx := deadline(t); ctx.Err() == nil; {
			again()
			if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(b); err == nil {
				return string(b[:n])
			}
		}
		t.Fatal("nothing is heard")
		return ""
	}
	if got := heard(near, func() { say("224.0.0.251:5353", "to all") }); got != "to all" {
		t.Fatalf("heard %q", got)
	}
	// What was sent to all came first, had it come.
	if got := heard(far, func() { say("10.97.1.1:5353", "to you") }); got != "to you" {
		t.Errorf("at the other site %q is heard", got)
	}
}

// A host that sleeps says nothing and does nothing, and goes on where it was.
func TestSleepingHostsStandStill(t *testing.T) {
	l := open(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	addr := listen(t, a)
	cmd := a.Command(deadline(t), "sh", "-c", "echo up; while read line; do echo $line; done")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 10)
	go func() {
		defer close(answers)
		b := make([]byte, 100)
		for {
			n, err := out.Read(b)
			if err != nil {
				return
			}
			answers <- strings.TrimSpace(string(b[:n]))
		}
	}()
	if got := <-answers; got != "up" {
		t.Fatalf("it says %q", got)
	}
	if err := a.Sleep(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if pids, err := a.Processes(deadline(t)); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("on the host run %v, %v", pids, err)
	}
	if _, err := io.WriteString(in, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if name, err := dial(b, addr, 300*time.Millisecond); err == nil {
		t.Errorf("asleep, %s answers", name)
	}
	select {
	case got := <-answers:
		t.Errorf("asleep, it says %q", got)
	default:
	}
	if err := a.Wake(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if got := <-answers; got != "hello" {
		t.Errorf("awake, it says %q", got)
	}
	if got := eventually(t, b, addr); got != "a" {
		t.Errorf("%s answered", got)
	}
	in.Close()
	for range answers {
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestNewSitesRefusesWhatCannotBe(t *testing.T) {
	two := []Site{{Name: "home", Hosts: []string{"a"}}, {Name: "office", Hosts: []string{"b"}}}
	for _, c := range []struct {
		wan   WAN
		sites []Site
		want  error
	}{
		{WAN{Rate: -1}, two, ErrWAN},
		{WAN{Rate: 1000}, two, ErrWAN},
		{WAN{RoundTrip: time.Minute}, two, ErrWAN},
		{WAN{Queue: -1}, two, ErrWAN},
		{WAN{}, []Site{{Name: "home", Hosts: []string{"a"}}, {Name: "office", Hosts: []string{"a"}}}, ErrName},
		{WAN{}, []Site{{Name: "home"}, {Name: "home"}}, ErrName},
		{WAN{}, []Site{{Name: "No"}}, ErrName},
		{WAN{}, make([]Site, maxSites+1), ErrTooMany},
	} {
		if l, err := NewSites(context.Background(), c.wan, c.sites...); !errors.Is(err, c.want) {
			t.Errorf("%+v %q: %v, %v", c.wan, c.sites, l, err)
		}
	}
}
