package qemu

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onBridge says that this process is the part of a test that runs in a network of its own.
const onBridge = "TAGALONG_TEST_ON_BRIDGE"

// TestAGuestOnABridge runs the test of that name below on a computer with a bridge, which is made of namespaces and takes root.
func TestAGuestOnABridge(t *testing.T) {
	if os.Getenv(onBridge) != "" {
		announced(t)
		return
	}
	const inside = `mount -t sysfs sysfs /sys && ip link add br0 type bridge && ip link set br0 up && ip link add cable type veth peer name wall && ip link set cable master br0 up && exec "$0" -test.run 'TestAGuestOnABridge$' -test.v`
	cmd := exec.CommandContext(testContext(t), "unshare", "--net", "--mount", "sh", "-c", inside, os.Args[0])
	cmd.Env = append(os.Environ(), onBridge+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Fatalf("on the bridge: %v", err)
	}
}

// announced has a guest go on after a pause, as a giver's does after a switch that came to nothing: the network is told where it is.
func announced(t *testing.T) {
	ctx := testContext(t)
	q := &QEMU{Accel: "tcg"}
	if got := q.Bridges(); len(got) != 1 || got[0] != "br0" {
		t.Fatalf("the bridges are %v", got)
	}
	if err := q.TryBridge("br0"); err != nil {
		t.Fatal(err)
	}
	if links, err := net.Interfaces(); err != nil || len(links) != 4 {
		t.Errorf("after a try there are %v (%v)", links, err)
	}
	br, err := net.InterfaceByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	own := br.HardwareAddr.String()
	c := testConfig(t)
	c.Network, c.Bridge = true, "br0"
	g := start(t, ctx, q, c, false)
	if br, err := net.InterfaceByName("br0"); err != nil || own == "" || br.HardwareAddr.String() != own {
		t.Errorf("the bridge's address was %s and is %v (%v)", own, br, err)
	}
	const rarp = 0x8035
	wire := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, rarp))
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(wire))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	if err := unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
		t.Fatal(err)
	}
	if err := g.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.ReplaceAll(mac(c.VM), ":", ""))
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 2000)
	for end := time.Now().Add(60 * time.Second); ; {
		n, _, err := unix.Recvfrom(sock, frame, 0)
		if err == nil && n >= 14 && bytes.Equal(frame[6:12], want) {
			return
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("nobody was told where the guest is")
		}
	}
}
