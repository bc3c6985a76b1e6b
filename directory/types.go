package directory

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// schema is the version of the values below.
const schema = 1

// Limits of values.
const (
	maxID       = 128      // bytes of a device ID
	maxVMID     = 64       // bytes of a VM or disk ID
	maxName     = 256      // bytes
	maxAddrs    = 64       // of one device
	maxAddr     = 512      // bytes
	maxSite     = 32 << 10 // bytes of what a device says of where it is
	maxHardware = 16 << 10 // bytes of what a device can give to a guest
	maxSync     = 4 << 10  // bytes of how a copy gets on
	maxReplicas = 256      // of one VM
	maxHeeds    = 64       // of one VM
	maxTransfer = 4096     // bytes of a transfer's value
	maxNote     = 2048     // bytes of a note's, or a member's, value
	maxOver     = 16       // histories given up by one choice
	maxHow      = 32       // bytes of how a choice is carried out
	maxTerm     = 1<<31 - 1
)

// Position is how far a replica has come.
type Position struct {
	Term    uint64 `json:"term"`
	Barrier uint64 `json:"barrier"`
}

// Hash names a transfer.
type Hash [32]byte

// MarshalText returns h in hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != 2*len(h) {
		return fmt.Errorf("hash of %d digits: %w", len(b), ErrInvalid)
	}
	if _, err := hex.Decode(h[:], b); err != nil {
		return fmt.Errorf("hash: %w: %w", ErrInvalid, err)
	}
	return nil
}

