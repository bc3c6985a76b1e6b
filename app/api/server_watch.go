package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// watch is the event stream: JSON objects, one a line, empty lines as signs of life.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	var after uint64
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			s.fail(w, r, &Error{Code: CodeUsage, Sentence: "The number of the last event seen isn't a number.", Cause: err.Error()})
			return
		}
	}
	if s.watchers.Add(1) > maxWatchers {
		s.watchers.Add(-1)
		s.fail(w, r, &Error{Code: CodeBusy, Sentence: "Too many programs watch the engine already.", Next: "Close some of them."})
		return
	}
	defer s.watchers.Add(-1)

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	source, err := s.engine.Watch(ctx, after)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	events, slow := buffered(ctx, source)
	s.stream(w, events, slow, ctx.Done())
	cancel()
	for range events { // until the pump has ended
	}
}

// buffered takes from source, without ever making it wait, as long as ctx lives. slow closes, and
// events are dropped, once the reader is watchBuffer events behind. events closes when the pump
// has ended.
func buffered(ctx context.Context, source <-chan Event) (events <-chan Event, slow <-chan struct{}) {
	out, full := make(chan Event, watchBuffer), make(chan struct{})
	go func() {
		defer close(out)
		overflow := false
		for {
			select {
			case <-ctx.Done():
				return
			case ev, ok := <-source:
				if !ok {
					return
				}
				if overflow {
					continue
				}
				select {
				case out <- ev:
				default:
					overflow = true
					close(full)
				}
			}
		}
	}()
	return out, full
}

// stream writes events until one of its inputs ends or the client stops reading.
func (s *Server) stream(w http.ResponseWriter, events <-chan Event, slow, done <-chan struct{}) {
	conn := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	send := func(line []byte) bool {
		_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := w.Write(append(line, '\n'))
		if err == nil {
			err = conn.Flush()
		}
		if err != nil {
			s.log.Debug("Watcher left", slog.Any("error", err))
		}
		return err == nil
	}
	if !send(nil) {
		return
	}
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-slow:
			s.log.Info("Slow watcher cut off")
			return
		default:
		}
		select {
		case <-done:
			return
		case <-slow:
			s.log.Info("Slow watcher cut off")
			return
		case <-beat.C:
			if !send(nil) {
				return
			}
		case ev, ok := <-events:
			if !ok {
				return
			}
			line, err := json.Marshal(ev)
			if err != nil || len(line) >= maxEventBytes {
				s.log.Error("Event can't be sent", slog.String("kind", ev.Kind), slog.Int("bytes", len(line)), slog.Any("error", err))
				continue
			}
			if !send(line) {
				return
			}
		}
	}
}
