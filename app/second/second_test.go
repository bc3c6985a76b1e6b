package second_test

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/app/second"
	"tagalong.org/tagalong/vmdisk"
)

// disk is a disk whose peers are moved by the test.
type disk struct {
	mu       sync.Mutex
	pos      vmdisk.Position
	there    vmdisk.Elsewhere
	watchers map[chan struct{}]bool
	hurried  int
	flushed  int
}

func newDisk() *disk {
	return &disk{pos: at(1), there: vmdisk.Elsewhere{Newest: at(1), Active: true}, watchers: map[chan struct{}]bool{}}
}

func at(barrier uint64) vmdisk.Position { return vmdisk.Position{Term: 1, Barrier: barrier} }

func (d *disk) Position() vmdisk.Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pos
}

func (d *disk) Elsewhere() vmdisk.Elsewhere {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.there
}

func (d *disk) Hurry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hurried++
}

func (d *disk) Watch(string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watchers[c] = true
	return c, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watchers, c)
	}
}

// flush makes the next barrier.
func (d *disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushed++
	d.pos.Barrier++
	return nil
}

// change moves what the test wants moved, and wakes.
func (d *disk) change(f func(*vmdisk.Elsewhere)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.there)
	for c := range d.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (d *disk) ack() { d.change(func(e *vmdisk.Elsewhere) { e.Newest = d.pos }) }

// scene is a gate with two set around a disk, in fake time.
type scene struct {
	t     *testing.T
	disk  *disk
	gate  *second.Gate
	ended chan struct{}
	began time.Time

	mu   sync.Mutex
	why  second.Why
	told int
}

func inTime(t *testing.T, f func(s *scene)) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, disk: newDisk(), ended: make(chan struct{}), began: time.Now()}
		s.gate = second.New(func(vmdisk.Elsewhere) second.Why {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.why
		}, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.told++
		})
		s.gate.Set(true)
		f(s)
	})
}

func (s *scene) because(w second.Why) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = w
}

func (s *scene) toldTimes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}

// flush begins a flush.
func (s *scene) flush() <-chan error {
	c := make(chan error, 1)
	b := s.gate.On(s.disk, s.ended)
	go func() { c <- b.Flushed(s.disk.flush) }()
	synctest.Wait()
	return c
}

// waits fails unless the flush does.
func (s *scene) waits(c <-chan error) {
	s.t.Helper()
	synctest.Wait()
	select {
	case err := <-c:
		s.t.Fatalf("the flush didn't wait: %v, after %v", err, time.Since(s.began))
	default:
	}
}

// ends fails unless the flush has ended, with that error.
func (s *scene) ends(c <-chan error, want error) {
	s.t.Helper()
	synctest.Wait()
	select {
	case err := <-c:
		if !errors.Is(err, want) || (want == nil) != (err == nil) {
			s.t.Fatalf("the flush ended with %v, want %v", err, want)
		}
	default:
		s.t.Fatalf("the flush still waits after %v", time.Since(s.began))
	}
}

func TestAFlushWaitsForAnotherDevice(t *testing.T) {
	inTime(t, func(s *scene) {
		f := s.flush()
		time.Sleep(500 * time.Millisecond)
		s.waits(f)
		if s.disk.hurried == 0 {
			t.Error("nobody was told that somebody waits")
		}
		s.disk.ack()
		s.ends(f, nil)
		if s.toldTimes() != 0 || s.gate.Refused() {
			t.Error("a short wait was told")
		}
	})
}

// What the peers have of an earlier flush doesn't count for a later one.
func TestAFlushWaitsForItsOwnPosition(t *testing.T) {
	inTime(t, func(s *scene) {
		first := s.flush()
		earlier := s.disk.Position()
		later := s.flush()
		s.disk.change(func(e *vmdisk.Elsewhere) { e.Newest = earlier })
		s.ends(first, nil)
		s.waits(later)
		s.disk.ack()
		s.ends(later, nil)
	})
}

func TestOneWaitsForNobody(t *testing.T) {
	inTime(t, func(s *scene) {
		s.gate.Set(false)
		s.ends(s.flush(), nil)
		if s.gate.State(s.disk).Why != second.Off {
			t.Error("it isn't off")
		}
	})
}

func TestALocalFailureIsAnsweredAtOnce(t *testing.T) {
	inTime(t, func(s *scene) {
		bad := errors.New("bad")
		if err := s.gate.On(s.disk, s.ended).Flushed(func() error { return bad }); !errors.Is(err, bad) {
			t.Fatal(err)
		}
	})
}

