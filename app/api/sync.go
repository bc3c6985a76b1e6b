package api

import (
	"context"
	"net/http"
	"time"
)

// Sync is what a person set about what goes from this device to its fleet's other sites and comes from there, and what applies now. What goes
// between devices of one site isn't concerned. Rates are in bytes a second, 0 is without limit.
type Sync struct {
	// May says that changes may go now. Why is "" while nothing holds them back, and otherwise one of:
	// "unreadable", "paused", "looking", "metered", "low-battery", "schedule" (these forbid), "slow-times", "on-battery", "limited". Text says
	// it in English.
	May  bool   `json:"may"`
	Why  string `json:"why,omitempty"`
	Text string `json:"text,omitempty"`
	// Until is when this changes by time alone, if it does within a week.
	Until time.Time `json:"until,omitzero"`
	// Up and Down are what applies now.
	Up   int64 `json:"up"`
	Down int64 `json:"down"`
	// Asked says that the person wished to have changes of some VM at other sites now, and that isn't done.
	Asked bool `json:"asked,omitempty"`
	// Pushes is how many are under way to or from other sites.
	Pushes      int       `json:"pushes"`
	Paused      bool      `json:"paused,omitempty"`
	PausedUntil time.Time `json:"paused_until,omitzero"` // zero: until somebody resumes
	// Metered says that the connection costs by the byte, OnBattery what this device runs on; Percent is the battery's, 0 if it isn't known.
	Metered   bool `json:"metered,omitempty"`
	OnBattery bool `json:"on_battery,omitempty"`
	Percent   int  `json:"percent,omitempty"`
	// Settings are empty while Problem, of the file that has them, is set.
	Settings SyncSettings `json:"settings"`
	Problem  *Error       `json:"problem,omitempty"`
}

// SyncSettings are what can be set. Rates are in bytes a second, from 1024 on, and 0 is without limit.
type SyncSettings struct {
	Up       int64       `json:"up"`
	Down     int64       `json:"down"`
	Schedule []SyncTimes `json:"schedule"`
	// Metered is "avoid" or "allow".
	Metered string      `json:"metered"`
	Battery SyncBattery `json:"battery"`
}

// SyncTimes are times of the week with what applies then. Do is "off" (nothing goes), "only" (nothing goes but then and in other such times) or "limit"
// (Up and Down apply).
type SyncTimes struct {
	// When is "[DAYS ]HH:MM-HH:MM" by this device's clock, as "mon-fri 08:00-18:00", "sat,sun 22:00-06:00", "00:00-24:00".
	When string `json:"when"`
	Do   string `json:"do"`
	Up   int64  `json:"up,omitempty"`
	Down int64  `json:"down,omitempty"`
}

// SyncBattery is what applies while a device runs on its battery.
type SyncBattery struct {
	// Ignore says that it is all the same.
	Ignore bool `json:"ignore,omitempty"`
	// Below is the charge, in percent, under which nothing goes; 0 is none. Rate bounds both directions above that.
	Below int   `json:"below"`
	Rate  int64 `json:"rate"`
}

// SetSync changes what is set: what isn't nil. Reset comes first, and makes all as if nothing had ever been set; settings that can't be read are put
// aside by it, and must be before anything else can be set.
type SetSync struct {
	Up       *int64       `json:"up,omitempty"`
	Down     *int64       `json:"down,omitempty"`
	Schedule *[]SyncTimes `json:"schedule,omitempty"`
	Metered  *string      `json:"metered,omitempty"`
	Battery  *SyncBattery `json:"battery,omitempty"`
	Reset    bool         `json:"reset,omitempty"`
}

// SyncNow wishes to have what changed of a VM at the other sites now, and not when nobody works with it; "" is of all VMs. For one round this
// goes before a pause, the schedule, and what else holds changes back, but the limits stay.
type SyncNow struct {
	VM string `json:"vm,omitempty"`
}

// PauseSync holds changes back.
type PauseSync struct {
	// Seconds is for how long; 0 is until somebody resumes.
	Seconds int64 `json:"seconds,omitempty"`
}

// SetSync implements Engine.
func (c *Client) SetSync(ctx context.Context, req SetSync) error {
	return c.do(ctx, http.MethodPost, "/v1/sync", req, nil)
}

// SyncNow implements Engine.
func (c *Client) SyncNow(ctx context.Context, req SyncNow) error {
	return c.do(ctx, http.MethodPost, "/v1/sync/now", req, nil)
}

// PauseSync implements Engine.
func (c *Client) PauseSync(ctx context.Context, req PauseSync) error {
	return c.do(ctx, http.MethodPost, "/v1/sync/pause", req, nil)
}

// ResumeSync implements Engine.
func (c *Client) ResumeSync(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/v1/sync/pause", nil, nil)
}
