package api

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestSlowWatcherIsCutOff(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	source := make(chan Event)
	events, slow := buffered(ctx, source)
	for n := range 4 * watchBuffer { // never blocks, though nobody reads
		source <- Event{Seq: uint64(n)}
	}
	<-slow
	cancel()
	var got uint64
	for ev := range events {
		if ev.Seq != got {
			t.Fatalf("event %d where %d was due", ev.Seq, got)
		}
		got++
	}
	if got != watchBuffer {
		t.Errorf("%d events kept, want %d", got, watchBuffer)
	}
}

func TestCutOffEndsTheStream(t *testing.T) {
	s := NewServer(nil, nil)
	slow := make(chan struct{})
	close(slow)
	w := httptest.NewRecorder()
	s.stream(w, make(chan Event), slow, nil)
	if w.Body.String() != "\n" {
		t.Errorf("stream %q", w.Body.String())
	}
}

func TestTooLongEventIsSkipped(t *testing.T) {
	s := NewServer(nil, nil)
	events := make(chan Event, 2)
	events <- Event{Kind: "long", Text: strings.Repeat("x", maxEventBytes)}
	events <- Event{Kind: "short"}
	close(events)
	w := httptest.NewRecorder()
	s.stream(w, events, nil, nil)
	if body := w.Body.Bytes(); bytes.Contains(body, []byte("long")) || !bytes.Contains(body, []byte("short")) {
		t.Errorf("stream of %d bytes", len(body))
	}
}

func TestHeartbeat(t *testing.T) {
	s := NewServer(nil, nil)
	s.heartbeat = time.Millisecond
	done := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.stream(w, nil, nil, done)
	}))
	defer srv.Close()
	defer close(done)
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	for range 5 {
		if line, err := lines.ReadString('\n'); err != nil || line != "\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
}
