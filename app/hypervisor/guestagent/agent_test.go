package guestagent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent plays the guest: answer gets each line and returns what is to be written.
func agent(t *testing.T, answer func(line string) string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ga")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					if _, err := c.Write([]byte(answer(strings.TrimPrefix(lines.Text(), "\xff")))); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return socket
}

// clockwork is an agent with a clock that is off.
type clockwork struct {
	mu    sync.Mutex
	off   time.Duration
	sets  int
	stuck bool
	slow  time.Duration // how late it sets the clock
	stale string        // said before every answer to a sync
}

func (w *clockwork) answer(line string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var q struct {
		Execute   string `json:"execute"`
		Arguments struct {
			ID   int64 `json:"id"`
			Time int64 `json:"time"`
		} `json:"arguments"`
	}
	if json.Unmarshal([]byte(line), &q) != nil {
		return ""
	}
	switch q.Execute {
	case "guest-sync-delimited":
		return w.stale + fmt.Sprintf("\xff{\"return\": %d}\n", q.Arguments.ID)
	case "guest-get-time":
		return fmt.Sprintf("{\"return\": %d}\n", time.Now().Add(w.off).UnixNano())
	case "guest-set-time":
		w.sets++
		if !w.stuck {
			w.off = time.Until(time.Unix(0, q.Arguments.Time)) - w.slow
		}
		return "{\"return\": {}}\n"
	}
	return `{"error": {"class": "CommandNotFound", "desc": "no"}}` + "\n"
}

func dial(t *testing.T, socket string) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAClockIsSet(t *testing.T) {
	for _, off := range []time.Duration{-5 * time.Minute, 3 * time.Hour, -200 * time.Millisecond} {
		w := &clockwork{off: off, stale: "{\"return\": 17}\n{\"return\": 4"}
		c := dial(t, agent(t, w.answer))
		before, after, err := c.SetClock(t.Context(), 20*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if (before.Off-off).Abs() > before.Within+time.Millisecond || after.wrong(20*time.Millisecond) || w.sets == 0 {
			t.Errorf("off by %v: %+v, %+v, set %d times", off, before, after, w.sets)
		}
	}
}

func TestARightClockIsLeftAlone(t *testing.T) {
	w := &clockwork{off: -5 * time.Millisecond}
	c := dial(t, agent(t, w.answer))
	if _, _, err := c.SetClock(t.Context(), 20*time.Millisecond); err != nil || w.sets != 0 {
		t.Errorf("set %d times, %v", w.sets, err)
	}
}

func TestAClockThatWillNotBeSet(t *testing.T) {
	w := &clockwork{off: time.Hour, stuck: true}
	c := dial(t, agent(t, w.answer))
	if _, _, err := c.SetClock(t.Context(), 20*time.Millisecond); !errors.Is(err, ErrRefused) || w.sets != tries {
		t.Errorf("set %d times, %v", w.sets, err)
	}
}

// A guest that has much to do sets its clock late: that isn't to refuse it.
func TestAClockThatIsSetLate(t *testing.T) {
	w := &clockwork{off: -time.Hour, slow: 10 * time.Minute}
	c := dial(t, agent(t, w.answer))
	_, after, err := c.SetClock(t.Context(), 20*time.Millisecond)
	if !errors.Is(err, ErrOff) || w.sets != tries || after.Off.Abs() > 30*time.Minute {
		t.Errorf("set %d times, %+v, %v", w.sets, after, err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, agent(t, func(string) string { return "" })); !errors.Is(err, ErrSilent) {
		t.Error(err)
	}
	if _, err := Dial(t.Context(), "/nowhere/agent.sock"); err == nil {
		t.Error("a socket that isn't there")
	}
}

func TestAHostileGuest(t *testing.T) {
	flood := agent(t, func(string) string { return strings.Repeat("x", 4*maxAnswer) })
	if _, err := Dial(t.Context(), flood); !errors.Is(err, ErrProtocol) {
		t.Errorf("a flood: %v", err)
	}
	lines := agent(t, func(string) string { return strings.Repeat("{\"return\": 1}\n", maxAnswer) })
	if _, err := Dial(t.Context(), lines); !errors.Is(err, ErrProtocol) {
		t.Errorf("a flood of answers: %v", err)
	}
	w := &clockwork{}
	for what, said := range map[string]string{"no JSON": "nonsense\n", "no answer": "{}\n", "a time that is none": `{"return": "soon"}` + "\n",
		"a time beyond all numbers": `{"return": 1e300}` + "\n", "a refusal": `{"error": {"class": "x", "desc": "no"}}` + "\n"} {
		c := dial(t, agent(t, func(line string) string {
			if strings.Contains(line, "sync") {
				return w.answer(line)
			}
			return said
		}))
		if _, _, err := c.SetClock(t.Context(), 0); !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzAnswers has the guest say anything.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("\xff{\"return\": 1}\n{\"return\": 2}\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		a, b := net.Pipe()
		defer a.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			go func() { _, _ = b.Write(said); b.Close() }()
			buf := make([]byte, 4096)
			for {
				if _, err := b.Read(buf); err != nil {
					return
				}
			}
		})
		c := &Conn{conn: a, r: bufio.NewReader(a)}
		if c.sync(t.Context()) == nil {
			t.Error("an answer to a number that it couldn't know")
		}
		a.Close()
		wg.Wait()
	})
}