// Nobody answers: told after a second, refused after ten; later flushes are refused at once, so that nothing that stops the guest hangs. When the
// device is back everything is as before.
func TestNobodyAnswers(t *testing.T) {
	inTime(t, func(s *scene) {
		f := s.flush()
		time.Sleep(second.TellAfter - 1)
		s.waits(f)
		if s.toldTimes() != 0 {
			t.Error("told too early")
		}
		time.Sleep(time.Second)
		s.waits(f)
		if since := s.gate.State(s.disk).Since; s.toldTimes() != 1 || !since.Equal(s.began) {
			t.Errorf("told %d times, waits since %v", s.toldTimes(), since)
		}
		time.Sleep(second.Grace - second.TellAfter - time.Second)
		s.waits(f)
		time.Sleep(time.Nanosecond)
		s.ends(f, second.ErrNoSecond)
		s.ends(s.flush(), syscall.ENOSPC)
		if !s.gate.Refused() || s.gate.Satisfied(s.disk) || s.toldTimes() != 1 {
			t.Errorf("refused %v, satisfied %v, told %d times", s.gate.Refused(), s.gate.Satisfied(s.disk), s.toldTimes())
		}
		s.disk.ack()
		if !s.gate.Satisfied(s.disk) {
			t.Error("not satisfied")
		}
		s.gate.Runs()
		if s.gate.Refused() {
			t.Error("a guest that runs was refused nothing")
		}
		f = s.flush()
		s.waits(f)
		s.disk.ack()
		s.ends(f, nil)
	})
}

// A refusal that made no guest stand still (the hypervisor's own flush) doesn't take the grace from those after it for ever.
func TestTheGraceComesBack(t *testing.T) {
	inTime(t, func(s *scene) {
		f := s.flush()
		time.Sleep(second.Grace)
		s.ends(f, second.ErrNoSecond)
		s.disk.ack()
		s.ends(s.flush(), second.ErrNoSecond)
		s.disk.ack()
		if err := s.gate.On(s.disk, s.ended).Flushed(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		f = s.flush()
		s.waits(f)
		s.disk.ack()
		s.ends(f, nil)
		if !s.gate.Refused() {
			t.Error("the refusal is forgotten, and the guest may stand still for it")
		}
	})
}

func TestReasonsNotToWait(t *testing.T) {
	for _, why := range []second.Why{second.Alone, second.Offline, second.Uncopied} {
		inTime(t, func(s *scene) {
			f := s.flush()
			s.waits(f)
			s.because(why) // told by nobody: it is looked for
			time.Sleep(time.Second)
			s.ends(f, nil)
			s.ends(s.flush(), nil)
			if got := s.gate.State(s.disk).Why; got != why || !s.gate.Satisfied(s.disk) {
				t.Errorf("why %d, want %d", got, why)
			}
			s.because(second.Held)
			s.waits(s.flush())
			close(s.ended)
		})
	}
	inTime(t, func(s *scene) {
		s.disk.change(func(e *vmdisk.Elsewhere) { e.Hydrating = true })
		s.ends(s.flush(), nil)
		if got := s.gate.State(s.disk).Why; got != second.Filling {
			t.Errorf("why %d", got)
		}
	})
}

func TestChangingTheSettingFreesWhoWaits(t *testing.T) {
	inTime(t, func(s *scene) {
		f := s.flush()
		s.waits(f)
		s.gate.Set(false)
		s.ends(f, nil)
	})
}

// A disk that turns inactive, or an export that ends, hangs up: an answer would say what isn't so, and whoever ends it waits.
func TestHangUp(t *testing.T) {
	inTime(t, func(s *scene) {
		f := s.flush()
		s.disk.change(func(e *vmdisk.Elsewhere) { e.Active = false })
		s.ends(f, vmdisk.ErrInactive)
		// One that never was has nothing to flush, and was always answered.
		s.ends(s.flush(), nil)
	})
	inTime(t, func(s *scene) {
		f := s.flush()
		close(s.ended)
		s.ends(f, vmdisk.ErrInactive)
	})
	inTime(t, func(s *scene) {
		err := s.gate.On(s.disk, s.ended).Flushed(func() error {
			s.disk.change(func(e *vmdisk.Elsewhere) { e.Active = false })
			return s.disk.flush()
		})
		if !errors.Is(err, vmdisk.ErrInactive) {
			t.Errorf("a disk that turned inactive while it was flushed: %v", err)
		}
	})
}

// Stopping a guest ends waits soon, what is flushed while it stands still is answered, and when it runs again all is as before.
func TestStoppingTheGuest(t *testing.T) {
	inTime(t, func(s *scene) {
		f := s.flush()
		stopped := make(chan error, 1)
		go func() {
			stopped <- s.gate.Stop(func() error {
				err := <-f // the hypervisor waits for the guest's requests
				if !errors.Is(err, second.ErrNoSecond) {
					return err
				}
				return nil
			})
		}()
		synctest.Wait()
		time.Sleep(second.StopGrace - 1)
		synctest.Wait()
		select {
		case err := <-stopped:
			t.Fatalf("stopped before the processors were: %v", err)
		default:
		}
		time.Sleep(time.Nanosecond)
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
		s.ends(s.flush(), nil)
		s.gate.Runs()
		f = s.flush()
		time.Sleep(2 * second.StopGrace)
		s.waits(f)
		s.disk.ack()
		s.ends(f, nil)
	})
	inTime(t, func(s *scene) { // it couldn't be stopped
		if err := s.gate.Stop(func() error { return syscall.EIO }); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		f := s.flush()
		time.Sleep(2 * second.StopGrace)
		s.waits(f)
		s.disk.ack()
		s.ends(f, nil)
	})
}
