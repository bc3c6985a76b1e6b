package directory

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
)

// replicaKind begins the keys of replica records: after "transfer" and "vm", as what they need must come before them.
const replicaKind = "vmreplica"

func replicaKey(vm, device string) string { return replicaKind + "/" + vm + "/" + device }

// replica is the value of a replica record: what the owner of a term knows of a device's copy.
type replica struct {
	VM     string `json:"vm"`
	Device string `json:"device"`
	Term   uint64 `json:"term"`
	Head   Hash   `json:"head"` // of the transfer that began Term
	ReplicaInfo
	// Blocks is how many the disk had when this was written, which a disk that has grown since has more of; 0, in records of older programs: as many as the
	// VM's record says.
	Blocks uint64 `json:"blocks,omitempty"`
	// Span is how many blocks a chunk of the stale set has, 0 if only the number of blocks is known. Present has a bit for each chunk
	// of the disk, the first in the lowest bit of the first byte; Hashes are the IDs of those that aren't empty.
	Span    uint32 `json:"span,omitempty"`
	Present []byte `json:"present,omitempty"`
	Hashes  []byte `json:"hashes,omitempty"`
}

func (r *replica) check() error {
	bad := !validVMID(r.VM) || !validID(r.Device) || r.Term == 0 || r.Term > maxTerm || r.StaleBlocks > maxBlocks || r.Blocks > maxBlocks
	present := 0
	for _, b := range r.Present {
		present += bits.OnesCount8(b)
	}
	switch {
	case r.Span == 0:
		bad = bad || len(r.Present)+len(r.Hashes) > 0
	case r.Span < minSpan || r.Span > maxSpan || r.Span&(r.Span-1) != 0:
		bad = true
	default:
		bad = bad || len(r.Present) > maxChunks/8 || len(r.Hashes) != 16*present
	}
	if bad {
		return fmt.Errorf("replica: %w", ErrInvalid)
	}
	return nil
}

// fits tells whether the set is one of a disk of that many blocks.
func (r *replica) fits(blocks uint64) bool {
	if r.StaleBlocks > blocks {
		return false
	}
	if r.Span == 0 {
		return true
	}
	slots := slotsOf(blocks)
	if r.Span != spanOf(blocks) || len(r.Present) != (slots+7)/8 {
		return false
	}
	return slots%8 == 0 || r.Present[len(r.Present)-1]>>(slots%8) == 0
}

func readReplica(r Record) (replica, error) {
	v, err := decodeValue[replica](r.Value)
	if err != nil {
		return v, fmt.Errorf("replica: %w", err)
	}
	if err := v.check(); err != nil {
		return v, err
	}
	if r.Key != replicaKey(v.VM, v.Device) || r.Version>>32 != v.Term || r.Version&(1<<32-1) == 0 {
		return v, fmt.Errorf("replica: key or version: %w", ErrInvalid)
	}
	return v, nil
}

// heldReplica is a replica record in memory.
type heldReplica struct {
	replica           // without Hashes
	ids     []ChunkID // of the chunks that are present
	writer  string
	arrived uint64 // counts up, here
	dropped bool   // its chunks gave way to others
}

func hold(v replica, writer string, arrived uint64) *heldReplica {
	h := &heldReplica{replica: v, writer: writer, arrived: arrived, ids: make([]ChunkID, len(v.Hashes)/16)}
	for i := range h.ids {
		h.ids[i] = ChunkID(v.Hashes[16*i:])
	}
	h.Hashes = nil
	return h
}

// slots are the places of ids.
func (h *heldReplica) slots() []int {
	list := make([]int, 0, len(h.ids))
	for i, b := range h.Present {
		for ; b != 0; b &= b - 1 {
			list = append(list, 8*i+bits.TrailingZeros8(b))
		}
	}
	return list
}

// signReplica signs and stores a record whose chunks are stored. The caller holds write.
func (d *Directory) signReplica(r replica) error {
	head := d.preferred(r.VM)
	if head == nil || head.To != d.opt.Self {
		return ErrNotOwner
	}
	r.Term, r.Head = head.Term, head.hash
	if r.At.IsZero() {
		r.At = d.now().UTC()
	}
	if err := r.check(); err != nil {
		return err
	}
	if !d.isMember(r.Device) {
		return fmt.Errorf("device: %w", ErrUnknownDevice)
	}
	value, err := encodeValue(r)
	if err != nil {
		return err
	}
	key := replicaKey(r.VM, r.Device)
	err = d.write1(key, max(d.records[key].Version, r.Term<<32)+1, value)
	if isUnsure(err) {
		d.unsure[key] = true
	} else if err == nil {
		delete(d.unsure, key)
	}
	return err
}

