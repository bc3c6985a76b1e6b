package savedmemory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/vmdisk"
)

// Loading is one memory to be read back.
type Loading struct {
	Volume vmdisk.Reader
	// Header is what Read returned.
	Header Header
	// Read takes the memory in. What it was given may turn out to be damaged: nothing may run of it before Load has returned without an error.
	Read func(ctx context.Context, r io.Reader) error
	// Progress, if not nil, is called with how many of the stored bytes were read.
	Progress func(stored int64)
}

// Load reads a memory back. It changes nothing. Errors: ErrDamaged, ctx's, Read's, and the volume's.
func Load(ctx context.Context, l Loading) error {
	from := &reader{ctx: ctx, from: l.Volume, off: dataAt, end: dataAt + l.Header.Stored, sum: blake3.New(), note: l.Progress}
	dec, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("load the memory: %w", err)
	}
	defer dec.Close()
	raw := &io.LimitedReader{R: dec, N: l.Header.Raw + 1}
	failed := l.Read(ctx, raw)
	if failed == nil && raw.N != 1 {
		failed = fmt.Errorf("%d bytes are not what was taken in: %w", l.Header.Raw, ErrDamaged)
	}
	// What wasn't read, for instance because the hypervisor choked on it, tells whether it was damaged.
	if _, err := io.Copy(io.Discard, from); err != nil {
		return fmt.Errorf("load the memory: %w", errors.Join(err, failed))
	}
	if got := from.sum.Sum(nil); !bytes.Equal(got, l.Header.Hash) {
		return fmt.Errorf("load the memory: its hash is %x, not %x: %w", got, l.Header.Hash, errors.Join(ErrDamaged, failed))
	}
	if failed != nil {
		return fmt.Errorf("load the memory: %w", failed)
	}
	return nil
}

// reader reads what is stored, in whole chunks.
type reader struct {
	ctx      context.Context
	from     vmdisk.Reader
	off, end int64
	buf      []byte // all of a chunk
	rest     []byte // of buf, what wasn't asked for yet
	sum      *blake3.Hasher
	note     func(int64)
}

func (r *reader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		n := min(chunk, r.end-r.off)
		if n == 0 {
			return 0, io.EOF
		}
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		if r.buf == nil {
			r.buf = make([]byte, chunk)
		}
		if err := r.from.ReadAt(r.buf[:n], r.off); err != nil {
			return 0, fmt.Errorf("read the saved memory at %d: %w", r.off, err)
		}
		r.rest = r.buf[:n]
		r.off += n
		_, _ = r.sum.Write(r.rest) // never fails
		if r.note != nil {
			r.note(r.off - dataAt)
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
