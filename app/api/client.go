package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// readTimeout bounds the requests that only read: an engine that takes longer is stuck.
const readTimeout = 10 * time.Second

// Client is an Engine in another process, reached through its socket. It is safe for concurrent
// use, needs no connection to be made, and outlives restarts of the engine. Every failure it
// returns is an *Error; CodeNoEngine when none answers.
type Client struct {
	socket string
	http   *http.Client
}

var _ Engine = (*Client)(nil)

// NewClient makes a client for the engine behind socket; see SocketPath. It doesn't connect.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:            c.dial,
			DisableCompression:     true,
			MaxIdleConns:           4,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close lets go of idle connections. Requests and watches under way end with their contexts.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := checkPrivateDir(c.socket); err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.socket)
}

// WaitReady returns when the engine answers, or with the last failure when ctx ends.
func (c *Client) WaitReady(ctx context.Context) error {
	pause := 10 * time.Millisecond
	for {
		_, err := c.Status(ctx)
		if err == nil {
			return nil
		}
		if AsError(err).Code != CodeNoEngine {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(2*pause, 250*time.Millisecond)
	}
}

// Status implements Engine. It gives up after 10 seconds.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return call[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// CreateVM implements Engine.
func (c *Client) CreateVM(ctx context.Context, req CreateVM) (*Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/vms", req)
}

// CancelJob implements Engine.
func (c *Client) CancelJob(ctx context.Context, id string) error {
	return c.tell(ctx, http.MethodDelete, "/v1/jobs", "id", id)
}

// StartVM implements Engine.
func (c *Client) StartVM(ctx context.Context, vm string) error {
	return c.tell(ctx, http.MethodPost, "/v1/vms/start", "vm", vm)
}

// StopVM implements Engine.
func (c *Client) StopVM(ctx context.Context, vm string, force bool) error {
	if err := needName(vm); err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, "/v1/vms/stop", stopVM{VM: vm, Force: force}, nil)
}

// ResetVM implements Engine.
func (c *Client) ResetVM(ctx context.Context, vm string) error {
	return c.tell(ctx, http.MethodPost, "/v1/vms/reset", "vm", vm)
}

// OpenScreen implements Engine.
func (c *Client) OpenScreen(ctx context.Context, vm string) (*Screen, error) {
	if err := needName(vm); err != nil {
		return nil, err
	}
	return call[Screen](ctx, c, http.MethodPost, "/v1/vms/screen", screenOf{VM: vm})
}

// SuspendVM implements Engine.
func (c *Client) SuspendVM(ctx context.Context, vm string) error {
	return c.tell(ctx, http.MethodPost, "/v1/vms/suspend", "vm", vm)
}

// ResumeVM implements Engine.
func (c *Client) ResumeVM(ctx context.Context, vm string) error {
	return c.tell(ctx, http.MethodPost, "/v1/vms/resume", "vm", vm)
}

// RemoveVM implements Engine.
func (c *Client) RemoveVM(ctx context.Context, vm string) error {
	return c.tell(ctx, http.MethodDelete, "/v1/vms", "vm", vm)
}

// SetVM implements Engine.
func (c *Client) SetVM(ctx context.Context, req SetVM) error {
	if err := needName(req.VM); err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, "/v1/vms/settings", req, nil)
}

// AddDisk implements Engine.
func (c *Client) AddDisk(ctx context.Context, req AddDisk) (*Job, error) {
	if err := needName(req.VM); err != nil {
		return nil, err
	}
	return call[Job](ctx, c, http.MethodPost, "/v1/vms/disks", req)
}

// GrowDisk implements Engine.
func (c *Client) GrowDisk(ctx context.Context, req GrowDisk) error {
	if err := needName(req.VM); err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, "/v1/vms/disks/grow", req, nil)
}

// RemoveDisk implements Engine.
func (c *Client) RemoveDisk(ctx context.Context, req RemoveDisk) error {
	if err := needName(req.VM); err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, "/v1/vms/disks/remove", req, nil)
}

// SeedVM implements Engine.
func (c *Client) SeedVM(ctx context.Context, req SeedVM) (*Job, error) {
	if err := needName(req.VM); err != nil {
		return nil, err
	}
	return call[Job](ctx, c, http.MethodPost, "/v1/vms/seed", req)
}

// DiskInfo implements Engine. It gives up after 10 seconds.
func (c *Client) DiskInfo(ctx context.Context, disk string) (*DiskInfo, error) {
	if err := needName(disk); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return call[DiskInfo](ctx, c, http.MethodGet, "/v1/disks?disk="+url.QueryEscape(disk), nil)
}

// ExportDisk implements Engine.
func (c *Client) ExportDisk(ctx context.Context, req ExportDisk) (*Job, error) {
	if err := needName(req.Disk); err != nil {
		return nil, err
	}
	return call[Job](ctx, c, http.MethodPost, "/v1/disks/export", req)
}

// CheckDisk implements Engine.
func (c *Client) CheckDisk(ctx context.Context, req CheckDisk) (*Job, error) {
	if err := needName(req.Disk); err != nil {
		return nil, err
	}
	return call[Job](ctx, c, http.MethodPost, "/v1/disks/check", req)
}

// VerifyVM implements Engine.
func (c *Client) VerifyVM(ctx context.Context, req VerifyVM) (*Job, error) {
	if err := needName(req.VM); err != nil {
		return nil, err
	}
	return call[Job](ctx, c, http.MethodPost, "/v1/vms/verify", req)
}