// String returns h in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Device is what a device says of itself.
type Device struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Addrs      []string  `json:"addrs,omitempty"`
	AppVersion string    `json:"appVersion,omitempty"`
	At         time.Time `json:"at,omitzero"`
	// Offline says that it works offline and expects nobody, Since when by its clock.
	Offline bool      `json:"offline,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	// Site is what it says of where it is, JSON with a version of its own that this package only carries: nil in records of
	// programs that know of no sites.
	Site json.RawMessage `json:"site,omitempty"`
	// Hardware is what it can give to a guest: "" in records of programs that don't tell it.
	Hardware Carried `json:"hardware,omitempty"`
}

// ReplicaInfo is what the owner knows of a device's copy.
type ReplicaInfo struct {
	Position Position `json:"position"`
	// Of is the owner's position at which StaleBlocks were counted: the replica lacks at most those of what the disk was then.
	Of          Position `json:"of,omitzero"`
	StaleBlocks uint64   `json:"staleBlocks"` // of 4 KiB
	Complete    bool     `json:"complete"`    // it is the disk at Position; else it is none yet
	// Certain says that the guest was stopped and nothing was written after Of, as far as the writer knows.
	Certain bool      `json:"certain,omitempty"`
	At      time.Time `json:"at,omitzero"`    // when that was found out, and
	Heard   time.Time `json:"heard,omitzero"` // when the device was last heard, by the writer's clock
	// Sync is how the copy gets on: "" in records of programs that don't tell it.
	Sync Carried `json:"sync,omitempty"`
}

// Carried is JSON with a version of its own, that this package only carries.
type Carried string

// MarshalJSON returns c.
func (c Carried) MarshalJSON() ([]byte, error) { return []byte(c), nil }

// UnmarshalJSON keeps b as it is.
func (c *Carried) UnmarshalJSON(b []byte) error {
	*c = Carried(b)
	return nil
}

// VM is what the owner says of its VM. Term, Owner and Head are the preferred
// head's when it is read, even if the new owner hasn't written the rest yet;
// Written is the term under which the rest was written.
type VM struct {
	ID        string                 `json:"id"`
	Name      string                 `json:"name"`
	Spec      json.RawMessage        `json:"spec,omitempty"`
	Disk      string                 `json:"disk,omitempty"` // hexadecimal ID
	DiskBytes int64                  `json:"diskBytes"`
	Term      uint64                 `json:"term"`
	Owner     string                 `json:"owner"`
	State     string                 `json:"state,omitempty"`
	Position  Position               `json:"position"`
	Replicas  map[string]ReplicaInfo `json:"replicas,omitempty"` // by device ID
	Head      Hash                   `json:"head"`               // of the transfer that began Term
	At        time.Time              `json:"at,omitzero"`
	Removed   bool                   `json:"removed,omitempty"`
	// Offline says that the owner works offline with it, OfflineSince when by its clock. As the rest, it holds only if Written
	// is Term: the owner of before may have said it.
	Offline      bool      `json:"offline,omitempty"`
	OfflineSince time.Time `json:"offlineSince,omitzero"`
	Written      uint64    `json:"-"`
	// Checked is the term of the newest choice to repair after which the guest was asked to check its file systems.
	Checked uint64 `json:"checked,omitempty"`
	// Stand is how the owner's own disk gets on: "" in records of programs that don't tell it. It holds only if Written is Term.
	Stand Carried `json:"stand,omitempty"`
	// Heeds are the terms of choices that keep this history but aren't in it, another choice of the same side being preferred: its
	// owner knows them, and chooses nothing any more that they gave up. At most 64, the newest, rising. PutVM fills it in.
	Heeds []uint64 `json:"heeds,omitempty"`
}

// Kind is why a term began.
type Kind string

// The kinds of transfers. The last three are forced: they don't come from the
// owner's hand.
const (
	KindCreated  Kind = "created"
	KindSwitch   Kind = "switch"
	KindReturned Kind = "returned" // given back unused
	KindTakeover Kind = "takeover" // signed by who takes, without the owner
	KindKept     Kind = "kept"     // "I hold something of this history that a takeover lacks": never active by itself
	KindResolved Kind = "resolved" // the person's choice between histories
)

func (k Kind) forced() bool { return k == KindTakeover || k == KindKept || k == KindResolved }

// consented says that the owner before has signed it.
func (k Kind) consented() bool { return k == KindSwitch || k == KindReturned }

// Transfer begins a term of a VM.
type Transfer struct {
	VM   string `json:"vm"`
	Term uint64 `json:"term"`
	// From is the device from which it comes: none for created, the owner before, willing or not, for the
	// others, and the signer of a resolved.
	From    string `json:"from,omitempty"`
	To      string `json:"to"` // device ID
	Attempt string `json:"attempt,omitempty"`
	// Position is where the new term begins: the last of the term before, or of a forced transfer where the
	// taker's replica is. Of a resolved it is what the signer knew of the kept side, and only shown.
	Position Position  `json:"position"`
	Prev     Hash      `json:"prev"`
	Kind     Kind      `json:"kind"`
	At       time.Time `json:"at,omitzero"`
	// Above is, of a forced transfer, the highest term that its signer knew of the VM, if what else it names is
	// lower: so the new term is above every one that a disk may have seen.
	Above Hash `json:"above,omitzero"`
	// Over are the heads that a resolved gives up, ascending. How and Name say what is to be done with them;
	// this package carries them only.
	Over []Hash `json:"over,omitempty"`
	How  string `json:"how,omitempty"`
	Name string `json:"name,omitempty"`
}

// versioned puts the schema's version before a value's own fields.
type versioned[T any] struct {
	Schema int `json:"schema"`
	Body   T   `json:"body"`
}

func encodeValue[T any](v T) ([]byte, error) {
	b, err := json.Marshal(versioned[T]{schema, v})
	if err != nil {
		return nil, fmt.Errorf("encode: %w: %w", ErrInvalid, err)
	}
	return b, nil
}

func decodeValue[T any](b []byte) (T, error) {
	var v versioned[T]
	err := json.Unmarshal(b, &v)
	if err == nil && v.Schema == schema {
		return v.Body, nil
	}
	var zero T
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return zero, fmt.Errorf("decode: %w: %w", ErrInvalid, err)
	}
	if head.Schema != schema { // the body may well be unreadable then
		return zero, fmt.Errorf("decode schema %d: %w", head.Schema, ErrVersion)
	}
	return zero, fmt.Errorf("decode: %w: %w", ErrInvalid, err)
}

func validID(id string) bool   { return validName(id, maxID) }
func validVMID(id string) bool { return validName(id, maxVMID) }

// validName keeps IDs such that a key has one reading.
func validName(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

func (dev *Device) check() error {
	bad := !validID(dev.ID) || len(dev.Name) > maxName || len(dev.AppVersion) > maxName || len(dev.Addrs) > maxAddrs
	for _, a := range dev.Addrs {
		bad = bad || len(a) > maxAddr
	}
	if bad {
		return fmt.Errorf("device: %w", ErrInvalid)
	}
	return nil
}

func (vm *VM) check() error {
	bad := !validVMID(vm.ID) || vm.Term == 0 || vm.Term > maxTerm || !validID(vm.Owner) || vm.DiskBytes < 0 ||
		len(vm.Name) > maxName || len(vm.State) > maxName || vm.Disk != "" && !validVMID(vm.Disk) || len(vm.Replicas) > maxReplicas || len(vm.Heeds) > maxHeeds
	for id := range vm.Replicas {
		bad = bad || !validID(id)
	}
	if bad {
		return fmt.Errorf("vm: %w", ErrInvalid)
	}
	return nil
}

func (t *Transfer) check() error {
	bad := !validVMID(t.VM) || t.Term == 0 || t.Term > maxTerm || !validID(t.To) || len(t.Attempt) > maxName ||
		t.Kind != KindResolved && (len(t.Over) > 0 || t.How != "" || t.Name != "") || !t.Kind.forced() && t.Above != Hash{}
	switch t.Kind {
	case KindCreated:
		bad = bad || t.Term != 1 || t.From != "" || t.Prev != Hash{}
	case KindSwitch, KindReturned:
		bad = bad || t.Term < 2 || !validID(t.From) || t.From == t.To
	case KindTakeover, KindKept:
		bad = bad || !validID(t.From)
	case KindResolved:
		bad = bad || !validID(t.From) || len(t.Over) == 0 || len(t.Over) > maxOver || len(t.How) > maxHow || len(t.Name) > maxName
		for i, h := range t.Over {
			bad = bad || h == t.Prev || i > 0 && bytes.Compare(t.Over[i-1][:], h[:]) >= 0
		}
	default:
		bad = true
	}
	if bad {
		return fmt.Errorf("transfer: %w", ErrInvalid)
	}
	return nil
}

// signer is the device that has to have signed t.
func (t *Transfer) signer() string {
	switch t.Kind {
	case KindCreated, KindTakeover, KindKept:
		return t.To
	default:
		return t.From
	}
}
