package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/api/apitest"
)

// serve runs engine behind a socket of its own until the test ends, and returns its path.
func serve(t testing.TB, engine api.Engine) string {
	t.Helper()
	socket := api.SocketPath(t.TempDir())
	_ = serveAt(t, engine, socket)
	return socket
}

// serveAt is serve on a given path; stop ends it early and is safe to call twice.
func serveAt(t testing.TB, engine api.Engine, socket string) (stop func()) {
	t.Helper()
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.NewServer(engine, nil).Serve(ctx, l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func client(t testing.TB, socket string) *api.Client {
	c := api.NewClient(socket)
	t.Cleanup(c.Close)
	return c
}

// deadline is for waits that only a defect makes long.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func start() api.Status {
	return api.Status{Version: "test", Device: api.Device{ID: "here", Name: "desk", Self: true},
		Devices: []api.Device{{ID: "here", Name: "desk", Self: true}, {ID: "there", Name: "laptop", Connected: true}},
		VMs:     []api.VM{{ID: "vm1", Name: "Work", State: api.VMRunning, Owner: "there", OwnerName: "laptop"}}}
}

func TestEveryCallArrives(t *testing.T) {
	e := apitest.New(start())
	e.SetHistory("vm1", []api.HistoryEntry{{VM: "vm1", Term: 1, Kind: "created"}})
	c, ctx := client(t, serve(t, e)), deadline(t)

	steps := []struct {
		call string
		do   func() error
	}{
		{`CreateVM {"name":"New","cpus":2,"memory_mib":512,"disk_bytes":4096,"screen":true,"network":false}`, func() error {
			job, err := c.CreateVM(ctx, api.CreateVM{Name: "New", CPUs: 2, MemoryMiB: 512, DiskBytes: 4096, Screen: true})
			if err == nil && (job.VM != "vm2" || job.ID != "job2") {
				err = fmt.Errorf("job %+v", job)
			}
			return err
		}},
		{`CancelJob "job2"`, func() error { return c.CancelJob(ctx, "job2") }},
		{`StartVM "New"`, func() error { return c.StartVM(ctx, "New") }},
		{`StopVM "New" true`, func() error { return c.StopVM(ctx, "New", true) }},
		{`StopVM "New" false`, func() error { return c.StopVM(ctx, "New", false) }},
		{`ResetVM "New"`, func() error { return c.ResetVM(ctx, "New") }},
		{`OpenScreen "New"`, func() error {
			s, err := c.OpenScreen(ctx, "New")
			if err == nil && (s.Protocol != api.ScreenVNC || s.Socket == "") {
				err = fmt.Errorf("screen %+v", s)
			}
			return err
		}},
		{`SuspendVM "New"`, func() error { return c.SuspendVM(ctx, "New") }},
		{`ResumeVM "New"`, func() error { return c.ResumeVM(ctx, "New") }},
		{`DiskInfo "/vms/vm2"`, func() error {
			info, err := c.DiskInfo(ctx, "/vms/vm2")
			if err == nil && (info.VMName != "New" || info.Size != 4096 || info.Role != api.DiskOwner) {
				err = fmt.Errorf("disk %+v", info)
			}
			return err
		}},
		{`ExportDisk {"disk":"New","file":"/tmp/x","format":"qcow2","position":{"term":1,"barrier":2}}`, func() error {
			job, err := c.ExportDisk(ctx, api.ExportDisk{Disk: "New", File: "/tmp/x", Format: api.DiskQcow2, Position: api.Position{Term: 1, Barrier: 2}})
			if err == nil && (job.VM != "vm2" || job.Kind != "export") {
				err = fmt.Errorf("job %+v", job)
			}
			return err
		}},
		{`CheckDisk {"disk":"New","record":true}`, func() error {
			job, err := c.CheckDisk(ctx, api.CheckDisk{Disk: "New", Record: true})
			if err == nil && job.Kind != "check" {
				err = fmt.Errorf("job %+v", job)
			}
			return err
		}},
		{`RemoveVM "New"`, func() error { return c.RemoveVM(ctx, "New") }},
		{`Switch {"vm":"Work","to":"desk"}`, func() error {
			sw, err := c.Switch(ctx, api.SwitchVM{VM: "Work", To: "desk"})
			if err == nil && (sw.VM != "vm1" || sw.Phase != api.PhasePreflight) {
				err = fmt.Errorf("switch %+v", sw)
			}
			return err
		}},
		{`CancelSwitch "s"`, func() error { return c.CancelSwitch(ctx, "s") }},
		{`PairStart {"seconds":60}`, func() error {
			p, err := c.PairStart(ctx, api.PairStart{Seconds: 60})
			if err == nil && p.Code == "" {
				err = errors.New("no code")
			}
			return err
		}},
		{`PairJoin {"code":"1","addr":"h:1"}`, func() error {
			p, err := c.PairJoin(ctx, api.PairJoin{Code: "1", Addr: "h:1"})
			if err == nil && (len(p.Words) != 4 || p.Peer == nil) {
				err = fmt.Errorf("pairing %+v", p)
			}
			return err
		}},
		{`PairCancel`, func() error { return c.PairCancel(ctx) }},
		{`RemoveDevice {"device":"laptop"}`, func() error { return c.RemoveDevice(ctx, api.RemoveDevice{Device: "laptop"}) }},
		{`SetVM {"vm":"Work","sync":"two"}`, func() error { return c.SetVM(ctx, api.SetVM{VM: "Work", Sync: "two"}) }},
		{`SetVM {"vm":"Work","name":"Office","cpus":4,"memory_mib":2048}`, func() error {
			return c.SetVM(ctx, api.SetVM{VM: "Work", Name: "Office", CPUs: 4, MemoryMiB: 2048})
		}},
		{`SetVM {"vm":"Office","name":"Work"}`, func() error { return c.SetVM(ctx, api.SetVM{VM: "Office", Name: "Work"}) }},
		{`PinDevice {"device":"laptop","site":"Home"}`, func() error { return c.PinDevice(ctx, api.PinDevice{Device: "laptop", Site: "Home"}) }},
		{`SetSync {"up":5000,"schedule":[{"when":"22:00-06:00","do":"only"}],"battery":{"below":20,"rate":0}}`, func() error {
			up := int64(5000)
			return c.SetSync(ctx, api.SetSync{Up: &up, Schedule: &[]api.SyncTimes{{When: "22:00-06:00", Do: "only"}}, Battery: &api.SyncBattery{Below: 20}})
		}},
		{`SyncNow {"vm":"Work"}`, func() error { return c.SyncNow(ctx, api.SyncNow{VM: "Work"}) }},
		{`PauseSync {"seconds":60}`, func() error { return c.PauseSync(ctx, api.PauseSync{Seconds: 60}) }},
		{`ResumeSync`, func() error { return c.ResumeSync(ctx) }},
		{`History "Work"`, func() error {
			h, err := c.History(ctx, "Work")
			if err == nil && (len(h) != 1 || h[0].Kind != "created") {
				err = fmt.Errorf("history %+v", h)
			}
			return err
		}},
		{`Shutdown`, func() error { return c.Shutdown(ctx) }},
	}
	var want []string
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Errorf("%s: %v", s.call, err)
		}
		want = append(want, s.call)
	}
	if got := strings.Join(e.Calls(), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the engine saw\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	st, err := c.Status(ctx)
	if err != nil || st.API != api.Version || len(st.VMs) != 1 || len(st.Devices) != 1 {
		t.Errorf("Status: %+v, %v", st, err)
	}
}

