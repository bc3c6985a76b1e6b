package wire

import (
	"encoding/json"
	"fmt"
	"io"
)

// WriteJSON writes v as one frame, for protocols that go on with raw bytes
// afterwards and therefore don't use a Conn. Deadlines are the caller's.
func WriteJSON(w io.Writer, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return WriteFrame(w, p)
}

// ReadJSON reads one frame of at most limit bytes into v, and not a byte more
// from r. Unknown fields are ignored. Errors are those of ReadFrame, and
// ErrMalformed if the content doesn't fit v.
func ReadJSON(r io.Reader, limit int, v any) error {
	p, err := ReadFrame(r, limit, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(p, v); err != nil {
		return fmt.Errorf("decode: %w: %w", ErrMalformed, err)
	}
	return nil
}
