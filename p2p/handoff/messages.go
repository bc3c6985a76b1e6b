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
	TypeAbort    Type = "abort"    // giver → taker
	TypeAborted  Type = "aborted"  // taker → giver
	TypeQuery    Type = "query"    // taker → giver
	TypeCancel   Type = "cancel"   // taker → giver
)

// How an offer moves the VM.
const (
	KindTeleport = "teleport" // the running memory comes along
	KindBaton    = "baton"    // the guest is stopped; only ownership moves
)

// Msg is one message about one VM. Ask and Attempt are the taker's and the giver's
// name of the attempt to move it; which of them a message carries is the state
// machine's business.
type Msg struct {
	VM      string
	Ask     string
	Attempt string
	Body    Body
}

// Body is one of the message types below, by value.
type Body interface {
	Type() Type
	// check tells what is wrong with a received body, if anything.
	check() error
}

// Facts is what the giver must know about the taker before anything moves.
type Facts struct {
	Hypervisor string   `json:"hypervisor"` // its version
	Accel      string   `json:"accel"`      // "kvm", "hvf", "whpx" or "tcg"
	CPUModels  []string `json:"cpuModels"`  // that the taker can run
	FreeBytes  int64    `json:"freeBytes"`  // of disk
	FreeMemory int64    `json:"freeMemory"` // bytes
	// Device is all that the taker says of itself, opaque here, at most MaxDevice bytes; nil from programs that say only the above.
	Device json.RawMessage `json:"device,omitempty"`
	// Memory is the newest version of the memory stream that it understands; 0 is MemoryRaw.
	Memory int `json:"memory,omitempty"`
}

// Bounds of what a message says, in bytes.
const (
	MaxDevice = 16 << 10
	MaxRecord = 512 << 10
	maxWords  = 1024 // of a sentence
	maxHash   = 128
)

// Ask asks the owner for the VM.
type Ask struct {
	Taker Facts `json:"taker"`
	// PauseMS is for how many milliseconds the guest may stand still, if the person has said so for this once.
	PauseMS int64 `json:"pauseMs,omitempty"`
	// Way is how the VM is to come, if the person has said so for this once: one of the engines' words, opaque here. A program that doesn't
	// know it chooses by itself.
	Way string `json:"way,omitempty"`
}

// Invite asks the other device to ask for the VM. Way is what the ask is to say in its own, opaque here.
type Invite struct {
	Way string `json:"way,omitempty"`
}

// Refuse says no, and why: one of the state machine's reasons, or the engine's. Sentence and Next explain it to the taker's person;
// programs that don't send them leave that to the taker.
type Refuse struct {
	Reason   string `json:"reason"`
	Sentence string `json:"sentence,omitempty"`
	Next     string `json:"next,omitempty"`
}

// Offer says yes, and how.
type Offer struct {
	Kind string `json:"kind"` // KindTeleport or KindBaton
	Term uint64 `json:"term"` // the giver's
	// Hardware is a hash of all that the guest sees; the taker must come to the same. "" from programs that don't say.
	Hardware string `json:"hardware,omitempty"`
	// Record is the giver's signed record of the VM, opaque here, at most MaxRecord bytes: what was changed a moment ago mustn't come after the VM. nil from
	// programs that leave it to the exchange.
	Record json.RawMessage `json:"record,omitempty"`
	// PostCopy says that the guest is to go ahead of its memory; the taker has said that it can.
	PostCopy bool `json:"postCopy,omitempty"`
}

// Ready says that the taker's hypervisor waits for the memory.
type Ready struct{}

// Progress tells how far the hand-off has come, for the other side's person: opaque here.
type Progress struct {
	Switch json.RawMessage `json:"switch"`
}

// Loaded is the taker's proof that memory and devices are loaded and the guest
// waits, paused.
type Loaded struct{}

// Transfer gives the VM away: the signed record, opaque here, the dirty sets of
// the other replicas (at most MaxDirty bytes), whether running memory went along,
// whether the giver still holds the paused guest, and for how long it has stood
// still by now.
type Transfer struct {
	Record    json.RawMessage `json:"record"`
	Live      bool            `json:"live"`
	GuestHeld bool            `json:"guestHeld"`
	StoodNS   int64           `json:"stoodNs"`
	Dirty     []byte          `json:"-"` // travels as the blob
}

// Active says that the taker owns the VM under this term and that it runs.
type Active struct {
	Term uint64 `json:"term"`
}

// Returned gives the VM back by a further signed record.
type Returned struct {
	Record json.RawMessage `json:"record"`
	Live   bool            `json:"live"`
}

// Abort says that the giver has ended the attempt.
type Abort struct {
	Reason string `json:"reason"`
}

// Aborted says that the taker has ended the attempt, durably.
type Aborted struct {
	Reason string `json:"reason"`
}

// Query asks what became of the attempt.
type Query struct{}

// Cancel says that the taker's person would rather not; the giver decides.
type Cancel struct{}

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

// Type returns TypeCancel.
func (Cancel) Type() Type { return TypeCancel }

func (Invite) check() error   { return nil }
func (Ready) check() error    { return nil }
func (Progress) check() error { return nil }
func (Loaded) check() error   { return nil }
func (Abort) check() error    { return nil }
func (Aborted) check() error  { return nil }
func (Query) check() error    { return nil }
func (Cancel) check() error   { return nil }

func (b Ask) check() error {
	if len(b.Taker.Device) > MaxDevice {
		return fmt.Errorf("%d bytes about a taker: %w", len(b.Taker.Device), ErrMalformed)
	}
	return nil
}

func (b Refuse) check() error {
	if len(b.Sentence) > maxWords || len(b.Next) > maxWords {
		return fmt.Errorf("refusal in %d and %d bytes: %w", len(b.Sentence), len(b.Next), ErrMalformed)
	}
	if b.Reason == "" {
		return fmt.Errorf("refusal without a reason: %w", ErrMalformed)
	}
	return nil
}

func (b Offer) check() error {
	if b.Kind != KindTeleport && b.Kind != KindBaton {
		return fmt.Errorf("offer of kind %.64q: %w", b.Kind, ErrMalformed)
	}
	if b.Term == 0 {
		return fmt.Errorf("offer under term 0: %w", ErrMalformed)
	}
	if len(b.Hardware) > maxHash {
		return fmt.Errorf("offer with a hash of %d bytes: %w", len(b.Hardware), ErrMalformed)
	}
	if len(b.Record) > MaxRecord {
		return fmt.Errorf("offer with a record of %d bytes: %w", len(b.Record), ErrMalformed)
	}
	return nil
}

func (b Transfer) check() error {
	if len(b.Record) == 0 || b.StoodNS < 0 {
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
	TypeQuery: decode[Query], TypeCancel: decode[Cancel],
}

func decode[B Body](p json.RawMessage) (Body, error) {
	var b B
	if err := json.Unmarshal(p, &b); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", b.Type(), ErrMalformed, err)
	}
	return b, nil
}
