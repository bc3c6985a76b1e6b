package crash

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

var (
	seeds = flag.Uint64("crash.seeds", 60, "how many seeds TestRandom tries")
	seed  = flag.Uint64("crash.seed", 0, "the only seed of TestRandom, or 0")
)

const (
	lives   = 5  // of both devices, each but the last ended by a crash
	lifeOps = 30 // operations in each
)

// TestRandom does longer workloads, crash after crash, and visits some of their crash points.
func TestRandom(t *testing.T) {
	fresh := starts(t)[0]
	if *seed != 0 {
		c := &visitor{r: rand.New(rand.NewPCG(*seed, 1))}
		must(t, fresh.lives(c))
		return
	}
	var works []func(c *visitor) error
	for s := range *seeds {
		works = append(works, func(c *visitor) error {
			c.r = rand.New(rand.NewPCG(s+1, 1))
			if err := fresh.lives(c); err != nil {
				return fmt.Errorf("-crash.seed=%d: %w", s+1, err)
			}
			return nil
		})
	}
	visited := inParallel(t, works)
	t.Logf("%d crash points of %d seeds", visited, *seeds)
}

func (s start) lives(c *visitor) error {
	c.some, c.second, c.thorough = 1, 60, 2
	om, rm, m, stamp := s.om.After(vfs.LoseNothing, 0), s.rm.After(vfs.LoseNothing, 0), s.m, s.stamp
	for n := range lives {
		w, err := newWorld(om, rm, m)
		if err != nil {
			return fmt.Errorf("life %d: %w", n+1, err)
		}
		w.stamp = stamp
		w.trace()
		if err := errors.Join(w.live(c), w.close()); err != nil {
			return fmt.Errorf("life %d: %w", n+1, err)
		}
		if len(w.points) == 0 {
			continue
		}
		// Both die together, and live on from what is left.
		p := w.points[c.r.IntN(len(w.points))]
		om = p.mems[0].After(vfs.Loss(c.r.IntN(3)), c.r.Uint64())
		rm = p.mems[1].After(vfs.Loss(c.r.IntN(3)), c.r.Uint64())
		stamp = w.stamp
		if m, err = p.m.after(om, rm); err != nil {
			return fmt.Errorf("after life %d: %w", n+1, err)
		}
	}
	return nil
}

// live does operations, and visits one of ten crash points.
func (w *world) live(c *visitor) error {
	for i := range lifeOps {
		first := len(w.points)
		if err := w.any(c.r); err != nil && !errors.Is(err, errNothing) {
			return fmt.Errorf("operation %d: %w", i+1, err)
		}
		for n := first; n < len(w.points); n++ {
			if c.r.IntN(10) > 0 {
				continue
			}
			if err := c.visit(w.points[n]); err != nil {
				return fmt.Errorf("operation %d, crash point %d: %w", i+1, n-first+1, err)
			}
		}
	}
	return w.finish(c.r.Uint64())
}

// any does any operation.
func (w *world) any(r *rand.Rand) error {
	switch x := r.IntN(100); {
	case x < 45:
		near := [3]int64{0, border - 16*block, w.owner.Size() - 32*block}[r.IntN(3)]
		n := (1 + r.Int64N(3*blockCells)) * cell
		off := near + r.Int64N(16*blockCells)*cell
		if r.IntN(2) == 0 {
			n, off = (1+r.Int64N(16))*block, near+r.Int64N(16)*block
		}
		fua := r.IntN(8) == 0
		switch r.IntN(7) {
		case 0:
			return w.trim(off, n, fua)
		case 1:
			return w.zero(off, n, r.IntN(2) == 0, fua)
		default:
			return w.write(off, n, fua)
		}
	case x < 53:
		return w.flush()
	case x < 56:
		return w.save()
	case x < 57:
		if r.IntN(2) == 0 {
			return w.grow()
		}
		return w.hash()
	case x < 60:
		return w.takeCut()
	case x < 75:
		return w.deliver()
	case x < 85:
		return w.ack()
	case x < 93 || x < 96 && w.feed == nil:
		if w.feed != nil && r.IntN(3) > 0 {
			return errNothing
		}
		return w.attach()
	case x < 96:
		return w.restart()
	default:
		if w.m.fenced || w.m.given == w.m.term {
			if r.IntN(3) == 0 && w.m.fenced {
				return w.fence()
			}
			return w.give()
		}
		return w.fence()
	}
}

// after is m when what is in om and rm has survived a crash.
func (m *told) after(om, rm *vfs.Mem) (*told, error) {
	d, err := vmdisk.Open("", options(om))
	if err != nil {
		return nil, err
	}
	v, err := scan(d)
	given, size := d.Info().Given, d.Size()
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	r, err := vmdisk.Open("", options(rm))
	if err != nil {
		return nil, err
	}
	st := r.ReplicaState()
	if err := r.Close(); err != nil {
		return nil, err
	}
	return m.but(func(m *told) {
		cells := map[int64]state{}
		for i := range m.cells {
			cells[i] = state{now: v[i], durable: v[i]}
		}
		m.cells, m.size, m.growing = cells, size, size
		m.active, m.fenced, m.giving, m.given = false, false, false, given
		m.held, m.ending, m.complete = st.Position, st.Position, st.Complete
		m.partial, m.copying = values{}, st.Copy // nothing that it acknowledged, so nothing
	}), nil
}
