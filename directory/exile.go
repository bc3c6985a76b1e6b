package directory

import (
	"fmt"
	"maps"
	"slices"
)

// exile is what a device knows of its own removal.
type exile struct {
	// Out is the record that removed it; nil if it is in a fleet, or is one by itself.
	Out *Record `json:"out,omitempty"`
	// Gen is the newest of its generations that has ended, as the fleet counts in which it is or was last: older removals are no news.
	Gen uint64 `json:"gen,omitempty"`
	// Former is the fleet that it was in. Word is what this device has signed of its removal, if that isn't Out itself.
	Former []formerMember `json:"former,omitempty"`
	Word   *Record        `json:"word,omitempty"`
}

// formerMember is a device of the fleet of before; Told says that it knows.
type formerMember struct {
	Member
	Told bool `json:"told,omitempty"`
}

const exileKey = "local/exile"

// maxFormerAddrs keeps the fleet of before small enough for one commit, whatever its devices said of themselves.
const maxFormerAddrs = 8

// Self is this device's ID.
func (d *Directory) Self() string { return d.opt.Self }

// Leave takes this device out of its fleet, by its own signature: it forgets the others and is a fleet of one. Removal(its
// own ID) is the record to show to the others, who apply it; it isn't sent by itself. Once left, it does nothing. Errors: as AddMember.
func (d *Directory) Leave() error {
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.leave(); err != nil {
		return fmt.Errorf("directory: leave: %w", err)
	}
	return nil
}

func (d *Directory) leave() error {
	if d.exile.Out != nil {
		return nil
	}
	gen := d.exile.Gen + 1
	if s := d.standings[d.opt.Self]; s != nil {
		gen = max(gen, s.Gen)
	}
	r, err := d.putMembership(map[string][]byte{}, membership{Device: d.opt.Self, Gen: gen, Removed: true})
	if err != nil {
		return err
	}
	return d.expel(r, gen)
}

// expel makes this device a fleet of one: what it knew of the fleet goes, its
// VMs and their history stay.
func (d *Directory) expel(r Record, gen uint64) error {
	x := exile{Out: &r, Gen: gen}
	for _, id := range slices.Sorted(maps.Keys(d.standings)) {
		if s := d.standings[id]; !s.Removed && id != d.opt.Self {
			m := d.member(s)
			if dev := d.devices[id]; len(m.Addrs) == 0 {
				m.Addrs = dev.Addrs
			}
			m.Addrs = m.Addrs[:min(len(m.Addrs), maxFormerAddrs)]
			x.Former = append(x.Former, formerMember{Member: m})
		}
	}
	b, err := encodeValue(x)
	if err != nil {
		return err
	}
	entries := map[string][]byte{exileKey: b}
	for k := range d.records {
		if kind := kindOf(k); kind == "member" || kind == "device" && k != "device/"+d.opt.Self {
			entries[k] = nil
		}
	}
	for id := range d.members {
		entries["local/member/"+id] = nil
	}
	return d.commit(entries, true)
}

// Removal returns the signed record that says that a device was removed, or has
// left, to show it to whom it concerns. Of this device's own ID it says that this device was: it is a fleet of one since.
func (d *Directory) Removal(id string) (Record, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if id == d.opt.Self {
		if d.exile.Out == nil {
			return Record{}, false
		}
		return *d.exile.Out, true
	}
	s := d.standings[id]
	if s == nil || !s.Removed {
		return Record{}, false
	}
	return d.records[memberKey(id, s.By)], true
}

// AcceptRemoval takes note that this device was removed, by the record that
// another one has shown: it has to be a member's word, and the newest. From then on this device is a fleet of one; wipe
// asks it to delete its replicas. Again, it says the same, unless another word of the same removal asks for that too; one that
// has left by itself is never asked. Errors: ErrInvalid (also: out of date), ErrUnknownDevice,
// ErrSignature, ErrNoSpace, ErrUnsure, ErrClosed.
func (d *Directory) AcceptRemoval(r Record) (wipe bool, err error) {
	d.write.Lock()
	defer d.write.Unlock()
	m, err := d.acceptRemoval(r)
	if err != nil {
		return false, fmt.Errorf("directory: removal: %w", err)
	}
	return m.Wipe, nil
}

func (d *Directory) acceptRemoval(r Record) (membership, error) {
	if err := r.checkSize(); err != nil {
		return membership{}, err
	}
	m, err := readMember(r)
	if err != nil {
		return m, err
	}
	if m.Device != d.opt.Self || !m.Removed {
		return m, fmt.Errorf("not of this device: %w", ErrInvalid)
	}
	if d.exile.Out != nil {
		return d.acceptAgain(r, m)
	}
	if !d.isMember(m.By) {
		return m, ErrUnknownDevice
	}
	if s := d.standings[m.Device]; m.Gen <= d.exile.Gen || s != nil && m.compare(s) < 0 {
		return m, fmt.Errorf("out of date: %w", ErrInvalid)
	}
	if err := d.verify(r); err != nil {
		return m, err
	}
	return m, d.expel(r, m.Gen)
}

