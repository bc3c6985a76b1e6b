//go:build unix && !darwin

package ui

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"tagalong.org/tagalong/app/api"
)

func TestFindDisplay(t *testing.T) {
	for _, d := range []string{"", "nonsense", ":", ":x", ":-1", ":99999999999999999999", ":64999", "127.0.0.1:59000.0", "a:b:c"} {
		if err := findDisplay(d); !errors.Is(err, &api.Error{Code: api.CodeUsage}) {
			t.Errorf("display %q: %v", d, err)
		}
	}
	// A number that no X server has; its socket is an abstract one, so it leaves nothing behind.
	number := 20000 + os.Getpid()%30000
	l, err := net.Listen("unix", fmt.Sprintf("@/tmp/.X11-unix/X%d", number))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, d := range []string{":%d", ":%d.0", "unix:%d.1"} {
		if err := findDisplay(fmt.Sprintf(d, number)); err != nil {
			t.Errorf("display %s: %v", d, err)
		}
	}
}

func FuzzDialDisplay(f *testing.F) {
	for _, s := range []string{"", ":", ":0x", "::", "[::1]", ":.", "\x00:70000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// Only what can't name a display: connecting anywhere is not this test's to do.
		for _, r := range s {
			if r >= '0' && r <= '9' {
				return
			}
		}
		if dialDisplay(s) == nil {
			t.Errorf("%q is a display", s)
		}
	})
}
