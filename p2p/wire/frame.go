package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// HeaderSize is the length of a frame's header in bytes.
const HeaderSize = 4

// MaxMessage is the largest JSON message and the largest piece of a blob, in bytes.
const MaxMessage = 1 << 20

// AppendFrame appends p as one frame to dst and returns the result.
// It fails with ErrTooLarge if p is longer than MaxMessage.
func AppendFrame(dst, p []byte) ([]byte, error) {
	if len(p) > MaxMessage {
		return dst, fmt.Errorf("write frame of %d bytes: %w", len(p), ErrTooLarge)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(p)))
	return append(dst, p...), nil
}

// WriteFrame writes p as one frame in a single Write. It doesn't keep p.
func WriteFrame(w io.Writer, p []byte) error {
	f, err := AppendFrame(make([]byte, 0, HeaderSize+len(p)), p)
	if err != nil {
		return err
	}
	if _, err := w.Write(f); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// ReadFrame reads one frame of at most limit bytes into buf, growing it if
// needed, and returns the content, which shares buf's memory. A stream that
// ends before the first byte gives io.EOF itself; within a frame,
// io.ErrUnexpectedEOF; a longer frame, ErrTooLarge.
func ReadFrame(r io.Reader, limit int, buf []byte) ([]byte, error) {
	var h [HeaderSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		if err == io.EOF {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("read frame header: %w", err)
	}
	n := binary.BigEndian.Uint32(h[:])
	if limit < 0 || uint64(n) > uint64(limit) {
		return nil, fmt.Errorf("read frame of %d bytes, %d allowed: %w", n, limit, ErrTooLarge)
	}
	if uint32(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read frame: %w", err)
	}
	return buf, nil
}

// CutShort makes io.EOF, the end of the stream where more must follow, io.ErrUnexpectedEOF.
func CutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
