package handoff

import (
	"encoding/json"
	"fmt"
)

// Type names a message on the wire.
type Type string

// The types of messages.
const (
	TypeAsk      Type = "ask"      // taker → giver
	TypeInvite   Type = "invite"   // owner → the device that shall ask
	TypeRefuse   Type = "refuse"   // answers ask or invite
	TypeOffer    Type = "offer"    // giver → taker
	TypeReady    Type = "ready"    // taker → giver
	TypeProgress Type = "progress" // either way
	TypeLoaded   Type = "loaded"   // taker → giver
	TypeTransfer Type = "transfer" // giver → taker
	TypeActive   Type = "active"   // taker → giver
	TypeReturned Type = "returned" // taker → giver
	TypeAbort    Type = "abort"    // either way
	TypeAborted  Type = "aborted"  // answers abort
	TypeQuery    Type = "query"    // taker → giver
	TypeDone     Type = "done"     // giver → taker
)

// How an offer moves the VM.
const (
	KindTeleport = "teleport" // the running memory comes along
	KindBaton    = "baton"    // the guest is stopped; only ownership moves
)

// Msg is one message about one VM. Attempt tells the attempts to move it apart;
// an invite has none.
type Msg struct {
	VM      string
	Attempt string
	Body    Body
}

// Body is one of the message types below, by value.
type Body interface {
	Type() Type
	// check tells what is wrong with a received body, if anything.
	check() error
}

// Position says how far a disk has come.
type Position struct {
	Term    uint64 `json:"term"`
	Barrier uint64 `json:"barrier"`
}

// Facts is what the giver must know about the taker before anything moves.
type Facts struct {
	Hypervisor string   `json:"hypervisor"` // its version
	Accel      string   `json:"accel"`      // "kvm", "hvf", "whpx" or "tcg"
	CPUModels  []string `json:"cpuModels"`  // that the taker can run
	FreeBytes  int64    `json:"freeBytes"`  // of disk
	FreeMemory int64    `json:"freeMemory"` // bytes
}

// Ask asks the owner for the VM.
type Ask struct {
	Taker Facts `json:"taker"`
}

// Invite asks the other device to ask for the VM.
type Invite struct{}

// Refuse says no: a code for programs, a sentence for the person, and what the
// person can do next.
type Refuse struct {
	Code     string `json:"code"`
	Sentence string `json:"sentence"`
	Next     string `json:"next"`
}

// Offer says yes, and how.
type Offer struct {
	Spec        json.RawMessage `json:"spec"` // the VM's, opaque here
	Kind        string          `json:"kind"` // KindTeleport or KindBaton
	Term        uint64          `json:"term"` // the giver's
	Position    Position        `json:"position"`
	MemoryBytes int64           `json:"memoryBytes"`
}

// Ready says that the taker's hypervisor waits for the memory.
type Ready struct{}

// Progress tells how far the hand-off has come. Sizes are bytes, Rate is bytes
// a second, ETA is seconds, negative if unknown.
type Progress struct {
	Phase  string  `json:"phase"`
	Bytes  int64   `json:"bytes"`
	Total  int64   `json:"total"`
	Memory int64   `json:"memory"` // of Bytes, memory
	Disk   int64   `json:"disk"`   // of Bytes, disk
	Rate   float64 `json:"rate"`
	ETA    float64 `json:"eta"`
}

// Loaded is the taker's proof that memory and devices are loaded and the guest
// waits, paused.
type Loaded struct{}

// Transfer gives the VM away: the signed record, opaque here, the dirty sets of
// the other replicas (at most MaxDirty bytes), and whether the giver still
// holds the paused guest.
type Transfer struct {
	Record    json.RawMessage `json:"record"`
	GuestHeld bool            `json:"guestHeld"`
	Dirty     []byte          `json:"-"` // travels as the blob
}

// Active says that the taker owns the VM under this term and that it runs.
type Active struct {
	Term uint64 `json:"term"`
}

