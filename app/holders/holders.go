// Package holders lends vmdisk's disks to package p2p/fetch: on a device that has what a new owner lacks, the replica as it
// is (Lend); on the new owner's, what it knows of what the others lack (Judge). The engine's hydration after a switch uses both:
// Lend within fetch.Serve, Judge in the fetch.Holder of each device that it adds to its fetch.Pool.
//
// Guaranteed: a device that isn't exactly at the position that it acknowledged to this history's owners isn't asked for anything; one that is,
// isn't asked for what was written since. A replica that moves on while it is lent is read as it was, or no more.
//
// A holder of whom it isn't known any more what it lacks (its set was damaged, or it gave up a copy) isn't asked either, though it says where it
// stands: two sides of a fork may have counted on under one term, so that a number alone doesn't tell what it has. It is asked again when it
// has acknowledged something new.
//
// Not guaranteed: that the giver is known. Whoever becomes the owner tells its disk so (vmdisk.Store.ImportDirty, then SetClean for the giver).
//
// To test: go test -race ./app/holders
package holders

import (
	"context"
	"errors"
	"fmt"

	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/vmdisk"
)

// ErrUnknown: it isn't known what the device lacks, or it isn't where it is known for.
var ErrUnknown = errors.New("holders: not known what the device lacks")

// Lent is a disk as it was at one position, for fetch.Serve. The owner's may have grown since: beyond the end of this one are zeros.
type Lent struct{ cut *vmdisk.Cut }

// Lend lends a disk that isn't hydrating itself, as it is now, with the state to tell. The caller must Close it. Errors are
// those of vmdisk.Store.Cut.
func Lend(ctx context.Context, d *vmdisk.Store) (*Lent, fetch.State, error) {
	cut, err := d.Cut(ctx)
	if err != nil {
		return nil, fetch.State{}, fmt.Errorf("lend disk: %w", err)
	}
	return &Lent{cut}, fetch.State{Complete: true, Position: fetch.Position(cut.Position())}, nil
}

// ReadAt implements fetch.Reader.
func (l *Lent) ReadAt(p []byte, off int64) error {
	n := max(0, min(int64(len(p)), l.cut.Size()-off))
	clear(p[n:])
	err := l.cut.ReadAt(p[:n], min(off, l.cut.Size()))
	if errors.Is(err, vmdisk.ErrCutLost) || errors.Is(err, vmdisk.ErrClosed) {
		err = fmt.Errorf("%w: %w", fetch.ErrOver, err)
	}
	return err
}

// Close ends it; nothing may be reading.
func (l *Lent) Close() error { return l.cut.Close() }

// Judge says, for the holder that is called device in the owner's disk d, what it lacks of what d lacked at first: of the disk at the hand-off.
// d must be active.
func Judge(d *vmdisk.Store, device string) func(fetch.State) (fetch.Lacks, error) {
	return func(st fetch.State) (fetch.Lacks, error) {
		// What it lacks of the disk as it is now: what the owner wrote since the hand-off is in it too, but isn't stale.
		lag, ok := d.Lag(device)
		if !ok {
			return nil, ErrUnknown
		}
		defer lag.Release()
		if at := vmdisk.Position(st.Position); at != lag.Acked || at.Compare(lag.Of) > 0 {
			return nil, fmt.Errorf("the device is at %s, known is what it lacked at %s: %w", at, lag.Acked, ErrUnknown)
		}
		set := lagging(lag)
		if set.Empty() {
			return nil, nil
		}
		return func(off int64) (bool, int64) {
			x := off / vmdisk.Block
			lacks := set.Has(x)
			return lacks, min(set.Next(x, !lacks)*vmdisk.Block, d.Size())
		}, nil
	}
}

// Whole are the devices that have all that is stale in the owner's disk d, as far as that is known, in no order. d must be active.
func Whole(d *vmdisk.Store) []string {
	var out []string
	for _, p := range d.Peers() {
		if lag, ok := d.Lag(p.Peer); ok {
			if p.Acked != (vmdisk.Position{}) && hasStale(d, lag) {
				out = append(out, p.Peer)
			}
			lag.Release()
		}
	}
	return out
}

// hasStale says whether a device with that lag has all that is stale in d.
func hasStale(d *vmdisk.Store, lag *vmdisk.Lag) bool {
	for first, n := range lag.Runs() {
		if d.Stale(int64(first)*vmdisk.Block, int64(n)*vmdisk.Block) {
			return false
		}
	}
	return true
}
