package savedmemory

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/vmdisk"
)

// chunk is how much is written, or read, at a time, in bytes.
const chunk = 1 << 20

// maxWindow is how much of what was written before compression looks at, at most, in bytes; who reads needs as much memory.
const maxWindow = 8 * chunk

// Saving is one memory to be saved.
type Saving struct {
	// Volume is where. Nobody else uses it.
	Volume vmdisk.Disk
	// Header says what the memory belongs to; Save fills in the rest.
	Header Header
	// Dense stores it in less space, for more of the processor's time: for a memory that is about to cross a slow link.
	Dense bool
	// Write writes the memory.
	Write func(ctx context.Context, w io.Writer) error
	// Flush makes all that was written durable, as far as is asked for; nil is Volume.Flush.
	Flush func() error
	// Progress, if not nil, is called with how many bytes came and how many were stored.
	Progress func(raw, stored int64)
}

// Save stores a memory, durably. When it fails, nothing is saved, as far as the volume can still be written; what was stored of it should be
// trimmed (Discard). Errors: ErrTooLarge, ctx's, Write's, and the volume's (ENOSPC).
func Save(ctx context.Context, s Saving) (h Header, err error) {
	if s.Flush == nil {
		s.Flush = s.Volume.Flush
	}
	if err := Clear(s.Volume); err != nil {
		return h, err
	}
	out := &writer{ctx: ctx, to: s.Volume, off: dataAt, sum: blake3.New(), buf: make([]byte, 0, chunk)}
	level, window := zstd.SpeedFastest, chunk
	if s.Dense {
		level, window = zstd.SpeedBetterCompression, maxWindow
	}
	enc, err := zstd.NewWriter(out, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
	if err != nil {
		return h, fmt.Errorf("save the memory: %w", err)
	}
	in := &counted{to: enc, note: func(n int64) {
		if s.Progress != nil {
			s.Progress(n, out.off-dataAt)
		}
	}}
	if err := s.Write(ctx, in); err != nil {
		// What the volume said is the cause, whatever became of it on its way through the hypervisor.
		return h, fmt.Errorf("save the memory: %w", errors.Join(out.failed, err, enc.Close()))
	}
	if err := errors.Join(enc.Close(), out.flush()); err != nil {
		return h, fmt.Errorf("save the memory: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return h, fmt.Errorf("save the memory: %w", err)
	}
	if err := s.Volume.Flush(); err != nil {
		return h, fmt.Errorf("make the memory durable: %w", err)
	}
	h = s.Header
	h.Stored, h.Raw, h.Hash = out.off-dataAt, in.n, out.sum.Sum(nil)
	b, err := h.encode()
	if err != nil {
		return h, err
	}
	if err := s.Volume.WriteAt(b, 0, false); err != nil {
		return h, fmt.Errorf("write the header of the memory: %w", err)
	}
	if err := s.Flush(); err != nil {
		return h, errors.Join(fmt.Errorf("make the memory durable: %w", err), Clear(s.Volume))
	}
	return h, nil
}

// Clear makes it durable that no memory is saved. It takes no space.
func Clear(volume vmdisk.Disk) error {
	if volume.Size() < headerSize {
		return nil
	}
	if err := volume.Zero(0, headerSize, true, false); err != nil {
		return fmt.Errorf("use the saved memory up: %w", err)
	}
	if err := volume.Flush(); err != nil {
		return fmt.Errorf("use the saved memory up: %w", err)
	}
	return nil
}

// Discard gives the volume's space back.
func Discard(volume vmdisk.Disk) error {
	if err := volume.Trim(0, volume.Size(), false); err != nil {
		return fmt.Errorf("give the saved memory's space back: %w", err)
	}
	return nil
}

// counted counts what is written, and says so.
type counted struct {
	to   io.Writer
	n    int64
	note func(n int64)
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.n += int64(n)
	c.note(c.n)
	return n, err
}

// writer stores what is written, in whole chunks, from off on.
type writer struct {
	ctx    context.Context
	to     vmdisk.Disk
	off    int64
	buf    []byte
	sum    *blake3.Hasher
	failed error
}

func (w *writer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if err := w.ctx.Err(); err != nil {
			return 0, err
		}
		n := min(len(rest), chunk-len(w.buf))
		w.buf, rest = append(w.buf, rest[:n]...), rest[n:]
		if len(w.buf) == chunk {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (w *writer) flush() error {
	if w.failed != nil || len(w.buf) == 0 {
		return w.failed
	}
	n := int64(len(w.buf))
	if n > w.to.Size()-w.off {
		w.failed = ErrTooLarge
		return w.failed
	}
	_, _ = w.sum.Write(w.buf) // never fails
	if w.failed = w.to.WriteAt(w.buf, w.off, false); w.failed != nil {
		return w.failed
	}
	w.off += n
	w.buf = w.buf[:0]
	return nil
}

// Destine makes it durable for which device the saved memory h is, and returns its new header. The memory stays as it is. A crash leaves the one
// header or the other. Errors: ErrTooLarge (nothing was changed), and the volume's.
func Destine(volume vmdisk.Disk, h Header, device string) (Header, error) {
	h.For = device
	b, err := h.encode()
	if err != nil {
		return h, err
	}
	if err := volume.WriteAt(b, 0, false); err != nil {
		return h, fmt.Errorf("write the header of the memory: %w", err)
	}
	if err := volume.Flush(); err != nil {
		return h, fmt.Errorf("make the header of the memory durable: %w", err)
	}
	return h, nil
}
