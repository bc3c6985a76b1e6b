//go:build unix && !darwin

package ui

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// displayTime bounds the look for a display; one that takes longer couldn't be used either.
const displayTime = 5 * time.Second

// findDisplay makes sure that there is a display, because Fyne panics where there is none.
func findDisplay(display string) error {
	err := dialDisplay(display)
	if err == nil {
		return nil
	}
	return &api.Error{Code: api.CodeUsage, Sentence: t("display.none"), Next: t("display.none.next"), Cause: err.Error()}
}

func currentDisplay() string { return os.Getenv("DISPLAY") }

// dialDisplay connects to an X display named as in $DISPLAY, "[host]:number[.screen]".
func dialDisplay(display string) error {
	if display == "" {
		return errors.New("DISPLAY is not set")
	}
	colon := strings.LastIndexByte(display, ':')
	if colon < 0 {
		return fmt.Errorf("DISPLAY %q has no number", display)
	}
	host, number := display[:colon], display[colon+1:]
	number, _, _ = strings.Cut(number, ".")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n > 65535-6000 {
		return fmt.Errorf("DISPLAY %q has no number", display)
	}
	type door struct{ network, address string }
	path := fmt.Sprintf("/tmp/.X11-unix/X%d", n)
	doors := []door{{"unix", path}, {"unix", "@" + path}}
	if host != "" && host != "unix" {
		doors = []door{{"tcp", net.JoinHostPort(strings.Trim(host, "[]"), strconv.FormatUint(6000+n, 10))}}
	}
	for _, d := range doors {
		var conn net.Conn
		if conn, err = net.DialTimeout(d.network, d.address, displayTime); err == nil {
			_ = conn.Close()
			return nil
		}
	}
	return fmt.Errorf("connect to display %q: %w", display, err)
}
