//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/build/guest/console"
)

func TestAgentAnswers(t *testing.T) {
	now := func() time.Time { return time.Unix(0, 42) }
	var set time.Time
	to := func(at time.Time) error {
		if at.IsZero() || at.Unix() < 0 {
			return errors.New("no")
		}
		set = at
		return nil
	}
	for question, want := range map[string]string{
		`{"execute":"guest-ping"}`:                                      `{"return": {}}`,
		`{"execute":"guest-sync","arguments":{"id":9007199254740991}}`:  `{"return": 9007199254740991}`,
		`{"execute":"guest-sync-delimited","arguments":{"id":7}}`:       "\xff" + `{"return": 7}`,
		`{"execute":"guest-get-time"}`:                                  `{"return": 42}`,
		`{"execute":"guest-set-time","arguments":{"time":5000000000}}`:  `{"return": {}}`,
		`{"execute":"guest-set-time","arguments":{"time":-5000000000}}`: `{"error":{"class":"GenericError","desc":"no"}}`,
		`{"execute":"guest-shutdown"}`:                                  `{"error":{"class":"CommandNotFound","desc":"The command guest-shutdown has not been found"}}`,
		`nonsense`:                                                      `{"error":{"class":"GenericError","desc":"not JSON"}}`,
	} {
		if got := string(agentAnswer([]byte(question), now, to)); got != want+"\n" {
			t.Errorf("%s: %q", question, got)
		}
	}
	if set.Unix() != 5 {
		t.Errorf("set to %v", set)
	}
}

func TestAgentPort(t *testing.T) {
	sys := t.TempDir()
	if got := findAgentPort(sys, "/dev"); got != "" {
		t.Errorf("%q", got)
	}
	for port, name := range map[string]string{"vport1p1": "com.redhat.spice.0", "vport1p2": agentPort} {
		dir := filepath.Join(sys, "class/virtio-ports", port)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "name"), []byte(name+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if got := findAgentPort(sys, "/dev"); got != "/dev/vport1p2" {
		t.Errorf("%q", got)
	}
}

// asker is a host at the agent's port.
type asker struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (a *asker) ask(question string) string {
	a.t.Helper()
	if _, err := fmt.Fprintln(a.conn, question); err != nil {
		a.t.Fatal(err)
	}
	line, err := a.r.ReadString('\n')
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.TrimPrefix(line, "\xff")
}

// late is how late the guest's clock is.
func (a *asker) late() time.Duration {
	a.t.Helper()
	var answer struct {
		Return int64 `json:"return"`
	}
	before := time.Now()
	said := a.ask(`{"execute":"guest-get-time"}`)
	took := time.Since(before)
	if err := json.Unmarshal([]byte(said), &answer); err != nil {
		a.t.Fatalf("%q: %v", said, err)
	}
	return before.Add(took / 2).Sub(time.Unix(0, answer.Return))
}

// TestTheClockOfAGuestThatStood: it is late by as much as the guest stood, until the agent sets it; the host hangs up and comes back meanwhile.
func TestTheClockOfAGuestThatStood(t *testing.T) {
	tl := console.NewTimeline()
	socket := filepath.Join(t.TempDir(), "agent")
	v := start(t, "a", image(t), tl, "-rtc", "base=utc",
		"-device", "virtio-serial-pci,id=vser0",
		"-chardev", "socket,id=agent0,server=on,wait=off,path="+socket,
		"-device", "virtserialport,bus=vser0.0,nr=1,chardev=agent0,name="+agentPort)
	v.ready()
	dial := func() *asker {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return &asker{t, conn, bufio.NewReader(conn)}
	}
	first := dial()
	if got := first.ask("\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":5}}`); got != "{\"return\": 5}\n" {
		t.Fatalf("%q", got)
	}
	before := first.late()
	first.conn.Close()
	const stood = 3 * time.Second
	v.stop()
	time.Sleep(stood) // this is the pause itself, not a wait for something
	v.tell("cont")
	again := dial()
	again.ask("\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":6}}`)
	after := again.late()
	if lost := after - before; lost < stood-500*time.Millisecond {
		t.Errorf("the guest's clock lost only %v", lost)
	}
	again.ask(fmt.Sprintf(`{"execute":"guest-set-time","arguments":{"time":%d}}`, time.Now().UnixNano()))
	if left := again.late(); left.Abs() > stood/2 {
		t.Errorf("the clock is still late by %v", left)
	} else {
		t.Logf("late by %v before, %v after the pause, %v once set", before, after, left)
	}
	if bad := v.console.Bad(); len(bad) > 0 {
		t.Error(bad)
	}
}
