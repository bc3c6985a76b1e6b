package api

import (
	"context"
	"net/http"
	"net/url"
)

// Takeover implements Engine. It gives up after 10 seconds.
func (c *Client) Takeover(ctx context.Context, vm string) (*Takeover, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return call[Takeover](ctx, c, http.MethodGet, "/v1/vms/takeover?vm="+url.QueryEscape(vm), nil)
}

// TakeOver implements Engine.
func (c *Client) TakeOver(ctx context.Context, req TakeOverVM) error {
	return c.do(ctx, http.MethodPost, "/v1/vms/takeover", req, nil)
}

// Resolve implements Engine.
func (c *Client) Resolve(ctx context.Context, req ResolveConflict) (*Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/vms/resolve", req)
}

// DeleteRestorePoint implements Engine.
func (c *Client) DeleteRestorePoint(ctx context.Context, req RestorePointRef) error {
	return c.do(ctx, http.MethodPost, "/v1/restorepoints/delete", req, nil)
}

// OpenRestorePoint implements Engine.
func (c *Client) OpenRestorePoint(ctx context.Context, req RestorePointRef) error {
	return c.do(ctx, http.MethodPost, "/v1/restorepoints/open", req, nil)
}

// CloseRestorePoint implements Engine.
func (c *Client) CloseRestorePoint(ctx context.Context, req RestorePointRef) error {
	return c.do(ctx, http.MethodPost, "/v1/restorepoints/close", req, nil)
}

// GoOffline implements Engine.
func (c *Client) GoOffline(ctx context.Context, req GoOffline) (*Job, error) {
	return call[Job](ctx, c, http.MethodPost, "/v1/offline", req)
}

// GoOnline implements Engine.
func (c *Client) GoOnline(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/v1/offline", nil, nil)
}

// LeaveFleet implements Engine.
func (c *Client) LeaveFleet(ctx context.Context, req LeaveFleet) error {
	return c.do(ctx, http.MethodPost, "/v1/leave", req, nil)
}

// Rollback implements Engine. It gives up after 10 seconds.
func (c *Client) Rollback(ctx context.Context, vm string) (*Rollback, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return call[Rollback](ctx, c, http.MethodGet, "/v1/vms/rollback?vm="+url.QueryEscape(vm), nil)
}

// RollBack implements Engine.
func (c *Client) RollBack(ctx context.Context, req RollBackVM) error {
	return c.do(ctx, http.MethodPost, "/v1/vms/rollback", req, nil)
}
