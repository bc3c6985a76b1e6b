package directory

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
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
)

// space watches over the free space of the directory's file system: Badger maps
// its files into memory, and a write to a page without a place on disk ends the
// process.
type space struct {
	dir  string
	free func(dir string) (uint64, error)
	log  *slog.Logger
	mu   sync.Mutex
	held bool // the ballast is there
}

// prepare makes room for opening the store, or returns ErrNoSpace.
func (s *space) prepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := os.Stat(s.path())
	s.held = err == nil && st.Size() == ballastBytes
	n, err := s.free(s.dir)
	if err != nil {
		return fmt.Errorf("free space of %q: %w", s.dir, err)
	}
	if n < minOpen {
		s.drop()
		if n, err = s.free(s.dir); err != nil {
			return fmt.Errorf("free space of %q: %w", s.dir, err)
		}
	}
	if n < minOpen {
		return fmt.Errorf("open with %d bytes free: %w", n, ErrNoSpace)
	}
	return nil
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
	if n < minFree {
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
	fill := err == nil && !s.held && n >= minFree+ballastAgain
	s.mu.Unlock()
	if err != nil {
		s.log.Warn("Free space is unknown", "dir", s.dir, "error", err)
	}
	if fill {
		if err := s.fill(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("Ballast could not be made", "dir", s.dir, "error", err)
		}
	}
}

func (s *space) path() string { return filepath.Join(s.dir, ballastName) }

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
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return fmt.Errorf("make ballast: %w", err)
	}
	noise, buf := cipher.NewCTR(block, make([]byte, block.BlockSize())), make([]byte, 1<<20)
	for range ballastBytes / len(buf) {
		if err := ctx.Err(); err != nil {
			return err
		}
		noise.XORKeyStream(buf, buf)
		if _, err := f.Write(buf); err != nil {
			return fmt.Errorf("write ballast: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync ballast: %w", err)
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
