package directory

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/zeebo/blake3"
)

// Limits of records.
const (
	MaxRecords = 50_000    // in one directory
	MaxKey     = 256       // bytes of a key
	MaxValue   = 256 << 10 // bytes of a value
	MaxSig     = 1024      // bytes of a signature
	maxForks   = 16        // of one VM
	maxBytes   = 64 << 20  // of all values
)

const domain = "tagalong record v1"

// Record is one signed record. Value is JSON with a schema version; the
// signature covers everything else. Its bytes are never changed after it was made.
type Record struct {
	Key     string `json:"key"`
	Version uint64 `json:"version"`
	Writer  string `json:"writer"`
	Value   []byte `json:"value"`
	Sig     []byte `json:"sig"`
}

// message is what is signed: unambiguous, as every part has its length before it.
func (r *Record) message() []byte {
	b := make([]byte, 0, len(domain)+len(r.Key)+len(r.Writer)+len(r.Value)+32)
	part := func(p string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	part(domain)
	part(r.Key)
	b = binary.BigEndian.AppendUint64(b, r.Version)
	part(r.Writer)
	part(string(r.Value))
	return b
}

// hash names the record's content. Signatures don't count: there may be many
// for one content.
func (r *Record) hash() Hash { return blake3.Sum256(r.message()) }

func (r *Record) checkSize() error {
	switch {
	case r.Key == "" || len(r.Key) > MaxKey:
		return fmt.Errorf("key of %d bytes: %w", len(r.Key), ErrInvalid)
	case !validID(r.Writer):
		return fmt.Errorf("writer: %w", ErrInvalid)
	case len(r.Value) > MaxValue:
		return fmt.Errorf("value of %d bytes: %w", len(r.Value), ErrInvalid)
	case len(r.Sig) > MaxSig:
		return fmt.Errorf("signature of %d bytes: %w", len(r.Sig), ErrInvalid)
	case r.Version == 0:
		return fmt.Errorf("version 0: %w", ErrInvalid)
	}
	return nil
}

// SignedTransfer is a transfer with the record that proves it. In JSON it is
// the record alone.
type SignedTransfer struct {
	Transfer
	Record Record
}

// Hash names the transfer; the next one's Prev is it.
func (t SignedTransfer) Hash() Hash { return t.Record.hash() }

// MarshalJSON returns the record's JSON.
func (t SignedTransfer) MarshalJSON() ([]byte, error) { return json.Marshal(t.Record) }

// UnmarshalJSON reads a transfer's record, refusing what is malformed. It does
// not verify the signature; AppendTransfer does.
func (t *SignedTransfer) UnmarshalJSON(b []byte) error {
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("transfer: %w: %w", ErrInvalid, err)
	}
	got, err := readTransfer(r)
	if err != nil {
		return err
	}
	*t = got
	return nil
}

func transferKey(vm string, term uint64) string { return fmt.Sprintf("transfer/%s/%010d", vm, term) }

func forkKey(t SignedTransfer) string {
	return fmt.Sprintf("fork/%s/%010d/%s", t.VM, t.Term, t.Hash())
}

// transferVersion differs for two transfers of one term, so that an exchange by
// versions shows one side that there are two.
func transferVersion(value []byte) uint64 {
	sum := blake3.Sum256(value)
	return binary.BigEndian.Uint64(sum[:]) | 1
}

// readTransfer checks a transfer's record in itself, without its signature.
func readTransfer(r Record) (SignedTransfer, error) {
	fail := func(err error) (SignedTransfer, error) { return SignedTransfer{}, fmt.Errorf("transfer: %w", err) }
	if err := r.checkSize(); err != nil {
		return fail(err)
	}
	if len(r.Value) > maxTransfer || r.Version != transferVersion(r.Value) {
		return fail(ErrInvalid)
	}
	t, err := decodeValue[Transfer](r.Value)
	if err != nil {
		return fail(err)
	}
	if err := t.check(); err != nil {
		return fail(err)
	}
	if r.Key != transferKey(t.VM, t.Term) {
		return fail(fmt.Errorf("key: %w", ErrInvalid))
	}
	if r.Writer != t.signer() {
		return fail(ErrNotOwner)
	}
	return SignedTransfer{Transfer: t, Record: r}, nil
}

func readDevice(r Record) (Device, error) {
	dev, err := decodeValue[Device](r.Value)
	if err != nil {
		return dev, fmt.Errorf("device: %w", err)
	}
	if err := dev.check(); err != nil {
		return dev, err
	}
	if r.Key != "device/"+dev.ID || r.Writer != dev.ID {
		return dev, fmt.Errorf("device: key or writer: %w", ErrInvalid)
	}
	return dev, nil
}

// vmKey is where what the owners of a branch say of a VM is kept: root is the
// term of the last forced transfer of its ancestry, or 0. So a side of a
// conflict doesn't replace what the other one said.
func vmKey(vm string, root uint64) string {
	if root == 0 {
		return "vm/" + vm
	}
	return fmt.Sprintf("vm/%s/%010d", vm, root)
}

func isVMKey(key, vm string) bool {
	rest, ok := strings.CutPrefix(key, "vm/"+vm)
	if !ok || rest == "" {
		return ok
	}
	root, err := strconv.ParseUint(strings.TrimPrefix(rest, "/"), 10, 31)
	return err == nil && root > 0 && key == vmKey(vm, root)
}

func readVM(r Record) (VM, error) {
	vm, err := decodeValue[VM](r.Value)
	if err != nil {
		return vm, fmt.Errorf("vm: %w", err)
	}
	if err := vm.check(); err != nil {
		return vm, err
	}
	if !isVMKey(r.Key, vm.ID) || r.Version>>32 != vm.Term || r.Version&(1<<32-1) == 0 {
		return vm, fmt.Errorf("vm: key or version: %w", ErrInvalid)
	}
	if r.Writer != vm.Owner {
		return vm, fmt.Errorf("vm: %w", ErrNotOwner)
	}
	vm.Written = vm.Term
	return vm, nil
}

// forkRecord wraps a transfer as evidence: its value is the transfer's record.
func forkRecord(t SignedTransfer) (Record, error) {
	value, err := json.Marshal(t.Record)
	if err != nil {
		return Record{}, fmt.Errorf("fork: %w: %w", ErrInvalid, err)
	}
	return Record{Key: forkKey(t), Version: 1, Writer: t.Record.Writer, Value: value, Sig: t.Record.Sig}, nil
}

func readFork(r Record) (SignedTransfer, error) {
	var t SignedTransfer
	if len(r.Value) > 2*maxTransfer+4*MaxKey+2*MaxSig {
		return t, fmt.Errorf("fork: %w", ErrInvalid)
	}
	if err := json.Unmarshal(r.Value, &t); err != nil {
		return t, fmt.Errorf("fork: %w: %w", ErrInvalid, err)
	}
	if r.Key != forkKey(t) || r.Version != 1 || r.Writer != t.Record.Writer {
		return t, fmt.Errorf("fork: key, version or writer: %w", ErrInvalid)
	}
	return t, nil
}

func kindOf(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	return kind
}
