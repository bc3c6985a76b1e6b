package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	forwardPiece = 64 << 10 // of the memory stream: what a hypervisor's socket holds
	returnPiece  = 16 << 10 // of the return path, which is a few bytes now and then
)

// Pipe copies between a and b in both directions until both have ended, and
// closes both. What goes from a to b passes the gate: while it is parked, a is
// not read at all, so that a's own writer is held back. count, if not nil, is
// called with the number of bytes of each piece after it was written to b, from
// one goroutine. The end of one direction is passed on by CloseWrite, if the
// other side has it. The first error of either direction, or the end of ctx,
// drops both sides (by Reset, if they have it) and is returned. While the gate
// is parked, the end of a goes unnoticed.
//
// Close (or Reset) of a and b must unblock their Read and Write.
func Pipe(ctx context.Context, a, b io.ReadWriteCloser, gate *Gate, count func(n int)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dropped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(dropped)
		drop(a)
		drop(b)
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := forward(ctx, b, a, gate, count); err != nil {
			cancel(fmt.Errorf("handoff: pipe: forward: %w", err))
		}
	})
	wg.Go(func() {
		if err := back(a, b); err != nil {
			cancel(fmt.Errorf("handoff: pipe: return path: %w", err))
		}
	})
	wg.Wait()
	if !stop() {
		<-dropped
		return context.Cause(ctx)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		return fmt.Errorf("handoff: pipe: close: %w", err)
	}
	return nil
}

func forward(ctx context.Context, to io.Writer, from io.Reader, gate *Gate, count func(int)) error {
	buf := make([]byte, forwardPiece)
	for {
		n, err := gate.allowance(ctx, len(buf))
		if err != nil {
			return err
		}
		n, rerr := from.Read(buf[:n])
		if n > 0 {
			gate.passed(buf[:n])
			if _, err := to.Write(buf[:n]); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			if count != nil {
				count(n)
			}
		}
		if rerr == io.EOF {
			return endWrite(to)
		}
		if rerr != nil {
			return fmt.Errorf("read: %w", rerr)
		}
	}
}

func back(to io.Writer, from io.Reader) error {
	buf := make([]byte, returnPiece)
	for {
		n, rerr := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		if rerr == io.EOF {
			// A hypervisor that is through may be gone, and then can't be told.
			_ = endWrite(to)
			return nil
		}
		if rerr != nil {
			return fmt.Errorf("read: %w", rerr)
		}
	}
}

// endWrite passes the end of a direction on.
func endWrite(w io.Writer) error {
	c, ok := w.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	if err := c.CloseWrite(); err != nil {
		return fmt.Errorf("close write side: %w", err)
	}
	return nil
}

// drop ends both directions at once.
func drop(c io.Closer) {
	if r, ok := c.(interface{ Reset() error }); ok {
		_ = r.Reset()
		return
	}
	_ = c.Close()
}
