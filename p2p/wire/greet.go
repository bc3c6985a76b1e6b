package wire

import (
	"context"
	"fmt"
	"time"
)

// GreetTimeout is how long a peer may take to greet.
const GreetTimeout = 10 * time.Second

// Greeting is the first message of either end: the protocol's name and the
// range of versions that the end speaks.
type Greeting struct {
	Protocol string `json:"protocol"`
	Version  int    `json:"version"` // newest
	Oldest   int    `json:"oldest"`
}

// Greet sends mine, reads the peer's greeting, and returns the newest version
// that both speak. Both ends call it; it takes one trip, whoever is first.
// Another protocol or no common version is ErrVersion, naming both.
func (c *Conn) Greet(ctx context.Context, mine Greeting) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, GreetTimeout)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- c.Send(ctx, mine) }()
	var theirs Greeting
	err := c.Recv(ctx, &theirs)
	if err != nil {
		cancel()
		<-sent
		return 0, fmt.Errorf("greet: %w", err)
	}
	if err := <-sent; err != nil {
		return 0, fmt.Errorf("greet: %w", err)
	}
	v := min(mine.Version, theirs.Version)
	if theirs.Protocol != mine.Protocol || v < mine.Oldest || v < theirs.Oldest {
		return 0, fmt.Errorf("greet: %w: we speak %q %d to %d, the peer %.64q %d to %d", ErrVersion,
			mine.Protocol, mine.Oldest, mine.Version, theirs.Protocol, theirs.Oldest, theirs.Version)
	}
	return v, nil
}