// SetCertain says that those of the stale sets that this device, the VM's owner, told of are certain that have this Of, and takes it back of
// all others; with a zero of, of all, which is to be done before the guest may write again. It writes nothing that is
// known to be so already.
// Errors: those of PutReplica.
func (d *Directory) SetCertain(vm string, of Position) error {
	d.write.Lock()
	defer d.write.Unlock()
	head := d.preferred(vm)
	for _, key := range slices.Sorted(maps.Keys(d.replicas)) {
		h := d.replicas[key]
		if h.VM != vm || head == nil || h.Head != head.hash || head.To != d.opt.Self || !d.tellsReplica(key) {
			continue
		}
		r := h.replica
		r.Certain = of != Position{} && h.Of == of
		if r.Certain == h.Certain && !d.unsure[key] {
			continue
		}
		for _, id := range h.ids {
			r.Hashes = append(r.Hashes, id[:]...)
		}
		if err := d.signReplica(r); err != nil {
			return fmt.Errorf("directory: certain: %w", err)
		}
	}
	return nil
}

// mayReplica tells whether a replica record that is well-formed in itself may be stored. void says that it is of no use to anybody, and
// is neither stored nor refused.
func (d *Directory) mayReplica(from string, r Record) (void bool, err error) {
	v, err := readReplica(r)
	if err != nil {
		return false, err
	}
	if err := d.ownsTerm(v.VM, v.Term, r.Writer, v.Head); err != nil {
		return false, err
	}
	if d.isGone(v.VM) {
		return true, nil
	}
	if !d.isMember(v.Device) {
		return false, fmt.Errorf("of a device: %w", ErrUnknownDevice)
	}
	vm, ok := d.vm(v.VM)
	if !ok {
		return false, fmt.Errorf("its VM is unknown: %w", ErrGap)
	}
	if v.fitsDisk(vm.DiskBytes) {
		return false, nil
	}
	why := ErrLie
	if vm.Written != v.Term || from != r.Writer {
		why = ErrGap // the disk may have been another one when that was written, or when from heard of it
	}
	return false, fmt.Errorf("%d stale blocks and %d bytes of chunks for a disk of %d bytes: %w", v.StaleBlocks, len(v.Present), vm.DiskBytes, why)
}

// fitsDisk is fits for the disk as large as it was then; bytes is what the VM's record says now.
func (r *replica) fitsDisk(bytes int64) bool {
	blocks, ok := r.blocks(bytes)
	return ok && r.fits(blocks)
}

// blocks is how many blocks the disk had then; bytes is what the VM's record says now. ok is false if that is none, or too many.
func (r *replica) blocks(bytes int64) (n uint64, ok bool) {
	if r.Blocks != 0 {
		return r.Blocks, true
	}
	return blocksOf(bytes)
}

// tellsReplica says whether a replica record is of use to anybody.
func (d *Directory) tellsReplica(key string) bool {
	h := d.replicas[key]
	if h == nil || !d.isMember(h.Device) {
		return false
	}
	vm, ok := d.effective(h.VM)
	return !vm.Removed && (!ok || h.fitsDisk(vm.DiskBytes))
}

// rememberReplica puts a stored record into memory, instead of the one before.
func (d *Directory) rememberReplica(key string, r Record) error {
	v, err := readReplica(r)
	if err != nil {
		return err
	}
	d.arrivals++
	h := hold(v, r.Writer, d.arrivals)
	d.chunks.name(h)
	if old := d.replicas[key]; old != nil {
		d.chunks.unname(old)
	}
	d.replicas[key] = h
	return nil
}

// forgetReplica takes a record out of memory.
func (d *Directory) forgetReplica(key string) {
	if h := d.replicas[key]; h != nil {
		d.chunks.unname(h)
		delete(d.replicas, key)
	}
}

// Replicas returns what the VM's owners wrote of the other devices' replicas, by device ID: the newest word on each that is part of
// the present owner's history. Certain is true only of what the present owner wrote.
func (d *Directory) Replicas(vm string) map[string]ReplicaInfo {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := map[string]ReplicaInfo{}
	for _, h := range d.replicas {
		if h.VM == vm && d.speaks(h) {
			info := h.ReplicaInfo
			info.Certain = info.Certain && h.Term == d.preferred(vm).Term // else the next owner may have written
			list[h.Device] = info
		}
	}
	return list
}

// speaks says that h is of use, and part of the present owner's history.
func (d *Directory) speaks(h *heldReplica) bool {
	last := d.preferred(h.VM)
	if last == nil || h.Device == last.To || !d.tellsReplica(replicaKey(h.VM, h.Device)) {
		return false
	}
	n := d.trees[h.VM].nodes[h.Head]
	return n != nil && last.descends(n)
}
