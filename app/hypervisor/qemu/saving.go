package qemu

import (
	"context"
	"fmt"
)

// Unsaved implements hypervisor.Guest. What QEMU calls remaining is memory, of which an empty page takes next to nothing.
func (g *guest) Unsaved(ctx context.Context) (int64, error) {
	m, err := g.migration(ctx)
	if err != nil {
		return 0, fmt.Errorf("qemu: ask how much is to be saved: %w", err)
	}
	return max(m.RAM.Remaining, 0), nil
}
