//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An input event of the kernel: time (16 bytes), type, code, value.
const (
	eventSize  = 24
	eventKey   = 1
	keyPower   = 116
	keyPressed = 1
)

// powerOff asks init to go down in good order.
func powerOff() error {
	unix.Sync()
	out, err := exec.Command("/bin/busybox", "poweroff").CombinedOutput()
	if err != nil {
		return fmt.Errorf("poweroff: %w: %s", err, out)
	}
	return nil
}

// watchPowerButton goes down in good order when the power button is pressed. A
// guest without one is told by a missing answer, not by an error.
func watchPowerButton(ctx context.Context, out *output) error {
	pressed := make(chan struct{}, 1)
	names, err := filepath.Glob("/dev/input/event*")
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			out.Printf("BAD power button: %v", err)
			continue
		}
		stop := context.AfterFunc(ctx, func() { f.Close() })
		defer stop()
		// It ends when the file is closed, which ctx does.
		go waitForKey(f, pressed)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pressed:
	}
	out.Printf("POWER button")
	if err := powerOff(); err != nil {
		out.Printf("BAD power off: %v", err)
	}
	<-ctx.Done()
	return ctx.Err()
}

func waitForKey(f *os.File, pressed chan<- struct{}) {
	b := make([]byte, eventSize*8)
	for {
		n, err := f.Read(b)
		if err != nil {
			return
		}
		for e := b[:n]; len(e) >= eventSize; e = e[eventSize:] {
			typ := binary.LittleEndian.Uint16(e[16:])
			code := binary.LittleEndian.Uint16(e[18:])
			value := binary.LittleEndian.Uint32(e[20:])
			if typ == eventKey && code == keyPower && value == keyPressed {
				select {
				case pressed <- struct{}{}:
				default:
				}
			}
		}
	}
}
