package baton

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

const (
	formatVersion = 2
	maxEncoded    = 16 << 10 // bytes
	maxName       = 256      // bytes of a device ID, ask or attempt
	maxAborted    = 8        // aborted attempts remembered
)

// durable is what survives a restart: the machine as of its last persisted step.
type durable struct {
	Version  int      `json:"version"`
	State    State    `json:"state"` // Replica, Accepting, Owned, Given or (version 2) Ousted
	Term     uint64   `json:"term"`  // highest term accepted or given away by this device
	Peer     string   `json:"peer,omitempty"`
	Attempt  string   `json:"attempt,omitempty"`
	Position Position `json:"position"`
	Live     bool     `json:"live,omitempty"`
	// Returning: owned, but on the way back to Peer, which holds the guest.
	Returning bool `json:"returning,omitempty"`
	// Returned: given by sending the baton back.
	Returned bool     `json:"returned,omitempty"`
	Aborted  []string `json:"aborted,omitempty"`

	// What follows is version 2's.

	// Held: owned by a transfer whose giver still held the guest.
	Held bool `json:"held,omitempty"`
	// Over is the term of the newest head by which this device's history was
	// cut off, or that it cut off another's with: transfers of lower terms
	// belong to a history that lost, and are neither taken nor answered.
	Over  uint64 `json:"over,omitempty"`
	Owner string `json:"owner,omitempty"` // the owner of Over, or ""
	// Judge: this replica was not compared with Over's history yet.
	Judge bool `json:"judge,omitempty"`
	// Took: Ousted, but the transfer of Term was taken and may be answered so.
	Took bool `json:"took,omitempty"`
	// Kept: Ousted; it is signed that something of its own is held here.
	Kept bool `json:"kept,omitempty"`
	// Chosen: Ousted; the term of the choice by which it is to be set aside.
	Chosen uint64 `json:"chosen,omitempty"`
}

// second tells whether d says something that version 1 could not.
func (d durable) second() bool {
	return d.State == Ousted || d.Held || d.Over != 0 || d.Owner != "" || d.Judge || d.Took || d.Kept || d.Chosen != 0
}

func (d durable) encode() []byte {
	d.Version = formatVersion
	// A struct of strings, numbers and flags always marshals.
	b, _ := json.Marshal(d)
	return b
}

// aborting returns d with attempt among the aborted ones.
func (d durable) aborting(attempt string) durable {
	if attempt == "" || slices.Contains(d.Aborted, attempt) {
		return d
	}
	list := append(slices.Clone(d.Aborted), attempt)
	if len(list) > maxAborted {
		list = list[len(list)-maxAborted:]
	}
	d.Aborted = list
	return d
}

func decode(b []byte) (durable, error) {
	var d durable
	if len(b) > maxEncoded {
		return d, fmt.Errorf("baton: decode %d bytes: %w", len(b), ErrCorrupt)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return d, fmt.Errorf("baton: decode: %w: %w", ErrCorrupt, err)
	}
	if head.Version < 1 || head.Version > formatVersion {
		return d, fmt.Errorf("baton: decode version %d: %w", head.Version, ErrVersion)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return durable{}, fmt.Errorf("baton: decode: %w: %w", ErrCorrupt, err)
	}
	if err := d.check(); err != nil {
		return durable{}, fmt.Errorf("baton: decode: %w", err)
	}
	return d, nil
}

func (d durable) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrCorrupt, what) }
	switch d.State {
	case Replica, Accepting:
	case Owned, Given:
		if d.Term == 0 {
			return bad("term")
		}
	case Ousted:
		if d.Over == 0 || d.Owner == "" {
			return bad("owner")
		}
	default:
		return bad("state")
	}
	if (d.State == Given || d.Returning || d.Held) && d.Peer == "" {
		return bad("peer")
	}
	if d.Version < 2 && d.second() {
		return bad("version")
	}
	if d.State != Ousted && (d.Took || d.Kept || d.Chosen != 0) || d.Held && d.State != Owned || d.Judge && (d.Over == 0 || d.State == Owned || d.State == Given) {
		return bad("state")
	}
	if len(d.Owner) > maxName || len(d.Peer) > maxName || len(d.Attempt) > maxName || len(d.Aborted) > maxAborted {
		return bad("size")
	}
	for _, a := range d.Aborted {
		if len(a) > maxName {
			return bad("size")
		}
	}
	return nil
}
