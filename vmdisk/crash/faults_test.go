package crash

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// fault makes the n-th call of the owner (0) or the replica (1) fail.
type fault struct {
	who, n  int
	err     error
	forever bool
}

func (f fault) String() string {
	return fmt.Sprintf("call %d of device %d fails with %q (forever %v)", f.n, f.who, f.err, f.forever)
}

// TestFaults makes every call of the last operation of every workload of up to two operations fail. Nothing that
// returned nil may be lost, also by a power cut.
func TestFaults(t *testing.T) {
	var works []func(c *visitor) error
	for _, s := range starts(t) {
		for _, list := range words(min(2, *longest)) {
			works = append(works, func(c *visitor) error {
				if err := s.faults(c, list); err != nil {
					return fmt.Errorf("\"%s %s\": %w", s.name, list, err)
				}
				return nil
			})
		}
	}
	visited := inParallel(t, works)
	t.Logf("%d crashes after faults in %d workloads", visited, len(works))
}

var kinds = []struct {
	err     error
	forever bool
}{{syscall.EIO, false}, {syscall.ENOSPC, false}, {syscall.EIO, true}, {syscall.ENOSPC, true}}

// faults makes each call fail: in all ways if the workload has one operation, in turn if it has more.
func (s start) faults(c *visitor, list string) error {
	var calls [2]int
	if ok, err := s.faulty(c, list, nil, &calls); err != nil || !ok {
		return err
	}
	for who := range calls {
		for n := 1; n <= calls[who]; n++ {
			for i, kind := range kinds {
				if len(list) > 1 && i != n%len(kinds) {
					continue
				}
				f := &fault{who, n, kind.err, kind.forever}
				if _, err := s.faulty(c, list, f, &calls); err != nil {
					return fmt.Errorf("%s: %w", f, err)
				}
			}
		}
	}
	return nil
}

// faulty does a workload with a fault in its last operation, and then crashes. ok says that all operations do something, calls how many
// calls the last one made.
func (s start) faulty(c *visitor, list string, f *fault, calls *[2]int) (ok bool, err error) {
	w, err := s.world()
	if err != nil {
		return false, err
	}
	defer func() {
		w.om.FailAt(0, nil, false)
		w.rm.FailAt(0, nil, false)
		cerr := w.close()
		if f == nil {
			err = errors.Join(err, cerr)
		}
	}()
	for i := range len(list) {
		if i == len(list)-1 {
			w.trace()
			w.om.FailAt(0, nil, false)
			w.rm.FailAt(0, nil, false)
			if f != nil {
				[]*vfs.Mem{w.om, w.rm}[f.who].FailAt(f.n, f.err, f.forever)
			}
		}
		err := operate(w, list[i])
		switch {
		case errors.Is(err, errNothing):
			return false, nil
		case err == nil:
		case f != nil && (errors.Is(err, f.err) || strings.Contains(err.Error(), f.err.Error())):
		default:
			return false, fmt.Errorf("operation %d: %w", i+1, err)
		}
	}
	if f == nil {
		*calls = [2]int{w.om.Calls(), w.rm.Calls()}
		return true, nil
	}
	return true, w.mourn(c, f)
}

// mourn visits what a fault has left: at once, and when the disk has been closed in whatever order is left of it.
func (w *world) mourn(c *visitor, f *fault) error {
	c.some, c.thorough = 1, 1
	p := point{w.last, f.who, w.m}
	if err := c.visit(p); err != nil {
		return err
	}
	w.om.FailAt(0, nil, false)
	w.rm.FailAt(0, nil, false)
	if f.who == 0 && w.m.active && !w.m.fenced && !w.m.giving && w.owner.Info().Err == nil && w.owner.Flush() == nil {
		// What was done before is durable; what failed may be there or not.
		w.told(0, w.m.flushed())
	}
	if err := w.close(); err != nil && !errors.Is(err, vmdisk.ErrFailed) {
		return fmt.Errorf("close: %w", err)
	}
	return c.visit(point{[2]*vfs.Mem{w.om, w.rm}, f.who, w.m})
}
