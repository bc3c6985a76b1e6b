package qemu

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/app/hypervisor"
)

// tapFlags make a network card whose packets are a process's to read and write. Offloading (IFF_VNET_HDR) is left out on purpose:
// the guest would see it, and then couldn't move to a device where its network is QEMU's own.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI

// bridged is the guest's end of a network bridge, made here if this process may, else by QEMU's helper. It is gone with the last
// process that has its file. Errors: hypervisor.ErrNoBridge.
func bridged(binary, bridge string) (netdev string, files inherited, err error) {
	if err := checkBridge(bridge); err != nil {
		return "", nil, fmt.Errorf("%w: %w", hypervisor.ErrNoBridge, err)
	}
	tap, err := makeTap(bridge)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		tap, err = askHelper(binary, bridge)
	}
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", hypervisor.ErrNoBridge, err)
	}
	return "tap,id=net0,fd=3", inherited{tap}, nil
}

// TryBridge says whether a guest could be put on the bridge now, by doing so without a guest. Errors: hypervisor.ErrNoBridge.
func (q *QEMU) TryBridge(bridge string) error {
	path, err := exec.LookPath(q.binary())
	if err != nil {
		return fmt.Errorf("%w: %w", hypervisor.ErrMissing, err)
	}
	_, files, err := bridged(path, bridge)
	files.close()
	return err
}

// others are the beginnings of the names that programs give to bridges of their own, which lead nowhere else.
var others = []string{"virbr", "docker", "br-", "lxcbr", "lxdbr", "incusbr", "podman", "cni"}

// Bridges are this device's network bridges that may lead to its network, in order.
func (q *QEMU) Bridges() []string {
	all, err := filepath.Glob("/sys/class/net/*/bridge")
	if err != nil {
		return nil
	}
	var list []string
	for _, path := range all {
		name := filepath.Base(filepath.Dir(path))
		if !slices.ContainsFunc(others, func(o string) bool { return strings.HasPrefix(name, o) }) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func checkBridge(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/, \t\n") || name == "." || name == ".." {
		return fmt.Errorf("%q can't be a bridge's name", name)
	}
	if _, err := os.Stat(filepath.Join("/sys/class/net", name, "bridge")); err != nil {
		return fmt.Errorf("there is no bridge %q on this device", name)
	}
	return nil
}

// makeTap makes a network card on the bridge. It takes the right to change the network (CAP_NET_ADMIN).
func makeTap(bridge string) (_ *os.File, err error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	// From here on it ends with the file.
	tap := os.NewFile(uintptr(fd), "/dev/net/tun")
	defer func() {
		if err != nil {
			tap.Close()
		}
	}()
	card, err := unix.NewIfreq("tagtap%d") // the kernel counts
	if err != nil {
		return nil, err
	}
	card.SetUint16(tapFlags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, card); err != nil {
		return nil, fmt.Errorf("make a network card: %w", err)
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(sock)
	name := card.Name()
	if err := hideAddress(sock, name); err != nil {
		return nil, fmt.Errorf("set a network card's address: %w", err)
	}
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	port, err := unix.NewIfreq(bridge)
	if err != nil {
		return nil, err
	}
	port.SetUint32(uint32(link.Index))
	if err := unix.IoctlIfreq(sock, unix.SIOCBRADDIF, port); err != nil {
		return nil, fmt.Errorf("put a network card on %s: %w", bridge, err)
	}
	up, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	up.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, up); err != nil {
		return nil, fmt.Errorf("switch a network card on: %w", err)
	}
	return tap, nil
}

// hideAddress gives the card an address so high that the bridge doesn't take it over as its own: it takes the lowest of its cards,
// and whoever talks to this device would lose it for a while.
func hideAddress(sock int, name string) error {
	request := struct {
		name   [unix.IFNAMSIZ]byte
		family uint16
		addr   [14]byte
		_      [8]byte
	}{family: unix.ARPHRD_ETHER}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	if _, err := rand.Read(request.addr[1:6]); err != nil {
		return err
	}
	request.addr[0] = 0xfe
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(sock), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// askHelper has QEMU's setuid program make the card, which asks /etc/qemu/bridge.conf whether it may.
func askHelper(binary, bridge string) (*os.File, error) {
	helper := findHelper(binary)
	if helper == "" {
		return nil, errors.New("no right to change the network here, and QEMU's bridge helper isn't installed")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "helper"), os.NewFile(uintptr(pair[1]), "helper")
	defer ours.Close()
	cmd := exec.Command(helper, "--br="+bridge, "--fd=3")
	var said bytes.Buffer
	cmd.Stderr, cmd.ExtraFiles = &said, []*os.File{theirs}
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("%s refuses: %s", helper, bytes.TrimSpace(said.Bytes()))
	}
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("hear %s: %w", helper, err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return nil, fmt.Errorf("hear %s: %w", helper, err)
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("%s hands over nothing", helper)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, fmt.Errorf("hear %s: %w", helper, err)
	}
	if len(fds) != 1 {
		return nil, fmt.Errorf("%s hands over %d files", helper, len(fds))
	}
	return os.NewFile(uintptr(fds[0]), "tap"), nil
}

// findHelper is QEMU's helper, where distributions put it; "" if there is none.
func findHelper(binary string) string {
	prefix := filepath.Join(filepath.Dir(binary), "..")
	for _, dir := range []string{"lib/qemu", "libexec", "libexec/qemu", "lib"} {
		path := filepath.Join(prefix, dir, "qemu-bridge-helper")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}
