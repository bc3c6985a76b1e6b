package ui

import (
	"bufio"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
)

// need fails a real test where the system lacks what it is made with.
func need(t *testing.T, tools ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a display, so not in short mode")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s: run build/deps.sh gui-test", tool)
		}
	}
}

// background starts a program that ends with the test.
func background(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// until waits for something that will come true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// startBus starts a session bus of the test's own and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	background(t, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("bus said nothing: %v", err)
	}
	return strings.TrimSpace(line)
}

// testPanel is a panel that shows tray icons, as desktops have one.
type testPanel struct {
	conn *dbus.Conn
	prop *prop.Properties

	mu    sync.Mutex
	items []string
	calls int
}

// openPanel puts a panel on the bus.
func openPanel(t *testing.T, bus string) *testPanel {
	t.Helper()
	conn, err := dbus.Connect(bus)
	if err != nil {
		t.Fatal(err)
	}
	p := &testPanel{conn: conn}
	t.Cleanup(p.close)
	if err := conn.Export(p, watcherPath, watcherName); err != nil {
		t.Fatal(err)
	}
	p.prop, err = prop.Export(conn, watcherPath, prop.Map{watcherName: {
		"RegisteredStatusNotifierItems": {Value: []string{}, Emit: prop.EmitFalse},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(watcherName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own the panel's name: %v, %v", reply, err)
	}
	return p
}

func (p *testPanel) close() { _ = p.conn.Close() }

// RegisterStatusNotifierItem is called over the bus. Like KDE's panel it takes a repetition for
// what it is, and another way to write the same item for a second one.
func (p *testPanel) RegisterStatusNotifierItem(service string, sender dbus.Sender) *dbus.Error {
	item := service + itemPath
	if strings.HasPrefix(service, "/") {
		item = string(sender) + service
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	for _, have := range p.items {
		if have == item {
			return nil
		}
	}
	p.setItems(append(p.items, item))
	return nil
}

// setItems is called with mu held.
func (p *testPanel) setItems(items []string) {
	p.items = items
	p.prop.SetMust(watcherName, "RegisteredStatusNotifierItems", append([]string{}, items...))
}

// forget loses all icons, as panels do after a sleep.
func (p *testPanel) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setItems(nil)
}

func (p *testPanel) listed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.items...)
}

// item waits for the one icon and returns the name of its process on the bus.
func (p *testPanel) item(t *testing.T) string {
	t.Helper()
	until(t, "an icon in the panel", func() bool { return len(p.listed()) > 0 })
	name, _, _ := strings.Cut(p.listed()[0], "/")
	return name
}
