package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is a scripted QEMU: it greets, accepts the negotiation, then answers each line by script.
func peer(t *testing.T, script func(line string) []string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qmp.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintln(conn, `{"event":"EARLY","data":{}}`)
		fmt.Fprintln(conn, `{"QMP":{"version":{},"capabilities":[]}}`)
		in := bufio.NewScanner(conn)
		for in.Scan() {
			if strings.Contains(in.Text(), "qmp_capabilities") {
				fmt.Fprintln(conn, `{"return":{},"id":1}`)
				continue
			}
			answers := script(in.Text())
			if answers == nil {
				return
			}
			for _, a := range answers {
				fmt.Fprintln(conn, a)
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return path
}

func dial(t *testing.T, path string) (*Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	c, err := Dial(ctx, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, ctx
}

func TestRepliesErrorsAndEvents(t *testing.T) {
	path := peer(t, func(line string) []string {
		if strings.Contains(line, "bad") {
			return []string{`{"id":3,"error":{"class":"GenericError","desc":"no"}}`}
		}
		return []string{`{"event":"STOP","data":{"n":1}}`, `{"return":{"x":7},"id":99}`, `{"return":{"x":5},"id":2}`}
	})
	c, ctx := dial(t, path)
	sub := c.Subscribe()
	defer sub.Close()
	var out struct{ X int }
	if err := c.Do(ctx, "good", map[string]any{"a": 1}, &out); err != nil || out.X != 5 {
		t.Fatalf("%+v, %v", out, err)
	}
	if e, err := sub.Next(ctx); err != nil || e.Name != "STOP" || string(e.Data) != `{"n":1}` {
		t.Fatalf("%+v, %v", e, err)
	}
	var refused *CommandError
	if err := c.Do(ctx, "bad", nil, nil); !errors.As(err, &refused) || refused.Desc != "no" {
		t.Fatalf("%v", err)
	}
}

func TestADeadPeerEndsCallsAndSubscriptions(t *testing.T) {
	c, ctx := dial(t, peer(t, func(string) []string { return nil }))
	sub := c.Subscribe()
	defer sub.Close()
	if err := c.Do(ctx, "anything", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("the call: %v", err)
	}
	if _, err := sub.Next(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("the subscription: %v", err)
	}
	if err := c.Do(ctx, "later", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a later call: %v", err)
	}
}

func TestASilentPeerEndsWithTheContext(t *testing.T) {
	c, _ := dial(t, peer(t, func(string) []string { return []string{} }))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := c.Do(ctx, "stop", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// A QEMU that waits has a few questions that nobody waits for any more, and no more than that: it hears what is urgent, and, once it answers, all else.
func TestQuestionsWithoutAnswerAreFew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qmp.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var asked atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintln(conn, `{"QMP":{"version":{},"capabilities":["oob"]}}`)
		var held []int
		in := bufio.NewScanner(conn)
		for in.Scan() {
			var m struct {
				Execute string `json:"execute"`
				Urgent  string `json:"exec-oob"`
				ID      int    `json:"id"`
			}
			if err := json.Unmarshal(in.Bytes(), &m); err != nil {
				return
			}
			switch {
			case m.Execute == "qmp_capabilities" || m.Execute == "last":
				fmt.Fprintf(conn, "{\"return\":{},\"id\":%d}\n", m.ID)
			case m.Execute != "":
				asked.Add(1)
				held = append(held, m.ID)
			default: // it goes on
				for _, id := range append(held, m.ID) {
					fmt.Fprintf(conn, "{\"return\":{},\"id\":%d}\n", id)
				}
			}
		}
	}()
	c, ctx := dial(t, path)
	for i := 0; i < 2*maxUnanswered || asked.Load() < maxUnanswered; i++ {
		short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		if err := c.Do(short, "query-status", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it waits: %v", err)
		}
		cancel()
	}
	if err := c.DoUrgent(ctx, "migrate-recover", nil, nil); err != nil {
		t.Errorf("what is urgent: %v", err)
	}
	if n := asked.Load(); n != maxUnanswered {
		t.Errorf("it has %d questions, want %d", n, maxUnanswered)
	}
	for range 3 * maxUnanswered {
		if err := c.Do(ctx, "last", nil, nil); err != nil {
			t.Errorf("when it goes on: %v", err)
		}
	}
	c.Close()
	<-done
}

// Wherever in a call its deadline comes, it is the context's: who waits for a QEMU that doesn't answer goes by that.
func TestADeadlineIsTheContexts(t *testing.T) {
	c, _ := dial(t, peer(t, func(string) []string { return []string{} }))
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	for range 100 {
		if err := c.Do(ctx, "query-status", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
}

func TestNonsenseClosesTheClient(t *testing.T) {
	for name, line := range map[string]string{
		"not JSON":   `nonsense`,
		"too long":   strings.Repeat("x", maxLine+1),
		"wrong kind": `{"id":"seven"}`,
	} {
		t.Run(name, func(t *testing.T) {
			c, ctx := dial(t, peer(t, func(string) []string { return []string{line} }))
			if err := c.Do(ctx, "anything", nil, nil); !errors.Is(err, ErrClosed) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestASlowSubscriberIsBounded(t *testing.T) {
	c := &Client{subs: map[*Subscription]struct{}{}}
	sub := c.Subscribe()
	for i := range maxBacklog + 10 {
		c.publish(Event{Name: fmt.Sprint(i)})
	}
	if len(sub.backlog) != maxBacklog || sub.backlog[0].Name != "10" {
		t.Errorf("%d kept, the oldest is %s", len(sub.backlog), sub.backlog[0].Name)
	}
}

func TestDialGivesUp(t *testing.T) {
	gone := errors.New("gone")
	if _, err := Dial(context.Background(), filepath.Join(t.TempDir(), "none"), func() error { return gone }); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

// A QEMU that answers nobody for a while, because its disk isn't served, is there all the same.
func TestAttachDoesNotWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qmp.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, hangsUp := range []bool{false, true} {
		c, err := Attach(ctx, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		short, end := context.WithTimeout(ctx, 20*time.Millisecond)
		if err := c.Do(short, "query-status", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before it answers: %v", err)
		}
		end()
		asked := make(chan error, 1)
		go func() { asked <- c.Do(ctx, "query-status", nil, nil) }()
		if hangsUp {
			conn.Close()
			if err := <-asked; !errors.Is(err, ErrClosed) {
				t.Errorf("it hung up: %v", err)
			}
		} else {
			in := bufio.NewScanner(conn)
			fmt.Fprintln(conn, `{"QMP":{"version":{},"capabilities":[]}}`)
			for id := 1; id <= 2 && in.Scan(); id++ {
				fmt.Fprintf(conn, "{\"return\":{},\"id\":%d}\n", id)
			}
			<-c.Ready()
			if err := <-asked; err != nil {
				t.Errorf("it answers: %v", err)
			}
		}
		c.Close()
		conn.Close()
	}
}
