package custody

import (
	"fmt"
	"time"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
)

// Preview is what is known, before a takeover, of what this device would go on with, and of what that lacks.
type Preview struct {
	// Position is what the disk here is, Latest the newest that is known of any device's, and LatestAt when that was told.
	Position, Latest directory.Position
	LatestAt         time.Time
	// Missing is how many blocks the disk here lacks of what the owner's was when that last told of it; nil if that is unknown, for
	// instance because the disk here is of another side, which the person gave up.
	// Certain says that the owner's VM was stopped then, and that nothing had been written since.
	Missing *int64
	Certain bool
	// Better is the device, but for the owner, whose copy is whole and the newest of those that are newer than this one; "" if there is
	// none. Any copy of the history that counts is, if this one is of another side.
	Better string
}

// Preview reckons what a takeover by this device would be, with all that its directory knows. Errors: ErrNoDisk, also of a disk that isn't whole; directory.ErrNotFound.
func (c Custody) Preview() (Preview, error) {
	if c.Disk == nil || !c.Disk.Info().Complete {
		return Preview{}, ErrNoDisk
	}
	heads := c.Dir.Heads(c.VM)
	if len(heads) == 0 {
		return Preview{}, fmt.Errorf("preview: the VM's history: %w", directory.ErrNotFound)
	}
	owner := heads[0].To
	// Only positions of one history can be compared: those of another side have higher numbers perhaps, and say nothing.
	ours := func(at directory.Position) bool {
		return c.Dir.Relation(heads[0].Hash(), at) == directory.RelationBehind
	}
	replicas := c.Dir.Replicas(c.VM)
	pos := directory.Position(c.Disk.Info().Position)
	p := Preview{Position: pos, Latest: pos}
	latest := func(at directory.Position, told time.Time) {
		if Newer(at, p.Latest) && ours(at) {
			p.Latest, p.LatestAt = at, told
		}
	}
	r, ok := c.Dir.VM(c.VM)
	if ok {
		latest(r.Position, r.At)
	}
	foreign := !ours(pos)
	for device, info := range replicas {
		latest(info.Position, info.At)
		latest(info.Of, info.At)
		if device == owner || device == c.Self || !info.Complete || !foreign && !Newer(info.Position, pos) || !ours(info.Position) || !c.Dir.IsMember(device) {
			continue
		}
		if p.Better == "" || Newer(info.Position, replicas[p.Better].Position) {
			p.Better = device
		}
	}
	if info, known := replicas[c.Self]; known && !foreign && ours(info.Of) {
		missing := int64(info.StaleBlocks)
		if !Newer(info.Of, pos) {
			missing = 0 // it has come meanwhile
		}
		p.Missing, p.Certain = &missing, info.Certain
	}
	if owner == c.Self || r.Written != r.Term {
		// What was given to a device that is gone never left: the disk is the newest there is, unless that device has written. And
		// what an owner wrote that hasn't told anything yet nobody knows.
		p.Missing, p.Certain = nil, false
	}
	return p, nil
}

// Newer says that a is a later position than b.
func Newer(a, b directory.Position) bool {
	return vmdisk.Position(a).Compare(vmdisk.Position(b)) > 0
}
