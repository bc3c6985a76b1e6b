package api

import (
	"context"
	"net/http"
)

// Preflight is what stands in the way of a switch, found out without switching.
type Preflight struct {
	VM       string `json:"vm"`
	VMName   string `json:"vm_name"`
	From     string `json:"from"`
	FromName string `json:"from_name"`
	To       string `json:"to"`
	ToName   string `json:"to_name"`
	// Way is the best way that is left, one of the Way constants.
	Way      Way       `json:"way"`
	Findings []Finding `json:"findings"`
	// Ways are what a person can ask for of a VM that runs, compared; Best is the best of them, "" if none is possible, and Why says why, if there is
	// something to say.
	Ways []WayEstimate `json:"ways,omitempty"`
	Best Way           `json:"best,omitempty"`
	Why  string        `json:"why,omitempty"`
	// Basis is what the times of Ways go by; nil where they have none.
	Basis *WayBasis `json:"basis,omitempty"`
}

// Finding is one thing that stands in a switch's way, or that a person should know before it.
type Finding struct {
	// Code is one of preflight's: a word that stays the same.
	Code     string `json:"code"`
	Sentence string `json:"sentence"`
	Next     string `json:"next,omitempty"` // what to do about it
	// Stops says that the running VM can't move because of it; Left is then the best way that is left.
	Stops bool `json:"stops,omitempty"`
	Left  Way  `json:"left,omitempty"`
}

// Unfit is a device of the fleet that a running VM can't move to as it is.
type Unfit struct {
	Device     string `json:"device"`
	DeviceName string `json:"device_name"`
	// Code and Sentence are the first finding that stands in the way.
	Code     string `json:"code"`
	Sentence string `json:"sentence"`
}

// SetBridge says which network bridge of this device its VMs are on, those that are to be on the local network themselves.
type SetBridge struct {
	Bridge string `json:"bridge"` // a bridge's name, BridgeAuto or BridgeNone
}

// What SetBridge takes beside names.
const (
	BridgeAuto = "auto" // the only one there is
	BridgeNone = "none" // VMs are behind this device
)

// CheckSwitch implements Engine.
func (c *Client) CheckSwitch(ctx context.Context, req SwitchVM) (*Preflight, error) {
	return call[Preflight](ctx, c, http.MethodPost, "/v1/switches/check", req)
}

// SetBridge implements Engine.
func (c *Client) SetBridge(ctx context.Context, req SetBridge) error {
	return c.do(ctx, http.MethodPost, "/v1/devices/bridge", req, nil)
}
