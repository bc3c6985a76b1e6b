//go:build linux

package story

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// poll is how often a condition is looked at.
const poll = 50 * time.Millisecond

// until waits for a condition, and says what it waited for when it never came.
func until(ctx context.Context, what string, limit time.Duration, condition func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		ok, err := condition(ctx)
		if ok {
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %v for %s: %w", limit, what, errors.Join(last, ctx.Err()))
		case <-time.After(poll):
		}
	}
}
