package viewer

import (
	"fmt"
	"strings"

	"tagalong.org/tagalong/app/api"
)

// connection is what remote-viewer is told.
type connection struct {
	Protocol string // api.ScreenSPICE or api.ScreenVNC
	Socket   string // Unix socket, with SPICE
	Port     int    // on the loopback, with VNC
	Password string
	Title    string
}

// file is the connection as remote-viewer reads it: a key file of GLib.
func (c connection) file() ([]byte, error) {
	var b strings.Builder
	b.WriteString("[virt-viewer]\n")
	put := func(key, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(&b, "%s=%s\n", key, keyFileValue(value))
		}
	}
	switch c.Protocol {
	case api.ScreenSPICE:
		put("type", "spice")
		put("unix-path", c.Socket)
	case api.ScreenVNC:
		put("type", "vnc")
		put("host", "127.0.0.1")
		put("port", fmt.Sprint(c.Port))
	default:
		return nil, fmt.Errorf("viewer: a screen that speaks %.20q", c.Protocol)
	}
	put("password", c.Password)
	put("title", c.Title)
	put("delete-this-file", "1")
	return []byte(b.String()), nil
}

// keyFileValue escapes what has a meaning in GLib's key files.
func keyFileValue(s string) string {
	s = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s)
	if strings.HasPrefix(s, " ") {
		s = `\s` + s[1:]
	}
	return s
}
