//go:build linux || darwin

package nbd

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// After a write that ended half-way, exactly what it left is still to be written.
func TestAdvance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list net.Buffers
		var all []byte
		for i := range rapid.IntRange(1, 8).Draw(t, "pieces") {
			p := bytes.Repeat([]byte{byte(i)}, rapid.IntRange(1, 5).Draw(t, "length"))
			list, all = append(list, p), append(all, p...)
		}
		for len(all) > 0 {
			n := rapid.IntRange(1, len(all)).Draw(t, "written")
			list, all = advance(list, n), all[n:]
			if got := bytes.Join(list, nil); !bytes.Equal(got, all) {
				t.Fatalf("%v is left, want %v", got, all)
			}
		}
		if len(list) != 0 {
			t.Fatalf("%d pieces of nothing are left", len(list))
		}
	})
}

// More pieces than the system takes at once arrive, in order.
func TestLongVector(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, other := fdWire{fds[0]}, os.NewFile(uintptr(fds[1]), "other end")
	var list net.Buffers
	var want []byte
	for i := range 3 * maxVector {
		p := bytes.Repeat([]byte{byte(i)}, 1+i%300)
		list, want = append(list, p), append(want, p...)
	}
	done := make(chan error, 1)
	go func() {
		done <- w.writev(&list)
		w.close()
	}()
	got, err := io.ReadAll(other)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	if err := wait(t, done); err != nil {
		t.Error(err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}
