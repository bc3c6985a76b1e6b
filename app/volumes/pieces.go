package volumes

import (
	"errors"
	"fmt"
	"iter"
)

// ErrBeyond says that a range isn't within a volume.
var ErrBeyond = errors.New("volumes: beyond the end of the volume")

// Piece is a part of a volume's range that lies in one run in the store.
type Piece struct {
	Off int64 // where it begins, from the beginning of the range
	At  int64 // where it is in the store
	Len int64 // more than 0
}

// Within fails with ErrBeyond unless the n bytes at off are all in the volume.
func (v Volume) Within(off, n int64) error {
	if size := v.Bytes(); off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%d bytes at %d of %d: %w", n, off, size, ErrBeyond)
	}
	return nil
}

// Pieces are where n bytes at off of the volume are in the store, in order. What is beyond the end isn't anywhere: see Within.
func (v Volume) Pieces(off, n int64) iter.Seq[Piece] {
	return func(yield func(Piece) bool) {
		if off < 0 {
			return
		}
		var done, begin int64 // begin is where an extent begins in the volume
		for _, e := range v.Extents {
			if n <= done {
				return
			}
			if at := off + done - begin; at < e.Bytes {
				run := min(e.Bytes-at, n-done)
				if !yield(Piece{Off: done, At: e.At + at, Len: run}) {
					return
				}
				done += run
			}
			begin += e.Bytes
		}
	}
}
