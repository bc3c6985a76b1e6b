//go:build tagalonghold

package holdpoint

import (
	"bufio"
	"context"
	"net"
	"path/filepath"
	"testing"
)

func TestAtWaitsForLeave(t *testing.T) {
	t.Setenv("TAGALONG_HOLD", "")
	At(t.Context(), "nobody asks")
	path := filepath.Join(t.TempDir(), "hold")
	t.Setenv("TAGALONG_HOLD", path)
	At(t.Context(), "nobody listens")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, how := range []string{"answered", "hung up", "called off"} {
		ctx, cancel := context.WithCancel(t.Context())
		went := make(chan struct{})
		go func() {
			defer close(went)
			At(ctx, Switchover)
		}()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		said, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || said != Switchover+"\n" {
			t.Fatalf("%s: it said %q, %v", how, said, err)
		}
		select {
		case <-went:
			t.Fatalf("it went on before it was %s", how)
		default:
		}
		switch how {
		case "answered":
			_, err = conn.Write([]byte{'\n'})
		case "hung up":
			err = conn.Close()
		default:
			cancel()
		}
		if err != nil {
			t.Fatal(err)
		}
		<-went
		cancel()
		_ = conn.Close()
	}
}
