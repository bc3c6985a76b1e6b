//go:build linux

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// runAs makes this test binary a program with another purpose.
const runAs = "TAGALONG_LAB_TEST_RUN_AS"

func TestMain(m *testing.M) {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(runAs) == "victim" {
		victim()
	}
	goleak.VerifyTestMain(m)
}

// victim makes a lab with something running on it, says so, and waits to be
// killed.
func victim() {
	l, err := New(context.Background(), "a", "b")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := l.Host("a").Command(context.Background(), "sleep", "600")
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.sites[0].hub, cmd.Process.Pid)
	select {}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func open(t *testing.T, names ...string) *Lab {
	t.Helper()
	l, err := New(deadline(t), names...)
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

// listen makes a TCP port on h that answers whoever comes with h's name.
func listen(t *testing.T, h *Host) netip.AddrPort {
	t.Helper()
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(h.Addr(), 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, h.Name())
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// dial asks who answers at an address, from h.
func dial(h *Host, to netip.AddrPort, timeout time.Duration) (string, error) {
	var c net.Conn
	err := h.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: timeout}).Dial("tcp", to.String())
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

// eventually dials until it works.
func eventually(t *testing.T, h *Host, to netip.AddrPort) string {
	t.Helper()
	ctx := deadline(t)
	for {
		name, err := dial(h, to, time.Second)
		if err == nil {
			return name
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestHostsReachEachOtherUntilTheCableIsCut(t *testing.T) {
	l := open(t, "a", "b", "c")
	a, b, c := l.Host("a"), l.Host("b"), l.Host("c")
	if b.Addr() != netip.MustParseAddr("10.97.0.2") || l.Host("d") != nil || len(l.Hosts()) != 3 {
		t.Fatalf("hosts %v", l.Hosts())
	}
	addr := listen(t, b)
	if got := eventually(t, a, addr); got != "b" {
		t.Fatalf("%s answered", got)
	}
	if got := eventually(t, b, addr); got != "b" {
		t.Fatalf("%s answered itself", got)
	}

	for _, cut := range []struct {
		name string
		do   func(context.Context) error
	}{{"cut", b.Cut}, {"muted", b.Mute}} {
		if err := cut.do(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if name, err := dial(a, addr, 300*time.Millisecond); err == nil {
			t.Fatalf("%s: %s answers", cut.name, name)
		}
		if err := b.Heal(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if got := eventually(t, c, addr); got != "b" {
			t.Fatalf("healed after %s: %s answered", cut.name, got)
		}
	}
}

// What mDNS needs: a packet to the group reaches the others, sent without
// naming an interface.
func TestMulticastPasses(t *testing.T) {
	l := open(t, "a", "b")
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	var in *net.UDPConn
	err := l.Host("b").Do(func() error {
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		in, err = net.ListenMulticastUDP("udp4", ifi, group)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out net.Conn
	err = l.Host("a").Do(func() (err error) {
		out, err = net.Dial("udp4", group.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()

	ctx := deadline(t)
	b := make([]byte, 100)
	for ctx.Err() == nil {
		if _, err := io.WriteString(out, "who is there"); err != nil {
			t.Fatal(err)
		}
		if err := in.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, from, err := in.ReadFromUDPAddrPort(b)
		if err != nil {
			continue
		}
		if string(b[:n]) != "who is there" || from.Addr().Unmap() != l.Host("a").Addr() {
			t.Fatalf("%q from %v", b[:n], from)
		}
		return
	}
	t.Fatal("nothing arrived")
}

func TestCommandsRunOnTheHost(t *testing.T) {
	l := open(t, "a", "b")
	out, err := l.Host("b").Command(deadline(t), "sh", "-c", "ls /sys/class/net; ip -4 -brief addr show dev eth0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := strings.Fields(string(out)); len(got) < 5 || got[0] != "eth0" || got[1] != "lo" || got[4] != "10.97.0.2/24" {
		t.Errorf("on the host: %q", out)
	}
}

// A lab whose process was killed is removed by the next one, with what ran on
// it; a living one is left alone.
func TestSweepRemovesWhatTheDeadHaveLeft(t *testing.T) {
	mine := open(t, "a")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), runAs+"=victim")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	hub, word, _ := strings.Cut(strings.TrimSpace(line), " ")
	left, err := strconv.Atoi(word)
	if err != nil {
		t.Fatal(err)
	}

	if err := Sweep(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(netnsDir + "/" + hub); err != nil {
		t.Errorf("the lab of a living process: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the victim ended by itself")
	}
	if err := Sweep(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(netnsDir + "/" + hub); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lab of a dead process: %v", err)
	}
	waitDead(t, left)
	if _, err := os.Stat(netnsDir + "/" + mine.sites[0].hub); err != nil {
		t.Errorf("my own lab: %v", err)
	}
}

// waitDead waits until a process is gone or nobody has collected it yet.
func waitDead(t *testing.T, pid int) {
	t.Helper()
	ctx := deadline(t)
	for {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("process %d lives", pid)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestCloseKillsWhatRuns(t *testing.T) {
	l, err := New(deadline(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	cmd := l.Host("a").Command(deadline(t), "sh", "-c", "echo up; sleep 600")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
		t.Errorf("it ended with %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if err := l.hosts[0].Do(func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a host after Close: %v", err)
	}
}

func TestNewRefusesBadNames(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  error
	}{
		{[]string{"a", "a"}, ErrName},
		{[]string{""}, ErrName},
		{[]string{"../x"}, ErrName},
		{[]string{"A"}, ErrName},
		{[]string{strings.Repeat("a", 33)}, ErrName},
		{make([]string, maxHosts+1), ErrTooMany},
	} {
		if l, err := New(deadline(t), c.names...); !errors.Is(err, c.want) {
			t.Errorf("%q: %v, %v", c.names, l, err)
		}
	}
}
