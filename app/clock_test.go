package app

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
)

// insideAgent is an agent in a guest whose clock is late.
type insideAgent struct {
	socket string
	mu     sync.Mutex
	off    time.Duration
	sets   int
	slow   int // how often it sets the clock late
}

func newInsideAgent(t *testing.T, off time.Duration) *insideAgent {
	t.Helper()
	dir, err := os.MkdirTemp("", "ag")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a := &insideAgent{socket: filepath.Join(dir, "s"), off: off}
	l, err := net.Listen("unix", a.socket)
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
			for lines := bufio.NewScanner(c); lines.Scan(); {
				_, _ = c.Write([]byte(a.answer(strings.TrimPrefix(lines.Text(), "\xff"))))
			}
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return a
}

func (a *insideAgent) answer(line string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var q struct {
		Execute   string `json:"execute"`
		Arguments struct {
			ID   int64 `json:"id"`
			Time int64 `json:"time"`
		} `json:"arguments"`
	}
	_ = json.Unmarshal([]byte(line), &q)
	switch q.Execute {
	case "guest-sync-delimited":
		return fmt.Sprintf("\xff{\"return\": %d}\n", q.Arguments.ID)
	case "guest-get-time":
		return fmt.Sprintf("{\"return\": %d}\n", time.Now().Add(a.off).UnixNano())
	case "guest-set-time":
		a.sets++
		a.off = time.Until(time.Unix(0, q.Arguments.Time))
		if a.slow > 0 {
			a.slow--
			a.off -= 10 * time.Minute
		}
	}
	return "{\"return\": {}}\n"
}

// late is how late the clock is, and how often it was set.
func (a *insideAgent) late() (time.Duration, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return -a.off, a.sets
}

// TestTheGuestsClockIsSet: at its start, after a pause, after a switch and after a resume.
func TestTheGuestsClockIsSet(t *testing.T) {
	a, b := newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, a, b)
	a.create("Work")
	a.live("Work")
	here, there := newInsideAgent(t, -time.Hour), newInsideAgent(t, -time.Hour)
	here.slow = 12 // while it starts: more often than is tried at once
	a.hv.agent, b.hv.agent = here.socket, there.socket
	if err := a.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	until(t, "the agent to be known", func() bool { v, _ := a.vm("Work"); return v.Agent == api.AgentAnswers })
	right := func(what string, ag *insideAgent) {
		t.Helper()
		until(t, "a right clock after "+what, func() bool { late, sets := ag.late(); return sets > 0 && late.Abs() < 100*time.Millisecond })
	}
	right("its start", here)
	wrong := func(ag *insideAgent) {
		ag.mu.Lock()
		defer ag.mu.Unlock()
		ag.off, ag.sets = -time.Hour, 0
	}
	wrong(here)
	a.hv.only().set(hypervisor.StateIOError)
	until(t, "it to stand still", func() bool { v, _ := a.vm("Work"); return v.State == api.VMPaused })
	if err := a.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	right("a pause", here)
	a.live("Work")
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := b.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	right("a switch", there)
	wrong(there)
	if err := b.engine.SuspendVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	if v, _ := b.vm("Work"); v.Agent != "" {
		t.Errorf("of a suspended VM's agent is told: %q", v.Agent)
	}
	if err := b.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	right("a resume", there)
}
