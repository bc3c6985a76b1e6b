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
	maxMembers = 64 // that aren't removed, without this device
	// maxGen is how often a device may have come and gone. It doesn't depend on what is known here: what one device has taken in step
	// by step, another one that was away has to take at once.
	maxGen = 1 << 20
)

// Member is a device of the fleet.
type Member struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Addrs    []string  `json:"addrs,omitempty"` // last known here
	PairedAt time.Time `json:"pairedAt,omitzero"`
	// Removed says that it isn't in the fleet any more; Wipe that its replicas are to be deleted, Told that it
	// has said itself that it knows (and has deleted them, if Wipe), By who removed it and At when.
	Removed bool      `json:"removed,omitempty"`
	Wipe    bool      `json:"-"`
	Told    bool      `json:"-"`
	By      string    `json:"-"`
	At      time.Time `json:"-"`
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
	case !validID(m.Device) || !validID(m.By) || len(m.Name) > maxName || m.Gen == 0 || m.Wipe && !m.Removed,
		r.Key != memberKey(m.Device, m.By) || r.Version != m.version() || r.Writer != m.By:
		return m, fmt.Errorf("member: %w", ErrInvalid)
	case m.Gen > maxGen:
		return m, fmt.Errorf("member: generation %d: %w", m.Gen, ErrFuture)
	}
	return m, nil
}

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
	b, err := encodeValue(m)
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

// applyMember takes another device's word about a device in. Words of removed
// devices count as far as a member hands them on: it had heard them before it knew.
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
	if m.Device == d.opt.Self && !m.Removed && d.exile.Out == nil && m.Gen <= d.exile.Gen {
		// It came into a fleet that counts it lower than the one before did, and may be removed from this one too.
		b, err := encodeValue(exile{Gen: m.Gen - 1})
		if err != nil {
			return err
		}
		entries[exileKey] = b
	}
	return d.commit(entries, true)
}

// endsMembership says that r removes somebody who is a member: there is always room for that, whoever has filled the rest.
func (d *Directory) endsMembership(r Record) bool {
	if kindOf(r.Key) != "member" {
		return false
	}
	m, err := readMember(r)
	return err == nil && m.Removed && m.Device != d.opt.Self && d.isMember(m.Device)
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
	m.Wipe, m.By, m.At, m.Told = s.Wipe, s.By, s.At, d.knowsItself(s)
	return m
}

// SetAddrs notes the addresses at which a member was last reached. Errors:
// ErrNotFound and those of AddMember.
func (d *Directory) SetAddrs(id string, addrs []string) error {
	if err := d.noteAddrs(id, addrs); err != nil {
		return fmt.Errorf("directory: member: %w", err)
	}
	return nil
}

func (d *Directory) noteAddrs(id string, addrs []string) error {
	d.write.Lock()
	defer d.write.Unlock()
	s := d.standings[id]
	if s == nil || s.Removed || id == d.opt.Self {
		return ErrNotFound
	}
	m := d.member(s)
	if slices.Equal(m.Addrs, addrs) {
		return nil
	}
	m.Addrs = slices.Clone(addrs)
	entries := map[string][]byte{}
	if err := d.putLocalMember(entries, m); err != nil {
		return err
	}
	return d.commit(entries, true)
}

func (d *Directory) rememberLocalMember(id string, value []byte) error {
	m, err := decodeValue[Member](value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if m.ID != id {
		return fmt.Errorf("member %.40q: %w", m.ID, ErrCorrupt)
	}
	d.members[id] = m
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
