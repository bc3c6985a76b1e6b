//go:build linux

package matrix

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// monitorSocket is a second QMP monitor, which the engine knows nothing of, beside its own.
const monitorSocket = "witness.sock"

// wrapQEMU puts a qemu-system-x86_64 into a folder that has that monitor too.
func wrapQEMU(dir, real string) error {
	script := `#!/bin/sh
for word; do
	[ "$last" = -pidfile ] && more="-qmp unix:${word%qemu.pid}` + monitorSocket + `,server=on,wait=off"
	last=$word
done
exec ` + real + ` "$@" $more
`
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(script), 0o700)
}

// answerWithin is how long a monitor is waited for: QEMU's stands still in the last moments of a teleport.
const answerWithin = 300 * time.Millisecond

// monitor asks one PC's QEMU, whichever that is at the time.
type monitor struct {
	path string
	conn net.Conn
	in   *json.Decoder
}

// running says whether the guest's processors run. What doesn't answer doesn't count as running.
func (m *monitor) running(ctx context.Context) bool {
	status, err := m.status(ctx)
	if err != nil && m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
	return err == nil && status == "running"
}

func (m *monitor) status(ctx context.Context) (string, error) {
	if m.conn == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.path)
		if err != nil {
			return "", err
		}
		m.conn, m.in = conn, json.NewDecoder(conn)
		if err := m.do("qmp_capabilities", nil); err != nil {
			return "", err
		}
	}
	var s struct{ Status string }
	err := m.do("query-status", &s)
	return s.Status, err
}

func (m *monitor) do(command string, out any) error {
	if err := m.conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(m.conn, `{"execute":%q}`, command); err != nil {
		return err
	}
	for {
		var said struct{ Return, Error json.RawMessage }
		if err := m.in.Decode(&said); err != nil {
			return err
		}
		switch {
		case said.Error != nil:
			return fmt.Errorf("%s: %s", command, said.Error)
		case said.Return == nil: // a greeting, or an event
		case out == nil:
			return nil
		default:
			return json.Unmarshal(said.Return, out)
		}
	}
}

// lookEvery is how often both monitors are asked.
const lookEvery = 20 * time.Millisecond

// never asks both sides' monitors until ctx ends, and fails the world if both guests ran at once: one was seen to run before and after the other.
func (w *world) never(ctx context.Context) {
	var both [2]*monitor
	for i, p := range w.fleet.PCs {
		both[i] = &monitor{path: w.runFile(p, monitorSocket)}
		defer func() {
			if both[i].conn != nil {
				both[i].conn.Close()
			}
		}()
	}
	for ctx.Err() == nil {
		for i, m := range both {
			if m.running(ctx) {
				w.seen[i].Add(1)
				if both[1-i].running(ctx) && m.running(ctx) {
					w.fail(fmt.Errorf("both QEMUs say that the guest runs, on %s and on %s", w.fleet.PCs[0].Name, w.fleet.PCs[1].Name))
				}
				break
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}
