package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Server puts an Engine behind a listener. Make one with NewServer.
type Server struct {
	engine   Engine
	log      *slog.Logger
	watchers atomic.Int64

	heartbeat time.Duration

	// handlers is held for reading by every request. Serve takes it for writing at its end and
	// keeps it: so it has waited for all requests, and later ones are turned away.
	handlers sync.RWMutex
}

// NewServer makes a server for engine. A nil log discards.
func NewServer(engine Engine, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{engine: engine, log: log, heartbeat: heartbeatEvery}
}

// Serve answers on l until ctx ends, then closes l and returns nil when all requests have ended:
// their contexts end with ctx, and answers under way get two seconds to leave. It returns early
// only when l fails. A Server serves once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()

	var err error
	select {
	case <-ctx.Done():
		grace, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
		done()
		<-failed
	case err = <-failed:
		cancel()
		_ = srv.Close()
	}
	s.handlers.Lock()
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the local API: %w", err)
	}
	return nil
}

// handler is the table of all routes.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	e := s.engine
	route := func(pattern string, do func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, do) })
	}
	// Names travel in the query: a router has its own ideas about some paths ("..", "%2F").
	named := func(pattern, key string, do func(ctx context.Context, name string) error) {
		route(pattern, func(r *http.Request) (any, error) {
			name := r.URL.Query().Get(key)
			if err := needName(name); err != nil {
				return nil, err
			}
			return nil, do(r.Context(), name)
		})
	}

	route("GET /v1/status", func(r *http.Request) (any, error) {
		st, err := e.Status(r.Context())
		if err != nil {
			return nil, err
		}
		return withLists(st), nil
	})
	route("POST /v1/shutdown", func(r *http.Request) (any, error) { return nil, e.Shutdown(r.Context()) })
	mux.HandleFunc("GET /v1/events", s.watch)

	route("POST /v1/vms", withBody(e.CreateVM))
	named("DELETE /v1/vms", "vm", e.RemoveVM)
	named("POST /v1/vms/start", "vm", e.StartVM)
	route("POST /v1/vms/stop", withBody(func(ctx context.Context, req stopVM) (any, error) {
		return nil, e.StopVM(ctx, req.VM, req.Force)
	}))
	named("POST /v1/vms/reset", "vm", e.ResetVM)
	route("POST /v1/vms/screen", withBody(func(ctx context.Context, req screenOf) (any, error) {
		if err := needName(req.VM); err != nil {
			return nil, err
		}
		return e.OpenScreen(ctx, req.VM)
	}))
	named("POST /v1/vms/suspend", "vm", e.SuspendVM)
	named("POST /v1/vms/resume", "vm", e.ResumeVM)
	route("POST /v1/vms/settings", withBody(func(ctx context.Context, req SetVM) (any, error) { return nil, e.SetVM(ctx, req) }))
	route("POST /v1/vms/seed", withBody(e.SeedVM))
	route("GET /v1/vms/history", func(r *http.Request) (any, error) {
		entries, err := e.History(r.Context(), r.URL.Query().Get("vm"))
		if entries == nil {
			entries = []HistoryEntry{}
		}
		return entries, err
	})
	route("GET /v1/disks", func(r *http.Request) (any, error) {
		disk := r.URL.Query().Get("disk")
		if err := needName(disk); err != nil {
			return nil, err
		}
		return e.DiskInfo(r.Context(), disk)
	})
	route("POST /v1/disks/export", withBody(e.ExportDisk))
	route("POST /v1/vms/disks", withBody(e.AddDisk))
	route("POST /v1/vms/disks/grow", withBody(func(ctx context.Context, req GrowDisk) (any, error) { return nil, e.GrowDisk(ctx, req) }))
	route("POST /v1/vms/disks/remove", withBody(func(ctx context.Context, req RemoveDisk) (any, error) { return nil, e.RemoveDisk(ctx, req) }))
	route("POST /v1/disks/check", withBody(e.CheckDisk))
	route("POST /v1/vms/verify", withBody(e.VerifyVM))
	named("DELETE /v1/jobs", "id", e.CancelJob)

	route("POST /v1/switches", withBody(e.Switch))
	route("POST /v1/switches/check", withBody(e.CheckSwitch))
	named("DELETE /v1/switches", "id", e.CancelSwitch)

	route("POST /v1/pairing", withBody(e.PairStart))
	route("POST /v1/pairing/join", withBody(e.PairJoin))
	route("DELETE /v1/pairing", func(r *http.Request) (any, error) { return nil, e.PairCancel(r.Context()) })
	route("POST /v1/devices/remove", withBody(noAnswer(e.RemoveDevice)))
	route("POST /v1/devices/site", withBody(noAnswer(e.PinDevice)))
	route("POST /v1/devices/bridge", withBody(noAnswer(e.SetBridge)))
	route("POST /v1/leave", withBody(noAnswer(e.LeaveFleet)))

	route("GET /v1/vms/takeover", func(r *http.Request) (any, error) {
		return e.Takeover(r.Context(), r.URL.Query().Get("vm"))
	})
	route("POST /v1/vms/takeover", withBody(noAnswer(e.TakeOver)))
	route("GET /v1/vms/rollback", func(r *http.Request) (any, error) {
		return e.Rollback(r.Context(), r.URL.Query().Get("vm"))
	})
	route("POST /v1/vms/rollback", withBody(noAnswer(e.RollBack)))
	route("POST /v1/vms/resolve", withBody(e.Resolve))
	route("POST /v1/restorepoints/delete", withBody(noAnswer(e.DeleteRestorePoint)))
	route("POST /v1/restorepoints/open", withBody(noAnswer(e.OpenRestorePoint)))
	route("POST /v1/restorepoints/close", withBody(noAnswer(e.CloseRestorePoint)))
	route("POST /v1/offline", withBody(e.GoOffline))
	route("DELETE /v1/offline", func(r *http.Request) (any, error) { return nil, e.GoOnline(r.Context()) })

	route("POST /v1/sync", withBody(noAnswer(e.SetSync)))
	route("POST /v1/sync/now", withBody(noAnswer(e.SyncNow)))
	route("POST /v1/sync/pause", withBody(noAnswer(e.PauseSync)))
	route("DELETE /v1/sync/pause", func(r *http.Request) (any, error) { return nil, e.ResumeSync(r.Context()) })

	route("/", func(r *http.Request) (any, error) {
		return nil, &Error{Code: CodeUsage,
			Sentence: fmt.Sprintf("This engine speaks version %d of its API and doesn't know this request.", Version),
			Next:     "Use the same version of Tagalong for the engine and for its window and command line.",
			Cause:    "no route for " + r.Method + " " + r.URL.EscapedPath()}
	})

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(versionHeader, strconv.Itoa(Version))
		if !s.handlers.TryRLock() {
			s.fail(w, r, &Error{Code: CodeNoEngine, Sentence: "The engine is ending.", Next: "Try again in a moment."})
			return
		}
		defer s.handlers.RUnlock()
		mux.ServeHTTP(w, r)
	})
}

