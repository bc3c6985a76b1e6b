//go:build !linux

package surroundings

import (
	"context"
	"log/slog"
)

// FollowMetered knows nothing on this system, and says so in the log.
func FollowMetered(_ context.Context, log *slog.Logger, _ func(metered bool)) {
	log.Info("This system isn't asked whether the connection is metered: it counts as not metered")
}
