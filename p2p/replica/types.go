package replica

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"

	"tagalong.org/tagalong/p2p/wire"
)

// Block is the unit of offsets and lengths, in bytes.
const Block = 4096

// MaxSize is the largest disk, in bytes.
const MaxSize = int64(1) << 46

// MaxText is the longest text of a Refusal, in bytes.
const MaxText = 1024

// ID is 16 bytes that travel as hex in JSON.
type ID [16]byte

// MarshalText returns the ID in hex.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText accepts exactly 32 hex digits.
func (id *ID) UnmarshalText(p []byte) error {
	if len(p) != 2*len(id) {
		return fmt.Errorf("ID of %d characters: %w", len(p), wire.ErrMalformed)
	}
	if _, err := hex.Decode(id[:], p); err != nil {
		return fmt.Errorf("ID: %w: %w", wire.ErrMalformed, err)
	}
	return nil
}

// Position says how far a replica has come.
type Position struct {
	Term    uint64 `json:"term"`
	Barrier uint64 `json:"barrier"`
}

// Compare orders positions by term, then barrier.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Term, q.Term), cmp.Compare(p.Barrier, q.Barrier))
}

// Target is the part of a hello that all protocols have: which disk is meant, by the owner of which term.
type Target struct {
	VM   string `json:"vm"`
	Disk ID     `json:"disk"`
	Size int64  `json:"size"` // bytes, a multiple of Block
	Term uint64 `json:"term"`
}

// Check tells what is wrong with t, if anything, as an error that wraps fault.
func (t Target) Check(fault error) error {
	switch {
	case t.Size <= 0 || t.Size%Block != 0 || t.Size > MaxSize:
		return fmt.Errorf("disk of %d bytes: %w", t.Size, fault)
	case t.Term == 0:
		return fmt.Errorf("term 0: %w", fault)
	case t.VM == "" || len(t.VM) > 256:
		return fmt.Errorf("VM name of %d bytes: %w", len(t.VM), fault)
	case t.Disk == ID{}:
		return fmt.Errorf("disk without an ID: %w", fault)
	}
	return nil
}

// State is what the replica has. If Complete, it is the disk at Position. Copy
// names an unfinished copy, and is zero if there is none; its last checkpoint is
// Position if the replica isn't Complete, else Checkpoint. A Position of 0/1 says that Copy names what a replica offers to be compared that isn't Complete.
type State struct {
	Complete   bool     `json:"complete"`
	Position   Position `json:"position"`
	Copy       ID       `json:"copy"`
	Checkpoint Position `json:"checkpoint"`
}

// Codes of a Refusal.
const (
	RefuseVersion = "version"     // the replica doesn't speak this version
	RefuseHello   = "hello"       // the hello makes no sense
	RefuseUnknown = "unknown"     // the replica has no such disk and doesn't want it
	RefuseOldTerm = "old-term"    // the replica has seen a newer term
	RefuseBusy    = "busy"        // the disk is in use there, or another stream feeds it
	RefuseOther   = "unspecified" // see the text
)

// Refusal is the replica's answer when it doesn't want the protocol to go on.
type Refusal struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("refused (%.64q): %.1024s", r.Code, r.Text)
}

// refusalOf tells the owner about err.
func refusalOf(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return &Refusal{Code: r.Code, Text: Clip(r.Text)}
	}
	return &Refusal{Code: RefuseOther, Text: Clip(err.Error())}
}

// Clip shortens a text to MaxText bytes.
func Clip(s string) string { return s[:min(len(s), MaxText)] }
