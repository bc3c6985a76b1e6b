package directory

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	ballastBytes = 16 << 20
	minFree      = 64 << 20         // below: no writes
	lastFree     = ballastBytes     // below: the ballast goes
	minOpen      = 24 << 20         // that opening the store may need
	watchEvery   = 2 * time.Second  // between looks at the disk
	ballastName  = "ballast"        // beside the store
	ballastAgain = 2 * ballastBytes // above minFree: it comes back

	// The spare is for opening and closing the store on a disk that others have filled to the last byte. It is twice what that may need:
	// it shrinks by what an opening leaves behind.
	spareBytes = 2 * minOpen
	spareName  = "spare"
	sparePiece = 64 << 10
	spareAfter = 5 // looks until the first spare is made: most directories of tests don't live for so long
)

// space watches over the free space of the directory's file system: Badger maps
// its files into memory, and a write to a page without a place on disk ends the
// process.
//
// Two files keep room for it. The ballast is given up while the store is open, as soon as the disk is nearly full: somebody else may
// take what it held. The spare is given up only to open or close the store, and taken again from what is left, however little.
type space struct {
	dir   string
	free  func(dir string) (uint64, error)
	log   *slog.Logger
	looks int        // of adjust
	spare sync.Mutex // held over what is done with the spare; before mu
	given bool       // the spare is, for a moment; guarded by spare
	tight bool       // there was little room when the store was about to be opened; guarded by spare
	roomy func()     // called now and then while there is room; set before watch
	mu    sync.Mutex
	held  bool // the ballast is there
	full  bool // and that was logged
}

// prepare makes room for opening the store, or returns ErrNoSpace. The caller holds spare until settled.
func (s *space) prepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := os.Stat(s.path())
	s.held = err == nil && st.Size() == ballastBytes
	n, err := s.room(s.drop, s.dropSpare)
	if err != nil {
		return err
	}
	if n < minOpen {
		return fmt.Errorf("open with %d bytes free: %w", n, ErrNoSpace)
	}
	s.tight = n < minFree
	return nil
}

// around has something else find room too, as far as there is any to make: at least minOpen unless the disk is full and the spare is
// gone. The spare is taken again at once when fn returns, before somebody else takes the room.
func (s *space) around(fn func() error) error {
	s.spare.Lock()
	defer s.spare.Unlock()
	s.mu.Lock()
	_, err := s.room(s.dropSpare)
	s.mu.Unlock()
	if err != nil {
		s.log.Warn("How much room there is can't be told", "dir", s.dir, "error", err)
	}
	defer s.settled()
	return fn()
}

// settled takes the spare again if it was given up. The caller holds spare.
func (s *space) settled() {
	if !s.given {
		return
	}
	s.given = false
	if err := s.keepSpare(context.Background()); err != nil {
		s.log.Warn("Spare room could not be kept", "dir", s.dir, "error", err)
	}
}

// room gives up one thing after the other until minOpen is free, and returns how much is. The caller holds mu.
func (s *space) room(give ...func()) (uint64, error) {
	for i := 0; ; i++ {
		n, err := s.free(s.dir)
		if err != nil {
			return 0, fmt.Errorf("free space of %q: %w", s.dir, err)
		}
		if n >= minOpen || i == len(give) {
			return n, nil
		}
		give[i]()
	}
}

// check returns ErrNoSpace if nothing more may be written.
func (s *space) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.free(s.dir)
	if err != nil {
		return fmt.Errorf("free space of %q: %w: %w", s.dir, ErrNoSpace, err)
	}
	if n < lastFree {
		s.drop()
	}
	if full := n < minFree; full != s.full {
		s.full = full
		if full {
			s.log.Warn("The disk is nearly full: nothing is written to the directory until there is room", "dir", s.dir, "free", n)
		} else {
			s.log.Info("There is room for the directory again", "dir", s.dir, "free", n)
		}
	}
	if s.full {
		return fmt.Errorf("%d bytes free: %w", n, ErrNoSpace)
	}
	return nil
}