// Switch implements Engine.
func (c *Client) Switch(ctx context.Context, req SwitchVM) (*Switch, error) {
	return call[Switch](ctx, c, http.MethodPost, "/v1/switches", req)
}

// CancelSwitch implements Engine.
func (c *Client) CancelSwitch(ctx context.Context, id string) error {
	return c.tell(ctx, http.MethodDelete, "/v1/switches", "id", id)
}

// PairStart implements Engine.
func (c *Client) PairStart(ctx context.Context, req PairStart) (*Pairing, error) {
	return call[Pairing](ctx, c, http.MethodPost, "/v1/pairing", req)
}

// PairJoin implements Engine. It waits as long as ctx and the other device let it.
func (c *Client) PairJoin(ctx context.Context, req PairJoin) (*Pairing, error) {
	return call[Pairing](ctx, c, http.MethodPost, "/v1/pairing/join", req)
}

// PairCancel implements Engine.
func (c *Client) PairCancel(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/v1/pairing", nil, nil)
}

// RemoveDevice implements Engine.
func (c *Client) RemoveDevice(ctx context.Context, req RemoveDevice) error {
	if err := needName(req.Device); err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, "/v1/devices/remove", req, nil)
}

// PinDevice implements Engine.
func (c *Client) PinDevice(ctx context.Context, req PinDevice) error {
	if err := needName(req.Device); err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, "/v1/devices/site", req, nil)
}

// History implements Engine. It gives up after 10 seconds.
func (c *Client) History(ctx context.Context, vm string) ([]HistoryEntry, error) {
	if err := needName(vm); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	entries, err := call[[]HistoryEntry](ctx, c, http.MethodGet, "/v1/vms/history?vm="+url.QueryEscape(vm), nil)
	if err != nil {
		return nil, err
	}
	return *entries, nil
}

// Shutdown implements Engine.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/shutdown", nil, nil)
}

// call makes a request whose answer is one T.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	var out T
	if err := c.do(ctx, method, path, body, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

// tell makes a request about one named thing that is answered by nothing but success.
func (c *Client) tell(ctx context.Context, method, path, key, name string) error {
	if err := needName(name); err != nil {
		return err
	}
	return c.do(ctx, method, path+"?"+key+"="+url.QueryEscape(name), nil, nil)
}

// do makes one request and decodes its answer into out, unless that is nil.
func (c *Client) do(ctx context.Context, method, path string, body, out any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBytes+1))
	if err != nil {
		return c.failure(ctx, fmt.Errorf("read answer: %w", err))
	}
	if len(data) > maxResponseBytes {
		return &Error{Code: CodeInternal, Sentence: "The engine's answer is too long.", Next: "Please report this.",
			Cause: fmt.Sprintf("answer to %s %s is over %d bytes", method, path, maxResponseBytes)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return &Error{Code: CodeInternal, Sentence: "The engine's answer can't be read.", Next: "Please report this.",
			Cause: fmt.Sprintf("decode answer to %s %s: %v", method, path, err)}
	}
	return nil
}

// send makes one request and turns every answer that isn't a success into an error.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, AsError(fmt.Errorf("encode request: %w", err))
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://tagalong"+path, reader)
	if err != nil {
		return nil, AsError(fmt.Errorf("make request: %w", err))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failure(ctx, err)
	}
	if e := refusal(resp); e != nil {
		_ = resp.Body.Close()
		return nil, e
	}
	return resp, nil
}

// refusal is the error in an answer that isn't a success, or nil.
func refusal(resp *http.Response) *Error {
	if v := resp.Header.Get(versionHeader); v != strconv.Itoa(Version) {
		e := &Error{Code: CodeUsage, Sentence: "The engine that runs here is of another version.",
			Next:  "Use the same version of Tagalong for the engine and for its window and command line.",
			Cause: fmt.Sprintf("engine speaks version %q of the API, this program %d", v, Version)}
		if v == "" {
			e.Sentence, e.Cause = "Something else than Tagalong's engine answers here.", "answer without "+versionHeader
		}
		return e
	}
	if resp.StatusCode/100 == 2 {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxRequestBytes))
	var e Error
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err != nil || e.Code == "" || e.Sentence == "" {
		return AsError(fmt.Errorf("engine answered %s", resp.Status))
	}
	return &e
}

// failure turns a failed exchange into what the person should know.
func (c *Client) failure(ctx context.Context, err error) *Error {
	var e *Error
	why := context.Cause(ctx)
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(why, context.Canceled):
		return &Error{Code: CodeCancelled, Sentence: "Cancelled.", Cause: err.Error()}
	case errors.Is(why, context.DeadlineExceeded):
		return &Error{Code: CodeNoEngine, Sentence: "The engine doesn't answer in time.",
			Next: "If this lasts, stop it and start it again with: tagalong engine", Cause: err.Error()}
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return noEngine(err)
	}
	return &Error{Code: CodeNoEngine, Sentence: "The engine ended before it had answered.",
		Next: "See whether it runs with: tagalong status", Cause: err.Error()}
}

// noEngine is the failure of a client that nobody answers.
func noEngine(cause error) *Error {
	return &Error{Code: CodeNoEngine, Sentence: "No engine runs here.", Next: "Start it with: tagalong engine", Cause: cause.Error()}
}
