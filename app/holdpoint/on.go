//go:build tagalonghold

package holdpoint

import (
	"context"
	"net"
	"os"
)

// At says that the engine has come to a step, and waits for leave to go on, or for ctx.
func At(ctx context.Context, step string) {
	path := os.Getenv("TAGALONG_HOLD")
	if path == "" {
		return
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write([]byte(step + "\n")); err != nil {
		return
	}
	// Whatever comes is leave.
	_, _ = conn.Read(make([]byte, 1))
}
