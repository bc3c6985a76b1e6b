package console

import (
	"context"
	"fmt"
	"time"
)

// clockSamples is how often the clock is asked for; the quickest answer says most.
const clockSamples = 5

// Clock is how far the guest's wall clock is from this computer's; below zero it is late. Within is how far that may be wrong: half the
// time that the answer took.
func (c *Console) Clock(ctx context.Context) (off, within time.Duration, err error) {
	for i := range clockSamples {
		before := time.Now()
		text, err := c.Command(ctx, "clock", "C ")
		if err != nil {
			return 0, 0, err
		}
		half := time.Since(before) / 2
		var wall int64
		if _, err := fmt.Sscanf(text, "C %d", &wall); err != nil {
			return 0, 0, fmt.Errorf("the guest's clock in %q: %w", text, err)
		}
		if i == 0 || half < within {
			off, within = time.UnixMicro(wall).Sub(before.Add(half)), half
		}
	}
	return off, within, nil
}