// Returned gives the VM back by a further signed record.
type Returned struct {
	Record json.RawMessage `json:"record"`
}

// Abort ends the attempt.
type Abort struct {
	Reason string `json:"reason"`
}

// Aborted confirms that the attempt is ended here, and durably so.
type Aborted struct{}

// Query asks what became of the attempt.
type Query struct{}

// Done closes the hand-off with its figures, opaque here.
type Done struct {
	Stats json.RawMessage `json:"stats"`
}

// Type returns TypeAsk.
func (Ask) Type() Type { return TypeAsk }

// Type returns TypeInvite.
func (Invite) Type() Type { return TypeInvite }

// Type returns TypeRefuse.
func (Refuse) Type() Type { return TypeRefuse }

// Type returns TypeOffer.
func (Offer) Type() Type { return TypeOffer }

// Type returns TypeReady.
func (Ready) Type() Type { return TypeReady }

// Type returns TypeProgress.
func (Progress) Type() Type { return TypeProgress }

// Type returns TypeLoaded.
func (Loaded) Type() Type { return TypeLoaded }

// Type returns TypeTransfer.
func (Transfer) Type() Type { return TypeTransfer }

// Type returns TypeActive.
func (Active) Type() Type { return TypeActive }

// Type returns TypeReturned.
func (Returned) Type() Type { return TypeReturned }

// Type returns TypeAbort.
func (Abort) Type() Type { return TypeAbort }

// Type returns TypeAborted.
func (Aborted) Type() Type { return TypeAborted }

// Type returns TypeQuery.
func (Query) Type() Type { return TypeQuery }

// Type returns TypeDone.
func (Done) Type() Type { return TypeDone }

func (Ask) check() error      { return nil }
func (Invite) check() error   { return nil }
func (Ready) check() error    { return nil }
func (Progress) check() error { return nil }
func (Loaded) check() error   { return nil }
func (Abort) check() error    { return nil }
func (Aborted) check() error  { return nil }
func (Query) check() error    { return nil }
func (Done) check() error     { return nil }

func (b Refuse) check() error {
	if b.Code == "" {
		return fmt.Errorf("refusal without a code: %w", ErrMalformed)
	}
	return nil
}

func (b Offer) check() error {
	if b.Kind != KindTeleport && b.Kind != KindBaton {
		return fmt.Errorf("offer of kind %.64q: %w", b.Kind, ErrMalformed)
	}
	if b.Term == 0 || len(b.Spec) == 0 || b.MemoryBytes < 0 {
		return fmt.Errorf("offer without term or spec: %w", ErrMalformed)
	}
	return nil
}

func (b Transfer) check() error {
	if len(b.Record) == 0 {
		return fmt.Errorf("transfer without a record: %w", ErrMalformed)
	}
	return nil
}

func (b Active) check() error {
	if b.Term == 0 {
		return fmt.Errorf("active under term 0: %w", ErrMalformed)
	}
	return nil
}

func (b Returned) check() error {
	if len(b.Record) == 0 {
		return fmt.Errorf("return without a record: %w", ErrMalformed)
	}
	return nil
}

// decoders is the vocabulary: how the body of each type is read.
var decoders = map[Type]func(json.RawMessage) (Body, error){
	TypeAsk: decode[Ask], TypeInvite: decode[Invite], TypeRefuse: decode[Refuse], TypeOffer: decode[Offer],
	TypeReady: decode[Ready], TypeProgress: decode[Progress], TypeLoaded: decode[Loaded], TypeTransfer: decode[Transfer],
	TypeActive: decode[Active], TypeReturned: decode[Returned], TypeAbort: decode[Abort], TypeAborted: decode[Aborted],
	TypeQuery: decode[Query], TypeDone: decode[Done],
}

func decode[B Body](p json.RawMessage) (Body, error) {
	var b B
	if err := json.Unmarshal(p, &b); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", b.Type(), ErrMalformed, err)
	}
	return b, nil
}
