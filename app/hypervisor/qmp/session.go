package qmp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
)

// TakeUp takes up the session that QEMU has on the pair of named pipes path.in and path.out (its character device "pipe"). Nobody connects to
// such a device: QEMU greets once, when it starts, and the session goes on whoever is at its other end. So a client that comes later needs no greeting,
// which a QEMU doesn't give whose main loop waits for something, and its urgent commands (DoUrgent) are run all the same.
//
// One client at a time may have the session; somebody must have called Prepare once. What QEMU says is kept in the pipe, and then in QEMU's memory, while
// nobody has it.
// It fails where there is no such pipe, or the system has none.
func TakeUp(path string) (*Client, error) {
	p, err := openPipes(path)
	if err != nil {
		return nil, fmt.Errorf("qmp: take a session up: %w", err)
	}
	c := &Client{
		conn: p, kept: true, urgent: true,
		done:    make(chan struct{}),
		ready:   make(chan struct{}),
		room:    make(chan struct{}, maxUnanswered),
		pending: map[uint64]waiting{},
		subs:    map[*Subscription]struct{}{},
		// Answers to a client before may come yet.
		nextID: rand.Uint64N(1 << 48),
	}
	close(c.ready)
	greeted := make(chan struct{})
	close(greeted) // by whom it was greeted is no matter
	go c.read(greeted)
	return c, nil
}

// Prepare brings a session that was taken up to where QEMU takes urgent commands, for good. It may be called again.
func (c *Client) Prepare(ctx context.Context) error {
	err := c.Do(ctx, "qmp_capabilities", map[string]any{"enable": []string{oob}}, nil)
	var refused *CommandError
	if errors.As(err, &refused) && refused.Class == "CommandNotFound" {
		return nil // it is there already
	}
	return err
}
