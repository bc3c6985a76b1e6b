//go:build linux

// Command guest runs inside the test guest and bears witness: of time (a tick
// every 10 ms on the serial line), of the disk (sequence-numbered, checksummed
// records, and what was promised about them) and of memory (stamped pages).
// What it finds wrong it says by itself in a line that starts with BAD.
//
// What it guarantees: a number printed as durable in an R line was covered by an
// fsync that had succeeded; after any crash the next start checks every record
// that had to survive and says so in its BOOT line. What it does not: it sees
// pauses by its own clock only, which stands still when the guest does; package
// console measures them from outside.
//
// Lines it prints:
//
//	BOOT n=… last=… durable=… lost=… bad=… run=…   what the disk held at the start
//	READY                                          commands are taken from now on
//	T <n> <mono_us> <wall_us>                      a tick
//	R <seq> <durable>                              records written, records durable
//	AGENT …                                        why the port of the guest agent failed
//	BAD …                                          something is wrong
//
// If the guest has the port of the guest agent, it answers there as qemu-ga does to questions about the clock.
//
// Commands, one a line, and their answers: status (S …), boot (BOOT …), verify
// (V ok … or V bad …), ticks (K …), clock (C and the microseconds since 1970), rate recs= fsync= mem= set= noise= (OK …), sync,
// start, stop, poweroff, disks (OK disks disks=… lost=… bad=… vdb=…: from then on all disks but the first are overwritten with records, and checked, as
// the first is; their newest ones then follow in the answers to sync, start, stop, poweroff and verify, which counts what is lost or bad on any), net 10.0.0.7/24 (OK net: from then on the guest has that address and sends back what it
// gets at port 7, UDP and TCP), efi WORD (OK efi: kept in the firmware's variables), efi (OK efi WORD), and unpack of the archive in the root folder, if the
// image has one (OK …); anything else gets E …. If the last word of a
// command starts with #, its answer ends with that word.
//
// Test it with: go test ./build/guest/... (the boot test needs QEMU and what
// build/deps.sh guest installs).
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// tickEvery is the time between two ticks.
const tickEvery = 10 * time.Millisecond

func main() {
	port := "/dev/ttyS0"
	dir := "/data"
	if len(os.Args) == 3 {
		port, dir = os.Args[1], os.Args[2]
	}
	serial, err := openSerial(port)
	if err != nil {
		fmt.Fprintln(os.Stderr, "BAD open serial line:", err)
		os.Exit(1)
	}
	if err := run(context.Background(), serial, dir); err != nil {
		fmt.Fprintf(serial, "BAD %v\n", err)
		os.Exit(1)
	}
}

// run is the whole program on an open line; it ends with ctx, with the line, or
// when the guest goes down.
func run(ctx context.Context, serial io.ReadWriter, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := newOutput(serial)
	disk, err := openDisk(dir, out)
	if err != nil {
		return fmt.Errorf("open disk witness: %w", err)
	}
	defer disk.close()
	ram, err := newRAM(out, defaultMemRate, defaultMemSet)
	if err != nil {
		return fmt.Errorf("open memory witness: %w", err)
	}
	clock := newClock(out)
	out.Printf("%s", disk.bootLine())

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return out.serve(ctx) })
	g.Go(func() error { return clock.serve(ctx) })
	g.Go(func() error { return disk.serve(ctx) })
	g.Go(func() error { return ram.serve(ctx) })
	g.Go(func() error { return watchPowerButton(ctx, out) })
	g.Go(func() error { return serveAgent(ctx, out) })
	all := &disks{first: disk, out: out, dev: "/dev", ctx: ctx, goes: g.Go}
	defer all.close()
	c := &commands{out: out, disks: all, ram: ram, clock: clock, echo: &echo{ctx: ctx, goes: g.Go}, efi: &efi{}, root: "/"}
	// Reading the line cannot be interrupted, so it isn't waited for: the
	// process ends with it.
	lines := make(chan string)
	go readLines(ctx, serial, lines)
	g.Go(func() error { return c.serve(ctx, lines) })
	out.Printf("READY")
	return g.Wait()
}
