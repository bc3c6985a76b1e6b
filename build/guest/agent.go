//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// agentPort is the name of the serial port that the guest agent answers at.
const agentPort = "org.qemu.guest_agent.0"

// maxQuestion bounds one line of what the agent is asked, in bytes.
const maxQuestion = 64 << 10

// findAgentPort is the device of the agent's port, or "" if this guest has none.
func findAgentPort(sys, dev string) string {
	names, _ := filepath.Glob(filepath.Join(sys, "class/virtio-ports/*/name"))
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == agentPort {
			return filepath.Join(dev, filepath.Base(filepath.Dir(name)))
		}
	}
	return ""
}

// serveAgent answers as qemu-ga would, as far as clocks go. A guest without a port, or whose port goes, does without.
func serveAgent(ctx context.Context, out *output) error {
	path := findAgentPort("/sys", "/dev")
	if path == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	// Reading the port cannot be interrupted, so it isn't waited for: the process ends with it.
	go func() {
		for ctx.Err() == nil {
			if err := answerAgent(path); err != nil {
				out.Printf("AGENT %v", err)
			}
			// While nobody is connected, the port reads as at its end.
			time.Sleep(20 * time.Millisecond)
		}
	}()
	<-ctx.Done()
	return ctx.Err()
}

func answerAgent(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxQuestion)
	for lines.Scan() {
		line := lines.Bytes()
		// The delimiter says to forget what came before.
		if i := bytes.LastIndexByte(line, 0xff); i >= 0 {
			line = line[i+1:]
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if _, err := f.Write(agentAnswer(line, time.Now, setWallClock)); err != nil {
			return err
		}
	}
	return lines.Err()
}

// agentAnswer is what qemu-ga says to a question.
func agentAnswer(line []byte, now func() time.Time, set func(time.Time) error) []byte {
	var q struct {
		Execute   string `json:"execute"`
		Arguments struct {
			ID   json.Number `json:"id"`
			Time int64       `json:"time"`
		} `json:"arguments"`
	}
	refuse := func(class, desc string) []byte {
		b, _ := json.Marshal(map[string]any{"error": map[string]string{"class": class, "desc": desc}})
		return append(b, '\n')
	}
	if err := json.Unmarshal(line, &q); err != nil {
		return refuse("GenericError", "not JSON")
	}
	switch q.Execute {
	case "guest-sync-delimited":
		return fmt.Appendf([]byte{0xff}, "{\"return\": %s}\n", q.Arguments.ID)
	case "guest-sync":
		return fmt.Appendf(nil, "{\"return\": %s}\n", q.Arguments.ID)
	case "guest-ping":
		return []byte("{\"return\": {}}\n")
	case "guest-get-time":
		return fmt.Appendf(nil, "{\"return\": %d}\n", now().UnixNano())
	case "guest-set-time":
		if err := set(time.Unix(0, q.Arguments.Time)); err != nil {
			return refuse("GenericError", err.Error())
		}
		return []byte("{\"return\": {}}\n")
	}
	return refuse("CommandNotFound", "The command "+q.Execute+" has not been found")
}

func setWallClock(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}
