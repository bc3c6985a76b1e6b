package surroundings

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
)

// testBus is a message bus as systems have one; kill ends it.
type testBus struct {
	address string
	cmd     *exec.Cmd
}

func startBus(t *testing.T, args ...string) *testBus {
	t.Helper()
	cmd := exec.Command("dbus-daemon", append([]string{"--session", "--nofork", "--print-address"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need a dbus-daemon: %v", err)
	}
	b := &testBus{cmd: cmd}
	t.Cleanup(b.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the bus said nothing: %v", err)
	}
	b.address = strings.TrimSpace(line)
	return b
}

func (b *testBus) kill() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
}

// testManager is a NetworkManager with two devices, wlan9 and usb9.
type testManager struct {
	t       *testing.T
	conn    *dbus.Conn
	overall *prop.Properties
	devices map[string]*prop.Properties
	asked   chan struct{}
}

// GetDeviceByIpIface is called over the bus.
func (m *testManager) GetDeviceByIpIface(name string) (dbus.ObjectPath, *dbus.Error) {
	select {
	case m.asked <- struct{}{}:
	default:
	}
	if m.devices[name] == nil {
		return "", dbus.NewError(managerName+".UnknownDevice", nil)
	}
	return managerPath + "/Devices/" + dbus.ObjectPath(name), nil
}

func startManager(t *testing.T, bus *testBus) *testManager {
	t.Helper()
	conn, err := dbus.Connect(bus.address)
	if err != nil {
		t.Fatal(err)
	}
	m := &testManager{t: t, conn: conn, devices: map[string]*prop.Properties{}, asked: make(chan struct{}, 1)}
	t.Cleanup(m.stop)
	export := func(path dbus.ObjectPath, iface string) *prop.Properties {
		p, err := prop.Export(conn, path, prop.Map{iface: {
			"Metered":  {Value: uint32(0), Emit: prop.EmitTrue},
			"Strength": {Value: uint32(0), Emit: prop.EmitTrue},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	m.overall = export(managerPath, managerName)
	for _, name := range []string{"wlan9", "usb9"} {
		m.devices[name] = export(managerPath+"/Devices/"+dbus.ObjectPath(name), deviceName)
	}
	if err := conn.Export(m, managerPath, managerName); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(managerName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own the manager's name: %v, %v", reply, err)
	}
	return m
}

func (m *testManager) stop() { _ = m.conn.Close() }

func (m *testManager) set(device string, to Metering) {
	if device == "" {
		m.overall.SetMust(managerName, "Metered", uint32(to))
		return
	}
	m.devices[device].SetMust(deviceName, "Metered", uint32(to))
}

// watching follows a bus and says what is told.
type watching struct {
	t    *testing.T
	told chan bool
	log  *safeBuffer

	mu  sync.Mutex
	way string
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func watch(t *testing.T, address string, set func(*meterWatch)) *watching {
	x := &watching{t: t, told: make(chan bool, 100), log: &safeBuffer{}, way: "wlan9"}
	w := &meterWatch{
		connect: func(o ...dbus.ConnOption) (*dbus.Conn, error) { return dbus.Connect(address, o...) },
		way: func() string {
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.way
		},
		log: slog.New(slog.NewTextHandler(x.log, nil)), again: time.Hour, grace: time.Hour, patience: time.Minute,
	}
	if set != nil {
		set(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { w.run(ctx, func(m bool) { x.told <- m }) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return x
}

// next waits for the next word.
func (x *watching) next(want bool) {
	x.t.Helper()
	select {
	case got := <-x.told:
		if got != want {
			x.t.Fatalf("metered: %v, want %v", got, want)
		}
	case <-time.After(time.Minute):
		x.t.Fatalf("waited in vain to hear metered: %v", want)
	}
}

// A change is heard of by its signal: nobody asks again within the hour.
func TestMeteredFollowsTheNetworkManager(t *testing.T) {
	bus := startBus(t)
	m := startManager(t, bus)
	m.set("wlan9", MeteringGuessNo)
	x := watch(t, bus.address, nil)
	x.next(false)
	m.set("wlan9", MeteringGuessYes)
	x.next(true)
	m.set("usb9", MeteringYes) // isn't the way
	m.set("wlan9", MeteringNo)
	x.next(false)
	m.set("wlan9", MeteringUnknown)
	m.set("", MeteringYes)
	x.next(true)
	m.set("wlan9", MeteringNo) // the device's own word counts
	x.next(false)
	x.mu.Lock()
	x.way = "tun9" // nobody's device
	x.mu.Unlock()
	m.overall.SetMust(managerName, "Strength", uint32(1)) // isn't about that
	m.set("", MeteringGuessYes)
	x.next(true)
	if len(x.told) > 0 {
		t.Errorf("and %v", <-x.told)
	}
}

// The way may change without a word of the manager.
func TestMeteredFollowsTheWay(t *testing.T) {
	bus := startBus(t)
	m := startManager(t, bus)
	m.set("usb9", MeteringYes)
	x := watch(t, bus.address, func(w *meterWatch) { w.again = 10 * time.Millisecond })
	x.next(false)
	x.mu.Lock()
	x.way = "usb9"
	x.mu.Unlock()
	x.next(true)
}

// Without a manager nothing is metered, and the log says so once; one that comes later is heard.
func TestNoNetworkManager(t *testing.T) {
	bus := startBus(t)
	x := watch(t, bus.address, func(w *meterWatch) { w.again, w.grace = 5*time.Millisecond, 0 })
	x.next(false)
	m := startManager(t, bus)
	m.set("", MeteringYes)
	x.next(true)
	m.stop()
	x.next(false)
	bus.kill()
	if n := strings.Count(x.log.String(), "Nobody tells whether"); n != 2 { // at first, and after it had gone
		t.Errorf("said %d times:\n%s", n, x.log)
	}
}

// A manager that starts again doesn't make a telephone's connection free.
func TestAManagerThatStartsAgain(t *testing.T) {
	bus := startBus(t)
	m := startManager(t, bus)
	m.set("", MeteringYes)
	x := watch(t, bus.address, func(w *meterWatch) { w.again = 5 * time.Millisecond })
	x.next(true)
	m.stop()
	for end := time.Now().Add(time.Minute); !strings.Contains(x.log.String(), "Nobody tells"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody noticed")
		}
	}
	m = startManager(t, bus)
	m.set("", MeteringNo)
	for range 2 {
		<-m.asked
	}
	x.next(false)
	if len(x.told) > 0 {
		t.Errorf("and %v", <-x.told)
	}
}

// A bus that isn't there, or goes, is looked for again.
func TestNoBus(t *testing.T) {
	dir := t.TempDir()
	address := "unix:path=" + dir + "/bus"
	x := watch(t, address, func(w *meterWatch) { w.again, w.grace = 5*time.Millisecond, 0 })
	x.next(false)
	for range 2 {
		bus := startBus(t, "--address="+address)
		m := startManager(t, bus)
		m.set("wlan9", MeteringYes)
		x.next(true)
		bus.kill()
		x.next(false)
	}
}

func TestWhoseWordCounts(t *testing.T) {
	const u, y, n, gy, gn = MeteringUnknown, MeteringYes, MeteringNo, MeteringGuessYes, MeteringGuessNo
	for _, c := range []struct {
		device, overall Metering
		want            bool
	}{
		{u, u, false}, {u, y, true}, {u, gy, true}, {u, n, false}, {u, gn, false}, {y, n, true}, {y, u, true}, {n, y, false}, {n, gy, false},
		{gy, n, true}, {gy, u, true}, {gn, y, true}, {gn, gy, true}, {gn, gn, false}, {99, u, false}, {u, 99, false},
	} {
		if got := metered(c.device, c.overall); got != c.want {
			t.Errorf("%d, %d: %v", c.device, c.overall, got)
		}
	}
}
