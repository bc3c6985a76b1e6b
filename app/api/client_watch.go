package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Watch implements Engine. The channel closes when ctx ends, the engine ends or falls silent, or
// the caller reads so slowly that the engine cuts it off. Ask again, after the last Seq seen, with
// a pause in between. The caller must end ctx to be rid of a watch.
func (c *Client) Watch(ctx context.Context, after uint64) (<-chan Event, error) {
	ctx, end := context.WithCancelCause(ctx)
	cancel := func() { end(nil) }
	alive := time.AfterFunc(livenessTimeout, func() { end(context.DeadlineExceeded) })
	resp, err := c.send(ctx, http.MethodGet, "/v1/events?after="+strconv.FormatUint(after, 10), nil)
	if err != nil {
		alive.Stop()
		cancel()
		return nil, err
	}
	events := make(chan Event)
	go func() {
		defer close(events)
		defer cancel()
		defer alive.Stop()
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(make([]byte, 0, 4096), maxEventBytes+1)
		for lines.Scan() {
			alive.Stop()
			if len(lines.Bytes()) > 0 {
				var ev Event
				if json.Unmarshal(lines.Bytes(), &ev) != nil {
					return
				}
				select {
				case events <- ev:
				case <-ctx.Done():
					return
				}
			}
			alive.Reset(livenessTimeout)
		}
	}()
	return events, nil
}
