package holders

import (
	"context"
	"errors"

	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/vmdisk/hydrate"
)

// Source is a fetch.Pool as vmdisk.Store.Hydrate wants it.
type Source struct{ Pool *fetch.Pool }

// Fetch implements hydrate.Source.
func (s Source) Fetch(ctx context.Context, w hydrate.Want) error {
	err := s.Pool.Fetch(ctx, fetch.Want{Off: w.Off, P: w.P, Kind: kinds[w.Kind], Urgent: w.Urgent})
	if some := new(fetch.AbsentError); errors.As(err, &some) {
		err = &hydrate.AbsentError{Off: some.Off, Len: some.Len, Err: err}
	}
	return err
}

var kinds = map[hydrate.Kind]fetch.Kind{hydrate.Pull: fetch.Pull, hydrate.Ahead: fetch.Ahead, hydrate.Demand: fetch.Demand}

// Room implements hydrate.Source.
func (s Source) Room() hydrate.Room {
	r := s.Pool.Room()
	return hydrate.Room{Pull: r.Pull, Ahead: r.Ahead, Piece: r.Piece, Changed: r.Changed}
}