func TestNamesSurviveTheWay(t *testing.T) {
	e := apitest.New(api.Status{})
	c, ctx := client(t, serve(t, e)), deadline(t)
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{".", "..", "a/b", "/", "%2F", "?x=1", "#", " ", "ü", "a//b", "../..", "a&b=c", "a;b", "+"})).Draw(rt, "name")
		err := c.StartVM(ctx, name)
		if name == "" {
			if api.AsError(err).Code != api.CodeUsage {
				rt.Fatalf("empty name: %v", err)
			}
			return
		}
		text, _ := json.Marshal(name)
		calls := e.Calls()
		if len(calls) == 0 || calls[len(calls)-1] != "StartVM "+string(text) {
			rt.Fatalf("sent %q, the engine saw %q (%v)", name, calls, err)
		}
		if !errors.Is(err, &api.Error{Code: api.CodeNotFound}) {
			rt.Fatalf("error %v", err)
		}
	})
}

func TestErrorsCrossWhole(t *testing.T) {
	e := apitest.New(start())
	c, ctx := client(t, serve(t, e)), deadline(t)
	for _, code := range []api.Code{api.CodeInternal, api.CodeUsage, api.CodeNotFound, api.CodeConflict, api.CodeElsewhere,
		api.CodeNoEngine, api.CodeBusy, api.CodeNoHypervisor, api.CodeUnreachable, api.CodeCancelled, api.CodeRefused,
		api.CodeSpace, api.CodeEngineRunning, api.CodeDamaged, "from-the-future"} {
		want := api.Error{Code: code, Sentence: "It broke.", Next: "Mend it.", Cause: "rust"}
		e.Fail("StartVM", fmt.Errorf("start: %w", &want))
		err := c.StartVM(ctx, "Work")
		var got *api.Error
		if !errors.As(err, &got) || *got != want {
			t.Errorf("%s arrived as %#v", code, err)
		}
	}
	e.Fail("Status", errors.New("disk on fire"))
	if _, err := c.Status(ctx); api.AsError(err).Code != api.CodeInternal || api.AsError(err).Cause != "disk on fire" {
		t.Errorf("plain error arrived as %#v", err)
	}
	e.Fail("Watch", &api.Error{Code: api.CodeBusy, Sentence: "Not now."})
	if _, err := c.Watch(ctx, 0); api.AsError(err).Code != api.CodeBusy {
		t.Errorf("Watch failed with %v", err)
	}
}