// watch gives the ballast up and makes it again as space comes and goes. It begins a moment after the store was opened, which has
// looked at the space: who starts has more urgent things to write.
func (s *space) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.adjust(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (s *space) adjust(ctx context.Context) {
	s.mu.Lock()
	n, err := s.free(s.dir)
	if err == nil && n < lastFree {
		s.drop()
	}
	room := err == nil && n >= minFree+ballastAgain
	fill := room && !s.held
	s.looks++
	spare := err == nil && s.looks > spareAfter
	s.mu.Unlock()
	if err != nil {
		s.log.Warn("Free space is unknown", "dir", s.dir, "error", err)
	}
	if fill {
		if err := s.fill(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("Ballast could not be made", "dir", s.dir, "error", err)
		}
	}
	if room && s.roomy != nil {
		s.roomy()
	}
	if spare && s.spare.TryLock() {
		defer s.spare.Unlock()
		if err := s.keepSpare(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("Spare room could not be kept", "dir", s.dir, "error", err)
		}
	}
}

func (s *space) path() string { return filepath.Join(s.dir, ballastName) }

func (s *space) sparePath() string { return filepath.Join(s.dir, spareName) }

func (s *space) dropSpare() {
	if err := os.Remove(s.sparePath()); err != nil {
		if !os.IsNotExist(err) {
			s.log.Error("Spare room could not be given up", "dir", s.dir, "error", err)
		}
		return
	}
	s.given = true
	s.log.Warn("Spare room was given up, the disk is full", "dir", s.dir)
}

// keepSpare makes the spare as large as it should be, or as there is room. The caller holds spare.
func (s *space) keepSpare(ctx context.Context) (err error) {
	size := int64(0)
	if st, err := os.Stat(s.sparePath()); err == nil {
		size = st.Size()
	}
	if size >= spareBytes {
		return nil
	}
	n, err := s.free(s.dir)
	if err != nil {
		return fmt.Errorf("free space of %q: %w", s.dir, err)
	}
	take := min(spareBytes-size, int64(min(n, spareBytes))) / sparePiece * sparePiece
	if take == 0 {
		return nil
	}
	f, err := os.OpenFile(s.sparePath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make spare room: %w", err)
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	if err := noise(ctx, f, take); err != nil && !errors.Is(err, syscall.ENOSPC) { // somebody was faster: what there is will do
		return fmt.Errorf("make spare room: %w", err)
	}
	return nil
}

func (s *space) drop() {
	if err := os.Remove(s.path()); err != nil {
		if !os.IsNotExist(err) {
			s.log.Error("Ballast could not be given up", "dir", s.dir, "error", err)
		}
		return
	}
	s.held = false
	s.log.Warn("Ballast was given up, the disk is nearly full", "dir", s.dir)
}

// fill writes the ballast with bytes that no file system can leave out. Commits
// don't wait for it.
func (s *space) fill(ctx context.Context) (err error) {
	half := s.path() + ".new"
	f, err := os.OpenFile(half, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create ballast: %w", err)
	}
	defer func() {
		if e := f.Close(); err == nil && e != nil {
			err = fmt.Errorf("close ballast: %w", e)
		}
		if err == nil {
			err = s.filled(half)
		}
		if err != nil {
			_ = os.Remove(half)
		}
	}()
	if err := noise(ctx, f, ballastBytes); err != nil {
		return fmt.Errorf("write ballast: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync ballast: %w", err)
	}
	return nil
}

// noise writes n bytes, of whole pieces, that no file system can leave out.
func noise(ctx context.Context, w io.Writer, n int64) error {
	block, err := aes.NewCipher(binary.LittleEndian.AppendUint64(make([]byte, 8), uint64(n)))
	if err != nil {
		return err
	}
	stream, buf := cipher.NewCTR(block, make([]byte, block.BlockSize())), make([]byte, sparePiece)
	for ; n > 0; n -= sparePiece {
		if err := ctx.Err(); err != nil {
			return err
		}
		stream.XORKeyStream(buf, buf)
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

func (s *space) filled(half string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(half, s.path()); err != nil {
		return fmt.Errorf("name ballast: %w", err)
	}
	s.held = true
	return nil
}
