package wire

import (
	"context"
	"encoding/json"
	"fmt"
)

// SendWithBlob writes v as one JSON message and blob after it, in raw frames of
// at most MaxMessage bytes, with nothing in between. v must tell the receiver
// the blob's length; an empty blob takes no frame. Errors are those of Send.
func (c *Conn) SendWithBlob(ctx context.Context, v any, blob []byte) error {
	p, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("send: encode: %w", err)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.sendLocked(ctx, p); err != nil {
		return err
	}
	for len(blob) > 0 {
		n := min(len(blob), MaxMessage)
		if err := c.sendLocked(ctx, blob[:n]); err != nil {
			// Without its blob the message before is only half a message.
			c.broken = err
			return fmt.Errorf("send blob: %w", err)
		}
		blob = blob[n:]
	}
	return nil
}

// RecvWithBlob reads the next message into v and then the blob whose length
// size reports; size is called once, after v was filled, and may refuse by an
// error. Memory grows only as bytes arrive. The blob is the caller's.
func (c *Conn) RecvWithBlob(ctx context.Context, v any, size func() (int, error)) ([]byte, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	p, err := c.recvLocked(ctx, MaxMessage)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(p, v); err != nil {
		return nil, fmt.Errorf("receive: decode: %w: %w", ErrMalformed, err)
	}
	n, err := size()
	if err == nil && n < 0 {
		err = ErrMalformed
	}
	if err != nil {
		// What follows may be a blob that nobody can place.
		c.rbroken = err
		return nil, fmt.Errorf("receive blob: %w", err)
	}
	var blob []byte
	for len(blob) < n {
		want := min(n-len(blob), MaxMessage)
		p, err := c.recvLocked(ctx, want)
		if err == nil && len(p) != want {
			err = fmt.Errorf("piece of %d bytes, %d expected: %w", len(p), want, ErrMalformed)
		}
		if err != nil {
			c.rbroken = err
			return nil, fmt.Errorf("receive blob: %w", err)
		}
		blob = append(blob, p...)
	}
	return blob, nil
}