func TestStatusHasListsForScripts(t *testing.T) {
	socket := serve(t, apitest.New(api.Status{VMs: []api.VM{{ID: "x"}}}))
	status, body := raw(t, socket, "GET", "/v1/status", "")
	if status != 200 || strings.Contains(body, "null") {
		t.Errorf("%d %s", status, body)
	}
}

// raw makes a request without the client.
func raw(t *testing.T, socket, method, path, body string) (int, string) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(deadline(t), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestNonsenseIsRefused(t *testing.T) {
	e := apitest.New(start())
	socket := serve(t, e)
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/", ""},
		{"GET", "/v2/status", ""},
		{"POST", "/v1/status", ""},
		{"POST", "/v1/vms", ""},
		{"POST", "/v1/vms", "{"},
		{"POST", "/v1/vms", "[]"},
		{"POST", "/v1/vms", `{"name":"a"}{"name":"b"}`},
		{"POST", "/v1/vms", `{"name":"a"} x`},
		{"POST", "/v1/vms", `{"unheard_of":1}`},
		{"POST", "/v1/vms", `{"name":"` + strings.Repeat("a", 1<<20) + `"}`},
		{"POST", "/v1/vms/stop", ""},
		{"POST", "/v1/vms/start", ""},
		{"DELETE", "/v1/vms?vm=", ""},
		{"GET", "/v1/events?after=-1", ""},
		{"GET", "/v1/events?after=zz", ""},
	} {
		status, body := raw(t, socket, c.method, c.path, c.body)
		var got api.Error
		if err := json.Unmarshal([]byte(body), &got); err != nil || got.Code != api.CodeUsage || got.Sentence == "" || status != 400 {
			t.Errorf("%s %s %.40s: %d %s", c.method, c.path, c.body, status, body)
		}
	}
	if calls := e.Calls(); len(calls) != 0 {
		t.Errorf("the engine saw %q", calls)
	}
}

