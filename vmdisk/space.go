package vmdisk

import (
	"fmt"
	"sync"
	"syscall"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// space keeps a reserve on the device's disk. Safe for concurrent use.
type space struct {
	fs      vfs.FS
	reserve int64

	mu   sync.Mutex
	left int64 // above the reserve, as far as we know
	at   time.Time
}

// take says whether n more bytes may be stored. The file system is asked at most once a second, or
// when what it said is used up; n counts until then.
func (s *space) take(n int64) (bool, error) {
	if s.reserve <= 0 {
		return true, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left < n || time.Since(s.at) > time.Second {
		free, err := s.fs.Free()
		if err != nil {
			return false, fmt.Errorf("free space: %w", err)
		}
		s.left, s.at = free-s.reserve, time.Now()
	}
	if s.left < n {
		return false, nil
	}
	s.left -= n
	return true, nil
}

// room says whether the range can be written: below the reserve only where it takes no new space.
func (d *Store) room(off, n int64) error {
	ok, err := d.space.take(n)
	if ok || err != nil {
		return err
	}
	if fits, err := d.stack.fits(off, n); fits || err != nil {
		return err
	}
	return d.noRoom()
}

func (d *Store) noRoom() error {
	return fmt.Errorf("reserve of %d bytes reached: %w", d.o.Reserve, syscall.ENOSPC)
}
