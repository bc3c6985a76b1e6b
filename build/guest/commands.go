//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tagalong.org/tagalong/build/guest/records"
)

// Limits of what the rate command takes.
const (
	maxRecords = 5000 // a second
	maxFsync   = records.MaxUnsynced
	maxMemRate = 4096 // MiB a second
	maxMemSet  = 8192 // MiB
)

// commands answers the lines that come in, one after the other.
type commands struct {
	out   *output
	disks *disks
	ram   *ram
	clock *clock
	echo  *echo
	efi   *efi
	root  string // where the archive is that unpack unpacks
	tag   string // of the command at hand, to end its answer with
}

// errLineGone ends the program when the serial line does.
var errLineGone = errors.New("serial line is gone")

func (c *commands) serve(ctx context.Context, lines <-chan string) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l, ok := <-lines:
			if !ok {
				return errLineGone
			}
			c.do(l)
		}
	}
}

// answer prints a line that ends with the command's tag, so that who asked twice
// knows which answer is to which question.
func (c *commands) answer(format string, args ...any) {
	c.out.Printf("%s%s", fmt.Sprintf(format, args...), c.tag)
}

func (c *commands) do(line string) {
	f := strings.Fields(line)
	c.tag = ""
	if n := len(f); n > 0 && strings.HasPrefix(f[n-1], "#") {
		c.tag, f = " "+f[n-1], f[:n-1]
	}
	if len(f) == 0 {
		return
	}
	switch f[0] {
	case "status":
		c.answer("S ready %s %s dropped=%d", c.disks.first.state(), c.ram.state(), c.out.dropped.Load())
	case "boot":
		c.answer("%s", c.disks.first.bootLine())
	case "verify":
		c.verify()
	case "clock":
		c.answer("C %d", time.Now().UnixMicro())
	case "ticks":
		r := c.clock.log.Report()
		c.answer("K ticks=%d missing=%d doubled=%d gaps=%d maxgap_us=%d", r.Ticks, r.Missing, r.Doubled, r.Gaps, r.MaxGap)
	case "rate":
		c.rate(f[1:])
	case "net":
		if err := c.echo.begin(strings.Join(f[1:], " ")); err != nil {
			c.answer("E net: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
			return
		}
		c.answer("OK net")
	case "efi":
		c.firmware(f[1:])
	case "disks":
		if err := c.disks.begin(); err != nil {
			c.answer("E disks: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
			return
		}
		c.answer("OK disks %s", c.disks.boot())
	case "sync":
		c.answer("OK sync %s", c.disks.sync())
	case "stop":
		c.answer("OK stop %s", c.disks.setStopped(true))
	case "start":
		c.answer("OK start %s", c.disks.setStopped(false))
	case "unpack":
		files, bytes, took, err := unpack(c.root, filepath.Join(c.root, "data", "unpacked"))
		if err != nil {
			c.answer("E unpack: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
			return
		}
		c.answer("OK unpack files=%d bytes=%d us=%d", files, bytes, took.Microseconds())
	case "poweroff":
		c.answer("OK poweroff %s", c.disks.setStopped(true))
		if err := powerOff(); err != nil {
			c.out.Printf("BAD power off: %v", err)
		}
	default:
		c.answer("E unknown command %q", f[0])
	}
}

// firmware keeps a word in the firmware's variables, or reads it.
func (c *commands) firmware(words []string) {
	var word string
	var err error
	if len(words) > 0 {
		err = c.efi.write(words[0])
	} else {
		word, err = c.efi.read()
	}
	if err != nil {
		c.answer("E efi: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	c.answer("OK efi %s", word)
}

func (c *commands) verify() {
	all := c.disks.all()
	rep, err := all[0].verify()
	var further strings.Builder
	for _, d := range all[1:] {
		r, lookErr := d.verify()
		if r.First != "" {
			c.out.Printf("BAD disk%s: %s", d.label(), r.First)
		}
		if lookErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", d.name, lookErr))
		}
		rep.Lost, rep.Bad = rep.Lost+r.Lost, rep.Bad+r.Bad
		fmt.Fprintf(&further, " %s=%d", d.name, r.Last)
	}
	pages, badPages := c.ram.verify()
	ticks := c.clock.log.Report()
	fs, fsErr := fsErrors()
	word := "ok"
	if err = errors.Join(err, fsErr); err != nil || !rep.OK() || badPages > 0 || !ticks.OK() || fs > 0 {
		word = "bad"
	}
	if rep.First != "" {
		c.out.Printf("BAD disk: %s", rep.First)
	}
	if err != nil {
		c.out.Printf("BAD verify: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	c.answer("V %s records=%d last=%d bad=%d lost=%d mem_pages=%d mem_bad=%d fs_errors=%d ticks=%d missing=%d gaps=%d maxgap_us=%d%s",
		word, rep.Records, rep.Last, rep.Bad, rep.Lost, pages, badPages, fs, ticks.Ticks, ticks.Missing, ticks.Gaps, ticks.MaxGap, further.String())
}

// rate changes what is named and leaves the rest.
func (c *commands) rate(args []string) {
	recs, fsync, _ := c.disks.first.settings()
	c.ram.mu.Lock()
	mem, set, noise := c.ram.rate, c.ram.size, 0
	if c.ram.noise {
		noise = 1
	}
	c.ram.mu.Unlock()
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		var err error
		switch name {
		case "recs":
			recs, err = number(value, 0, maxRecords)
		case "fsync":
			fsync, err = number(value, 1, maxFsync)
		case "mem":
			mem, err = number(value, 0, maxMemRate)
		case "set":
			set, err = number(value, 1, maxMemSet)
		case "noise":
			noise, err = number(value, 0, 1)
		default:
			err = errors.New("unknown setting")
		}
		if err != nil {
			c.answer("E rate %s: %v", a, err)
			return
		}
	}
	c.disks.setRate(recs, fsync)
	if err := c.ram.resize(mem, set, noise == 1); err != nil {
		c.answer("E rate: %v", err)
		return
	}
	c.answer("OK rate recs=%d fsync=%d mem=%d set=%d noise=%d", recs, fsync, mem, set, noise)
}

func number(s string, low, high int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errors.New("not a number")
	}
	if n < low || n > high {
		return 0, fmt.Errorf("not from %d to %d", low, high)
	}
	return n, nil
}