func TestNoEngine(t *testing.T) {
	ctx := deadline(t)
	dir := t.TempDir()
	socket := api.SocketPath(dir)
	c := client(t, socket)
	check := func(when string) {
		t.Helper()
		_, err := c.Status(ctx)
		e := api.AsError(err)
		if e.Code != api.CodeNoEngine || e.Next != "Start it with: tagalong engine" {
			t.Errorf("%s: %#v", when, err)
		}
		if _, err := c.Watch(ctx, 0); api.AsError(err).Code != api.CodeNoEngine {
			t.Errorf("%s: Watch: %v", when, err)
		}
	}
	check("before the first start")
	stop := serveAt(t, apitest.New(start()), socket)
	if _, err := c.Status(ctx); err != nil {
		t.Fatal(err)
	}
	stop()
	check("after its end")

	// A killed engine leaves its socket behind.
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	check("after a kill")
	serveAt(t, apitest.New(start()), socket)
	if err := c.WaitReady(ctx); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

func TestWaitReadyWaits(t *testing.T) {
	socket := api.SocketPath(t.TempDir())
	c := client(t, socket)
	ready := make(chan error, 1)
	go func() { ready <- c.WaitReady(deadline(t)) }()
	select {
	case err := <-ready:
		t.Fatalf("ready without an engine: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	serveAt(t, apitest.New(start()), socket)
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := client(t, api.SocketPath(t.TempDir())).WaitReady(ctx); err == nil {
		t.Error("ready without an engine")
	}
}

func TestCancelledRequestReachesTheEngine(t *testing.T) {
	e := apitest.New(start())
	ended, entered := make(chan struct{}), make(chan struct{})
	e.Hook("PairJoin", func(ctx context.Context) { close(entered); <-ctx.Done(); close(ended) })
	c := client(t, serve(t, e))
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-entered; cancel() }()
	_, err := c.PairJoin(ctx, api.PairJoin{Code: "1"})
	if api.AsError(err).Code != api.CodeCancelled {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestEndOfServeEndsRequests(t *testing.T) {
	e := apitest.New(start())
	entered := make(chan struct{})
	left := false
	e.Hook("PairJoin", func(ctx context.Context) { close(entered); <-ctx.Done(); left = true })
	socket := api.SocketPath(t.TempDir())
	stop := serveAt(t, e, socket)
	c, ctx := client(t, socket), deadline(t)
	events, err := c.Watch(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = c.PairJoin(ctx, api.PairJoin{Code: "1"}) }()
	<-entered
	stop()
	if !left { // unguarded on purpose: Serve has waited, the race detector proves it
		t.Error("Serve returned before its requests")
	}
	for range events {
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestWatch(t *testing.T) {
	e := apitest.New(start())
	e.Emit(api.Event{Kind: "old"})
	e.Emit(api.Event{Kind: "kept", Text: "two\nlines", Switch: &api.Switch{ID: "s", Phase: api.PhaseDone}})
	c := client(t, serve(t, e))
	ctx, cancel := context.WithCancel(deadline(t))
	events, err := c.Watch(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	first := <-events
	if first.Kind != "kept" || first.Seq != 2 || first.Text != "two\nlines" || first.Switch == nil || first.Switch.Phase != api.PhaseDone {
		t.Errorf("first event %+v", first)
	}
	for n := range 500 {
		e.Emit(api.Event{Kind: fmt.Sprint(n)})
		if ev := <-events; ev.Kind != fmt.Sprint(n) || ev.Seq != uint64(n+3) {
			t.Fatalf("event %d is %+v", n, ev)
		}
	}
	cancel()
	for range events {
	}
	for e.Watchers() != 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline(t).Done():
			t.Fatal("the engine still has a watcher")
		}
	}
}

func TestWatchersAreCounted(t *testing.T) {
	c, ctx := client(t, serve(t, apitest.New(start()))), deadline(t)
	ctx, cancel := context.WithCancel(ctx)
	var open []<-chan api.Event
	var refused error
	for refused == nil && len(open) < 1000 {
		events, err := c.Watch(ctx, 0)
		if refused = err; err == nil {
			open = append(open, events)
		}
	}
	if api.AsError(refused).Code != api.CodeBusy {
		t.Errorf("after %d watches: %v", len(open), refused)
	}
	cancel()
	for _, events := range open {
		for range events {
		}
	}
}

func TestForeignServerIsNoEngine(t *testing.T) {
	socket := api.SocketPath(t.TempDir())
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	version := ""
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if version != "" {
			w.Header().Set("Tagalong-Api", version)
		}
		_, _ = io.WriteString(w, "{}")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	c := client(t, socket)
	for _, version = range []string{"", "2"} {
		if _, err := c.Status(deadline(t)); api.AsError(err).Code != api.CodeUsage {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

func TestStreamIsLines(t *testing.T) {
	e := apitest.New(start())
	e.Emit(api.Event{Kind: "one"})
	conn, err := net.Dial("unix", serve(t, e))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	// resp.Body isn't closed: that would wait for the stream's end. Closing conn is enough.
	lines := bufio.NewReader(resp.Body)
	if blank, err := lines.ReadString('\n'); blank != "\n" {
		t.Errorf("no sign of life: %q, %v", blank, err)
	}
	line, err := lines.ReadString('\n')
	if err != nil || !strings.Contains(line, `"kind":"one"`) || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%q, %v", line, err)
	}
}
