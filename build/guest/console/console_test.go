package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guest is the other end of a console.
type guest struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// open makes a console and what it listens to.
func open(t *testing.T, name string, tl *Timeline) (*Console, *guest) {
	t.Helper()
	here, there := net.Pipe()
	c := New(name, here, tl)
	t.Cleanup(func() {
		there.Close()
		c.Close()
	})
	return c, &guest{t: t, conn: there, in: bufio.NewReader(there)}
}

func (g *guest) say(text string) {
	g.t.Helper()
	if _, err := g.conn.Write([]byte(text)); err != nil {
		g.t.Fatal(err)
	}
}

// hear reads a command and splits it from its tag.
func (g *guest) hear() (line, tag string) {
	l, err := g.in.ReadString('\n')
	if err != nil {
		return "", ""
	}
	l = strings.TrimSuffix(l, "\n")
	i := strings.LastIndexByte(l, ' ')
	return l[:i], l[i:]
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// settle waits until c has read all that was said to it.
func settle(t *testing.T, c *Console, g *guest) {
	t.Helper()
	mark := fmt.Sprintf("MARK %p %d", c, c.mark())
	g.say(mark + "\n")
	if _, err := c.Wait(deadline(t), mark); err != nil {
		t.Fatal(err)
	}
}

func TestCommandFindsItsAnswer(t *testing.T) {
	c, g := open(t, "A", NewTimeline())
	go func() {
		line, tag := g.hear()
		g.say("T 1 10 100\nV ok late #beef\nR 8 8\n")
		g.say("V ok records=5 last=9 bad=0 lost=0 mem_pages=2 mem_bad=0 fs_errors=0 ticks=1 missing=0 gaps=1 maxgap_us=3" + tag + "\r\n")
		if line != "verify" {
			t.Errorf("the guest heard %q", line)
		}
	}()
	v, err := c.Verify(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if !v.OK || v.Records != 5 || v.Last != 9 || v.MemPages != 2 || v.Ticks != 1 || v.Gaps != 1 || v.MaxGap != 3 {
		t.Errorf("verdict %+v", v)
	}
	if strings.Contains(v.Text, "#") {
		t.Errorf("the tag shows: %q", v.Text)
	}
}

func TestCommandTellsRefusalSilenceAndEnd(t *testing.T) {
	c, g := open(t, "A", NewTimeline())
	go func() {
		_, tag := g.hear()
		g.say("E unknown command \"dance\"" + tag + "\n")
		g.hear() // no answer
		g.hear()
		g.conn.Close()
	}()
	if _, err := c.Command(deadline(t), "dance", "OK"); !errors.Is(err, ErrRefused) {
		t.Errorf("refused: %v", err)
	}
	short, cancel := context.WithTimeout(deadline(t), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Command(short, "sync", "OK"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	if _, err := c.Command(deadline(t), "sync", "OK"); !errors.Is(err, ErrClosed) {
		t.Errorf("ended: %v", err)
	}
	<-c.Done()
}

func TestWaitReadyAsksOnceTheGuestRuns(t *testing.T) {
	c, g := open(t, "A", NewTimeline())
	go func() {
		g.say("half a line\nT 1 10 100\n")
		_, tag := g.hear()
		g.say("E unknown command \"xxboot\"" + tag + "\n")
		_, tag = g.hear()
		g.say("BOOT n=3 last=12 durable=8 lost=1 bad=2 run=abc" + tag + "\n")
	}()
	b, err := c.WaitReady(deadline(t))
	if want := (Boot{Records: 3, Last: 12, Durable: 8, Lost: 1, Bad: 2, Run: "abc"}); err != nil || b != want {
		t.Errorf("%+v, %v; want %+v", b, err, want)
	}
}

func TestWaitReadySaysNothingToAGuestThatDoesNotRun(t *testing.T) {
	c, g := open(t, "A", NewTimeline())
	short, cancel := context.WithTimeout(deadline(t), 50*time.Millisecond)
	defer cancel()
	// Without a reader at the other end, sending would be an error of another
	// kind.
	if _, err := c.WaitReady(short); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("not running: %v", err)
	}
	g.conn.Close()
	if _, err := c.WaitReady(deadline(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("ended: %v", err)
	}
}

func TestAnIncompleteAnswerIsAnError(t *testing.T) {
	c, g := open(t, "A", NewTimeline())
	go func() {
		_, tag := g.hear()
		g.say("V ok records=5" + tag + "\n")
	}()
	if _, err := c.Verify(deadline(t)); !errors.Is(err, errTorn) {
		t.Errorf("error %v", err)
	}
}

func TestFurtherDisksAreTold(t *testing.T) {
	c, g := open(t, "A", NewTimeline())
	says := func(text string) {
		go func() {
			_, tag := g.hear()
			g.say(text + tag + "\n")
		}()
	}
	says("OK disks disks=2 lost=3 bad=1 vdb=12 vdc=0")
	d, lost, bad, err := c.WriteDisks(deadline(t))
	if err != nil || lost != 3 || bad != 1 || !maps.Equal(d, Disks{"vdb": 12, "vdc": 0}) {
		t.Errorf("found %v, %d lost, %d bad, %v", d, lost, bad, err)
	}
	says("OK disks disks=2 lost=0 bad=0 vdb=12")
	if _, _, _, err := c.WriteDisks(deadline(t)); !errors.Is(err, errTorn) {
		t.Errorf("one of two disks: %v", err)
	}
	says("OK sync durable=7 vdb=13 vdc=1")
	if d, err := c.SyncDisks(deadline(t)); err != nil || !maps.Equal(d, Disks{"vdb": 13, "vdc": 1}) {
		t.Errorf("synced %v, %v", d, err)
	}
	says("OK sync durable=7 vdb=x")
	if _, err := c.SyncDisks(deadline(t)); !errors.Is(err, errTorn) {
		t.Errorf("no number: %v", err)
	}
}

func TestProgressAndBadLines(t *testing.T) {
	c, g := open(t, "A", NewTimeline())
	g.say("R 99 99\n") // perhaps the end of "R 1099 99": not believed
	g.say("R 10 8\nR 16 16\nBAD memory page 4\nR 12\nR 40 50\nR x 1\n")
	settle(t, c, g)
	if last, durable := c.Progress(); last != 16 || durable != 16 {
		t.Errorf("progress %d, %d", last, durable)
	}
	if bad := c.Bad(); !slices.Equal(bad, []string{"BAD memory page 4"}) {
		t.Errorf("bad lines %q", bad)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	tl := NewTimeline()
	c, g := open(t, "A", tl)
	g.say(strings.Repeat("x", 3*maxLine) + "\n")
	for range maxLines/1000 + 1 {
		g.say(strings.Repeat("BAD\n", 1000))
	}
	settle(t, c, g)
	if n := len(c.Lines()); n > maxLines {
		t.Errorf("%d lines kept", n)
	}
	if n := len(c.Bad()); n > maxLines {
		t.Errorf("%d bad lines kept", n)
	}
	if n := len(tl.tracks[0].head); n > maxLine {
		t.Errorf("a line of %d bytes", n)
	}
	go func() {
		_, tag := g.hear()
		g.say("OK sync durable=4" + tag + "\n")
	}()
	if n, err := c.Sync(deadline(t)); err != nil || n != 4 {
		t.Errorf("after %d dropped lines: %d, %v", c.dropped, n, err)
	}
	if last, durable := c.Progress(); last < 4 || durable < 4 {
		t.Errorf("record 4 is durable, and it knows of %d and %d", last, durable)
	}
}

func TestDialWaitsForTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(short, "A", path, NewTimeline()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("no socket: %v", err)
	}
	opened := make(chan *Console)
	go func() {
		c, err := Dial(deadline(t), "A", path, NewTimeline())
		if err != nil {
			t.Error(err)
		}
		opened <- c
	}()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := <-opened
	conn.Close()
	<-c.Done()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