// acceptAgain is told of a removal that has happened already, by the same record or by another of the same time.
func (d *Directory) acceptAgain(r Record, m membership) (membership, error) {
	out, err := readMember(*d.exile.Out)
	switch {
	case err != nil:
		return m, err
	case d.exile.Out.hash() == r.hash():
		return out, nil
	case m.Gen != d.exile.Gen:
		return m, fmt.Errorf("out of date: %w", ErrInvalid)
	case !slices.ContainsFunc(d.exile.Former, func(f formerMember) bool { return f.ID == m.By }):
		return m, ErrUnknownDevice
	}
	if err := d.verify(r); err != nil {
		return m, err
	}
	if out.By == d.opt.Self || out.Wipe || !m.Wipe {
		return out, nil
	}
	x := d.exile
	x.Out = &r
	return m, d.putExile(x)
}

func (d *Directory) putExile(x exile) error {
	b, err := encodeValue(x)
	if err != nil {
		return err
	}
	return d.commit(map[string][]byte{exileKey: b}, true)
}

// Former returns the devices of the fleet that this one was removed from, or has left, in the order of IDs; Told are those that
// have heard of it from here. It is empty once this device is in a fleet again.
func (d *Directory) Former() []Member {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.exile.Out == nil {
		return nil
	}
	var list []Member
	for _, f := range d.exile.Former {
		m := f.Member
		m.Addrs, m.Told = slices.Clone(m.Addrs), f.Told
		list = append(list, m)
	}
	return list
}

// SetTold notes that a device of the fleet of before knows that this one isn't in it any more. Errors: ErrNotFound, ErrNoSpace,
// ErrUnsure, ErrClosed.
func (d *Directory) SetTold(id string) error {
	d.write.Lock()
	defer d.write.Unlock()
	x := d.exile
	x.Former = slices.Clone(x.Former)
	i := slices.IndexFunc(x.Former, func(f formerMember) bool { return f.ID == id })
	if x.Out == nil || i < 0 {
		return fmt.Errorf("directory: told: %w", ErrNotFound)
	}
	if x.Former[i].Told {
		return nil
	}
	x.Former[i].Told = true
	if err := d.putExile(x); err != nil {
		return fmt.Errorf("directory: told: %w", err)
	}
	return nil
}

// Acknowledge returns this device's own signed word that it isn't in its fleet any more, for the others to see (AcceptWord);
// wiped says that it has deleted what it had of the fleet. Errors: ErrNotFound (it wasn't removed), ErrNoSpace, ErrUnsure,
// ErrClosed, and Sign's.
func (d *Directory) Acknowledge(wiped bool) (Record, error) {
	d.write.Lock()
	defer d.write.Unlock()
	r, err := d.acknowledge(wiped)
	if err != nil {
		return Record{}, fmt.Errorf("directory: acknowledge: %w", err)
	}
	return r, nil
}

func (d *Directory) acknowledge(wiped bool) (Record, error) {
	x := d.exile
	if x.Out == nil {
		return Record{}, ErrNotFound
	}
	if x.Out.Writer == d.opt.Self && !wiped {
		return *x.Out, nil
	}
	if x.Word != nil && (!wiped || x.Word.Version&1 != 0) {
		return *x.Word, nil
	}
	r, err := d.putMembership(map[string][]byte{}, membership{Device: d.opt.Self, Gen: x.Gen, Removed: true, Wipe: wiped})
	if err != nil {
		return r, err
	}
	x.Word = &r
	return r, d.putExile(x)
}

// AcceptWord takes a device's own word that it isn't in the fleet any more, whoever removed it. It needs no sender that is a
// member: the signature is all. Errors: ErrInvalid, ErrUnknownDevice, ErrFuture, ErrSignature, ErrNoSpace, ErrUnsure, ErrClosed.
func (d *Directory) AcceptWord(r Record) error {
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.acceptWord(r); err != nil {
		return fmt.Errorf("directory: word: %w", err)
	}
	return nil
}

func (d *Directory) acceptWord(r Record) error {
	if err := r.checkSize(); err != nil {
		return err
	}
	m, err := readMember(r)
	if err != nil {
		return err
	}
	if m.Device != m.By || m.Device == d.opt.Self || !m.Removed {
		return fmt.Errorf("not a device's word of its own removal: %w", ErrInvalid)
	}
	if !d.known(m.Device) {
		return ErrUnknownDevice
	}
	return d.applyMember(r)
}

// knowsItself says that a removed device has said so itself, and that it has deleted its replicas if it was asked to.
func (d *Directory) knowsItself(s *membership) bool {
	word := d.records[memberKey(s.Device, s.Device)].Version
	return s.Removed && word>>2 == s.Gen && word&2 != 0 && (!s.Wipe || word&1 != 0)
}

func readExile(value []byte) (exile, error) {
	e, err := decodeValue[exile](value)
	if err != nil {
		return e, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return e, nil
}
