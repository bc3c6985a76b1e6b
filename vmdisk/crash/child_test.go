package crash

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"tagalong.org/tagalong/vmdisk"
)

// childDir and childSeed are in the environment of a process that is there to be killed.
const (
	childDir  = "TAGALONG_CRASH_DIR"
	childSeed = "TAGALONG_CRASH_SEED"
)

// zone is a part of the disk that a writer writes; the last two share theirs.
type zone struct{ off, n int64 }

var zones = [4]zone{
	{border - 16*block, 32 * block},
	{2*border - 24*block, 40 * block},
	{0, 24 * block},
	{0, 24 * block},
}

func realOptions() vmdisk.Options {
	return vmdisk.Options{BarrierEvery: 3 * time.Millisecond, SaveEvery: 10 * time.Millisecond, EpochLogBytes: 64 << 10, QueueBytes: 256 << 10}
}

func ownerDir(dir string) string   { return filepath.Join(dir, "owner") }
func replicaDir(dir string) string { return filepath.Join(dir, "replica") }

// diary tells the parent what is about to happen, and what has. A line is in the pipe, whole, before say returns.
type diary struct {
	mu sync.Mutex
	w  io.Writer
}

func (d *diary) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := fmt.Fprintf(d.w, format+"\n", args...); err != nil {
		os.Exit(3) // nobody listens any more
	}
}

// child writes until it is killed.
func child(dir string) error {
	seed, err := strconv.ParseUint(os.Getenv(childSeed), 10, 64)
	if err != nil {
		return err
	}
	log := &diary{w: os.Stdout}
	d, err := vmdisk.Open(ownerDir(dir), realOptions())
	if err != nil {
		return err
	}
	r, err := vmdisk.Open(replicaDir(dir), realOptions())
	if err != nil {
		return err
	}
	if err := d.Activate(d.Info().Term); err != nil {
		return err
	}
	failed := make(chan error)
	for i := range zones {
		go func() { failed <- write(d, log, i, rand.New(rand.NewPCG(seed, uint64(i)))) }()
	}
	go func() { failed <- mirror(d, r, log, rand.New(rand.NewPCG(seed, 99))) }()
	return <-failed
}

// write is one writer. It says what it does before it does it, and that it is done.
func write(d *vmdisk.Store, log *diary, me int, r *rand.Rand) error {
	z := zones[me]
	for stamp := r.Uint64() | 1; ; stamp += 2 {
		n := (1 + r.Int64N(12)) * cell
		off := r.Int64N((z.n-n)/cell+1) * cell
		if r.IntN(3) > 0 {
			n = (1 + r.Int64N(8)) * block
			off = r.Int64N((z.n-n)/block+1) * block
		}
		off += z.off
		fua := r.IntN(6) == 0
		var err error
		switch kind := r.IntN(10); kind {
		case 0, 1, 2:
			log.say("B %d %d %d 0", me, off, n)
			if kind == 0 {
				err = d.Trim(off, n, fua)
			} else {
				err = d.Zero(off, n, kind == 1, fua)
			}
		case 3:
			err = d.Flush()
			if err == nil {
				continue
			}
		default:
			p := fill(make([]byte, n), off, stamp)
			log.say("B %d %d %d %d", me, off, n, stamp)
			err = d.WriteAt(p, off, fua)
		}
		if err != nil {
			return err
		}
		log.say("E %d", me)
	}
}

// mirror lets the replica follow, with a new connection now and then. What it acknowledges it says.
func mirror(d, r *vmdisk.Store, log *diary, rnd *rand.Rand) error {
	for {
		a, err := r.Apply()
		if err != nil {
			return err
		}
		f, err := d.Attach(peerName, a.State())
		if err != nil {
			return err
		}
		for n := 20 + rnd.IntN(200); n > 0; n-- {
			op, err := f.Next(context.Background())
			if err != nil {
				return err
			}
			ack, err := feedTo(a, op)
			op.Release()
			if err != nil {
				return err
			}
			if ack != (vmdisk.Position{}) {
				log.say("A %d %d", ack.Term, ack.Barrier)
				f.Acked(ack)
			}
		}
		f.Close()
		if err := a.Close(); err != nil {
			return err
		}
	}
}