// stopVM is the body of a stop request.
type stopVM struct {
	VM    string `json:"vm"`
	Force bool   `json:"force"`
}

// screenOf is the body of a request for a screen.
type screenOf struct {
	VM string `json:"vm"`
}

// withLists is st with empty lists where there are none, so that scripts can always iterate.
// The engine's own snapshot isn't touched.
func withLists(st *Status) *Status {
	out := *st
	if out.Devices == nil {
		out.Devices = []Device{}
	}
	if out.Jobs == nil {
		out.Jobs = []Job{}
	}
	if out.Offline.VMs == nil {
		out.Offline.VMs = []OfflineVM{}
	}
	if out.Sync != nil && out.Sync.Settings.Schedule == nil {
		sync := *out.Sync
		sync.Settings.Schedule = []SyncTimes{}
		out.Sync = &sync
	}
	out.VMs = append(make([]VM, 0, len(st.VMs)), st.VMs...)
	for i := range out.VMs {
		if out.VMs[i].Replicas == nil {
			out.VMs[i].Replicas = []Replica{}
		}
	}
	return &out
}

// withBody makes a route of an engine method that takes a request body.
func withBody[Req, Resp any](do func(context.Context, Req) (Resp, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var req Req
		if err := decode(r, &req); err != nil {
			return nil, err
		}
		return do(r.Context(), req)
	}
}

// noAnswer fits an engine method that only succeeds or fails.
func noAnswer[Req any](do func(context.Context, Req) error) func(context.Context, Req) (any, error) {
	return func(ctx context.Context, req Req) (any, error) { return nil, do(ctx, req) }
}

// decode reads the one JSON object of a request. Unknown fields are refused: a newer client must
// not believe that an older engine obeyed them.
func decode(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); err == nil {
			err = errors.New("more than one JSON value")
		} else if errors.Is(err, io.EOF) {
			return nil
		}
	}
	return &Error{Code: CodeUsage, Sentence: "The engine doesn't understand this request.",
		Next:  "Use the same version of Tagalong for the engine and for its window and command line.",
		Cause: fmt.Sprintf("decode request: %v", err)}
}

// answer runs one route and writes its result or its failure.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, do func(*http.Request) (any, error)) {
	// A body that never comes must not hold a request open. The deadline is lifted before the
	// work begins, because a passed one would end the request's context.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(writeTimeout))
	r.Body = &deadlineBody{ReadCloser: http.MaxBytesReader(w, r.Body, maxRequestBytes), conn: conn}
	if r.ContentLength == 0 {
		_ = conn.SetReadDeadline(time.Time{})
	}

	result, err := do(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if result == nil {
		s.write(w, http.StatusNoContent, nil)
		return
	}
	body, err := json.Marshal(result)
	if err != nil {
		s.fail(w, r, fmt.Errorf("encode answer: %w", err))
		return
	}
	s.write(w, http.StatusOK, body)
}

// deadlineBody lifts the connection's read deadline once the body has ended.
type deadlineBody struct {
	io.ReadCloser
	conn *http.ResponseController
}

func (b *deadlineBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// fail writes err as an Error and logs what the person didn't cause.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := wireError(err)
	if e.Code == CodeInternal {
		s.log.Error("Request failed", slog.String("route", r.Pattern), slog.String("error", e.Cause))
	} else {
		s.log.Debug("Request refused", slog.String("route", r.Pattern), slog.String("code", string(e.Code)),
			slog.String("error", e.Cause))
	}
	body, err := json.Marshal(e)
	if err != nil {
		body = []byte(`{"code":"internal","sentence":"Something went wrong inside Tagalong."}`)
	}
	s.write(w, statusOf(e.Code), body)
}

// write sends an answer. The deadline is set anew each time: it stays with the connection.
func (s *Server) write(w http.ResponseWriter, status int, body []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(body, '\n')); err != nil {
		s.log.Debug("Answer not delivered", slog.Any("error", err))
	}
}
