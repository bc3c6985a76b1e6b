//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// maxQueued is how many lines wait for the serial line: 40 s of ticks.
const maxQueued = 4096

// maxLine bounds a command line, in bytes.
const maxLine = 256

// output queues whole lines for the serial line. Who prints never waits for it:
// a console that nobody reads must not slow the witnesses down, so lines beyond
// the queue are counted and dropped.
type output struct {
	w       io.Writer
	lines   chan string
	dropped atomic.Uint64
}

func newOutput(w io.Writer) *output {
	return &output{w: w, lines: make(chan string, maxQueued)}
}

// Printf queues one line; it is safe for concurrent use.
func (o *output) Printf(format string, args ...any) {
	select {
	case o.lines <- fmt.Sprintf(format, args...) + "\n":
	default:
		o.dropped.Add(1)
	}
}

func (o *output) serve(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-o.lines:
			if _, err := io.WriteString(o.w, l); err != nil {
				return fmt.Errorf("write serial line: %w", err)
			}
		}
	}
}

// readLines hands over each line that comes in, without its end, and closes
// lines at the end of input. What is longer than maxLine is cut into several
// lines, which then aren't commands.
func readLines(ctx context.Context, r io.Reader, lines chan<- string) {
	defer close(lines)
	br := bufio.NewReaderSize(r, maxLine)
	for {
		l, _, err := br.ReadLine()
		if err != nil {
			return
		}
		select {
		case lines <- string(l):
		case <-ctx.Done():
			return
		}
	}
}
