package directory

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Limits of the fleet.
const (
	maxMembers  = 64   // that aren't removed, without this device
	maxGenAhead = 1024 // how much further than known a device may have come and gone
	maxGen      = 1 << 40
)

// Member is a device of the fleet.
type Member struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Addrs    []string  `json:"addrs,omitempty"` // last known here
	PairedAt time.Time `json:"pairedAt,omitzero"`
	// Removed says that it isn't in the fleet any more; Wipe that its replicas are to be deleted, Told that it
	// has been told (see SetTold), By who removed it and At when.
	Removed bool      `json:"removed,omitempty"`
	Wipe    bool      `json:"-"`
	Told    bool      `json:"-"`
	By      string    `json:"-"`
	At      time.Time `json:"-"`
	// told is the generation of which the removed device has been told.
	told uint64
}

// localMember is how a member's entry is stored.
type localMember struct {
	Member
	ToldGen uint64 `json:"told,omitempty"`
}

// membership is what one device has signed of another: that it was let in for
// the gen-th time, or removed since.
type membership struct {
	Device  string    `json:"device"`
	Name    string    `json:"name"`
	By      string    `json:"by"`
	Gen     uint64    `json:"gen"`
	Removed bool      `json:"removed,omitempty"`
	Wipe    bool      `json:"wipe,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

func memberKey(device, by string) string { return "member/" + device + "/" + by }

// version rises with what counts.
func (m *membership) version() uint64 {
	v := m.Gen << 2
	if m.Removed {
		v |= 2
	}
	if m.Wipe {
		v |= 1
	}
	return v
}

// compare orders what several devices have signed: the highest counts.
func (m *membership) compare(x *membership) int {
	return cmp.Or(cmp.Compare(m.version(), x.version()), strings.Compare(m.By, x.By))
}

func readMember(r Record) (membership, error) {
	if len(r.Value) > maxNote {
		return membership{}, fmt.Errorf("member of %d bytes: %w", len(r.Value), ErrInvalid)
	}
	m, err := decodeValue[membership](r.Value)
	if err != nil {
		return m, fmt.Errorf("member: %w", err)
	}
	switch {
	case !validID(m.Device) || !validID(m.By) || len(m.Name) > maxName || m.Gen == 0 || m.Gen > maxGen || m.Wipe && !m.Removed,
		r.Key != memberKey(m.Device, m.By) || r.Version != m.version() || r.Writer != m.By:
		return m, fmt.Errorf("member: %w", ErrInvalid)
	}
	return m, nil
}

// exile is what a device knows of its own removal.
type exile struct {
	// Out is the record that removed it; nil if it is in a fleet, or is one by itself.
	Out *Record `json:"out,omitempty"`
	// Gen is the newest of its generations that has ended: older removals are no news.
	Gen uint64 `json:"gen,omitempty"`
}

const exileKey = "local/exile"

// AddMember lets a device into the fleet, or changes what is known of it. The
// word is signed and goes to all; one that was removed comes back by it. A device that was itself removed is in a
// fleet again. Errors: ErrInvalid, ErrFull (more than 64), ErrNoSpace, ErrUnsure, ErrClosed, and Sign's.
func (d *Directory) AddMember(m Member) error {
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.addMember(m); err != nil {
		return fmt.Errorf("directory: add member: %w", err)
	}
	return nil
}

func (d *Directory) addMember(m Member) error {
	if m.ID == d.opt.Self {
		return fmt.Errorf("this device: %w", ErrInvalid)
	}
	if !d.isMember(m.ID) && d.countMembers() >= maxMembers {
		return fmt.Errorf("%d members: %w", maxMembers, ErrFull)
	}
	m.Removed = false
	entries := map[string][]byte{}
	if err := d.putLocalMember(entries, m); err != nil {
		return err
	}
	if d.exile.Out != nil {
		b, err := encodeValue(exile{Gen: d.exile.Gen})
		if err != nil {
			return err
		}
		entries[exileKey] = b
	}
	gen := uint64(1)
	if s := d.standings[m.ID]; s != nil {
		gen = s.Gen + 1
	}
	if _, err := d.putMembership(entries, membership{Device: m.ID, Name: m.Name, Gen: gen}); err != nil {
		return err
	}
	return d.commit(entries, true)
}

// putMembership signs m as this device's word.
func (d *Directory) putMembership(entries map[string][]byte, m membership) (Record, error) {
	m.By, m.At = d.opt.Self, d.now().UTC()
	value, err := encodeValue(m)
	if err != nil {
		return Record{}, err
	}
	r, err := d.sign(memberKey(m.Device, m.By), m.version(), value)
	if err != nil {
		return r, err
	}
	if _, err := readMember(r); err != nil {
		return r, err
	}
	return r, d.put(entries, r)
}

func (d *Directory) putLocalMember(entries map[string][]byte, m Member) error {
	dev := Device{ID: m.ID, Name: m.Name, Addrs: m.Addrs}
	if err := dev.check(); err != nil {
		return err
	}
	b, err := encodeValue(localMember{m, m.told})
	if err != nil {
		return err
	}
	entries["local/member/"+m.ID] = b
	return nil
}

// RemoveMember takes a device out of the fleet, everywhere: what it sends is
// refused from now on, its takeovers are void, and what it wrote of itself is shown no more. wipe asks it to delete its
// replicas when it hears of it; asking so later is possible. Unknown ones are no error. Errors: ErrInvalid (this
// device: see Leave) and those of AddMember.
func (d *Directory) RemoveMember(id string, wipe bool) error {
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.removeMember(id, wipe); err != nil {
		return fmt.Errorf("directory: remove member: %w", err)
	}
	return nil
}

func (d *Directory) removeMember(id string, wipe bool) error {
	if id == d.opt.Self {
		return fmt.Errorf("this device: %w", ErrInvalid)
	}
	s := d.standings[id]
	if s == nil || s.Removed && (s.Wipe || !wipe) {
		return nil
	}
	entries := map[string][]byte{}
	if _, err := d.putMembership(entries, membership{Device: id, Name: s.Name, Gen: s.Gen, Removed: true, Wipe: wipe}); err != nil {
		return err
	}
	return d.commit(entries, true)
}

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
	b, err := encodeValue(exile{Out: &r, Gen: gen})
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
// asks it to delete its replicas. Again, it says the same. Errors: ErrInvalid (also: out of date), ErrUnknownDevice,
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
	if out := d.exile.Out; out != nil && out.hash() == r.hash() {
		return m, nil
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

// applyMember takes a device's word about a device in, whoever that is: a member has handed it on, and could
// have let the writer in itself. So a new device learns of a fleet whose members let each other in again, and what
// a removed device had said before it was known to be removed comes to everybody.
func (d *Directory) applyMember(r Record) error {
	m, err := readMember(r)
	if err != nil {
		return err
	}
	known := uint64(0)
	if s := d.standings[m.Device]; s != nil {
		known = s.Gen
	}
	switch {
	case m.Gen < known:
		return nil // it says nothing any more
	case m.Gen > known+maxGenAhead:
		return fmt.Errorf("generation %d after %d: %w", m.Gen, known, ErrFuture)
	case !m.Removed && m.Device != d.opt.Self && !d.isMember(m.Device) && d.countMembers() >= maxMembers:
		return fmt.Errorf("%d members: %w", maxMembers, ErrFull)
	}
	if done, err := d.newer(r); done || err != nil {
		return err
	}
	if m.Device == d.opt.Self && m.Removed && m.Gen > d.exile.Gen {
		return d.expel(r, m.Gen)
	}
	entries := map[string][]byte{}
	if err := d.put(entries, r); err != nil {
		return err
	}
	return d.commit(entries, true)
}

// rememberMember raises what is known of a device's standing.
func (d *Directory) rememberMember(m membership) {
	if s := d.standings[m.Device]; s == nil || m.compare(s) > 0 {
		d.standings[m.Device] = &m
		d.settleAgain()
	}
}

// settleAgain has all heads counted anew: they depend on who was removed.
func (d *Directory) settleAgain() {
	for _, t := range d.trees {
		t.sum.Store(nil)
	}
}

// known says whether a device is or was in the fleet.
func (d *Directory) known(id string) bool { return id == d.opt.Self || d.standings[id] != nil }

func (d *Directory) isMember(id string) bool {
	s := d.standings[id]
	return id == d.opt.Self || s != nil && !s.Removed
}

// isRemoved says that a device was in the fleet and isn't any more.
func (d *Directory) isRemoved(id string) bool { return d.known(id) && !d.isMember(id) }

func (d *Directory) countMembers() int {
	n := 0
	for id, s := range d.standings {
		if !s.Removed && id != d.opt.Self {
			n++
		}
	}
	return n
}

// IsMember tells whether a device is in the fleet; this one always is.
func (d *Directory) IsMember(id string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.isMember(id)
}

// Members returns the fleet without this device, in the order of IDs.
func (d *Directory) Members() []Member { return d.list(false) }

// RemovedMembers returns the devices that were in the fleet, in the order of IDs.
func (d *Directory) RemovedMembers() []Member { return d.list(true) }

func (d *Directory) list(removed bool) []Member {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var list []Member
	for _, id := range slices.Sorted(maps.Keys(d.standings)) {
		s := d.standings[id]
		if s.Removed != removed || id == d.opt.Self {
			continue
		}
		m := d.member(s)
		m.Addrs = slices.Clone(m.Addrs)
		list = append(list, m)
	}
	return list
}

// member joins what the fleet says of a device with what is known of it here.
func (d *Directory) member(s *membership) Member {
	m := d.members[s.Device]
	m.ID = s.Device
	m.Name = cmp.Or(m.Name, s.Name)
	if m.PairedAt.IsZero() && !s.Removed {
		m.PairedAt = s.At
	}
	m.Removed = s.Removed
	m.Wipe, m.By, m.At, m.Told = s.Wipe, s.By, s.At, s.Removed && m.told == s.Gen
	return m
}

// SetAddrs notes the addresses at which a member was last reached. Errors:
// ErrNotFound and those of AddMember.
func (d *Directory) SetAddrs(id string, addrs []string) error {
	return d.noteMember(id, false, func(m *Member, _ *membership) bool {
		same := slices.Equal(m.Addrs, addrs)
		m.Addrs = slices.Clone(addrs)
		return !same
	})
}

// SetTold notes that a removed device has been told. Errors: as SetAddrs.
func (d *Directory) SetTold(id string) error {
	return d.noteMember(id, true, func(m *Member, s *membership) bool {
		same := m.told == s.Gen
		m.told = s.Gen
		return !same
	})
}

func (d *Directory) noteMember(id string, removed bool, change func(*Member, *membership) bool) error {
	d.write.Lock()
	defer d.write.Unlock()
	s := d.standings[id]
	if s == nil || s.Removed != removed || id == d.opt.Self {
		return fmt.Errorf("directory: member: %w", ErrNotFound)
	}
	m := d.member(s)
	if !change(&m, s) {
		return nil
	}
	entries := map[string][]byte{}
	err := d.putLocalMember(entries, m)
	if err == nil {
		err = d.commit(entries, true)
	}
	if err != nil {
		return fmt.Errorf("directory: member: %w", err)
	}
	return nil
}

func (d *Directory) rememberLocalMember(id string, value []byte) error {
	m, err := decodeValue[localMember](value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if m.ID != id {
		return fmt.Errorf("member %.40q: %w", m.ID, ErrCorrupt)
	}
	m.told = m.ToldGen
	d.members[id] = m.Member
	return nil
}

// signMembers is the step to format 2: what format 1 kept of members was this
// device's own, and becomes its signed word.
func (d *Directory) signMembers(entries map[string][]byte) error {
	for _, id := range slices.Sorted(maps.Keys(d.members)) {
		m := d.members[id]
		if id == d.opt.Self || d.standings[id] != nil {
			continue
		}
		_, err := d.putMembership(entries, membership{Device: id, Name: m.Name, Gen: 1, Removed: m.Removed})
		if err != nil {
			return fmt.Errorf("member %.40q: %w", id, err)
		}
	}
	return nil
}

// errSame: two devices can't agree on which is newer. A device that lost its
// directory may have signed both.
var errSame = errors.New("another value of the same version")

func readExile(value []byte) (exile, error) {
	e, err := decodeValue[exile](value)
	if err != nil {
		return e, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return e, nil
}
