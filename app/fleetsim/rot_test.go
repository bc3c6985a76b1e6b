package fleetsim

import (
	"context"
	"errors"
	"flag"
	"sync"
	"testing"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/diskverify"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/p2p/wire/wiretest"
	"tagalong.org/tagalong/vmdisk"
)

// In some lives drives go bad: a block of one device's base.raw changes by itself, and a verification comes by (the real p2p/verify, with the disks' own
// records, and who reads them lent by app/diskverify), while writes and pushes go on arriving. It may repair that, or tell it; whatever it does, no device that
// was well may be any different afterwards, which is what all the other checks see. What wasn't repaired is a drive that is exchanged then.

// rot is what changed by itself: that block of base.raw was well, and is bad.
type rot struct {
	off       int64
	well, bad []byte
}

const baseFile = "base.raw"

// rots has a block of a device's drive go bad, where the disk reads it from there; nil if that isn't so.
func (d *device) rots(block int64, bit byte) *rot {
	r := &rot{off: block * vmdisk.Block, well: make([]byte, vmdisk.Block), bad: make([]byte, vmdisk.Block)}
	f, err := d.mem.Open(baseFile)
	if err != nil {
		return nil
	}
	defer f.Close()
	if _, err := f.ReadAt(r.well, r.off); err != nil {
		return nil
	}
	copy(r.bad, r.well)
	r.bad[100] ^= bit
	_, err = f.WriteAt(r.bad, r.off)
	read := make([]byte, vmdisk.Block)
	if errors.Join(err, f.Sync(), d.e.disk.ReadAt(read, r.off)) == nil && string(read) == string(r.bad) {
		d.rotten = r
		return r
	}
	r.exchange(d)
	return nil
}

// exchange puts back what is still bad, and says whether it was.
func (r *rot) exchange(d *device) bool {
	f, err := d.mem.Open(baseFile)
	if err != nil {
		return false
	}
	defer f.Close()
	have := make([]byte, vmdisk.Block)
	d.rotten = nil
	if _, err := f.ReadAt(have, r.off); err != nil || string(have) != string(r.bad) {
		return false
	}
	if _, err = f.WriteAt(r.well, r.off); errors.Join(err, f.Sync()) != nil {
		d.w.fail("%s's drive isn't exchanged: %v", d.id, err)
	}
	return true
}

// well is a disk as it would be if its drive weren't bad.
type well struct {
	vmdisk.Reader
	rot *rot
}

func (x well) ReadAt(p []byte, off int64) error {
	err := x.Reader.ReadAt(p, off)
	if at := x.rot.off - off; err == nil && at >= 0 && at+vmdisk.Block <= int64(len(p)) {
		if b := p[at : at+vmdisk.Block]; string(b) == string(x.rot.bad) {
			copy(b, x.rot.well)
		}
	}
	return err
}

// verifies lets a drive go bad and a verification come by; false if there is no owner with a copy to compare with.
func (w *world) verifies(d *device) bool {
	if !d.e.owner() || d.e.disk == nil || d.fuse.lit {
		return false
	}
	info := d.e.disk.Info()
	if term, owner, ok := d.e.dir.Owner(vmID); !info.Active || info.Fenced || info.Err != nil || !ok || owner != d.id || term != info.Term {
		return false
	}
	var copies []*device
	for _, p := range w.others(d) {
		if w.comparable(d, p, info.Term) {
			copies = append(copies, p)
		}
	}
	if len(copies) == 0 {
		return false
	}
	everyone := append([]*device{d}, copies...)
	for _, p := range everyone {
		if w.rng.IntN(2) == 0 {
			err := p.e.disk.Save()
			if err == nil {
				err = p.e.disk.Record(context.Background())
			}
			if err != nil {
				w.trouble(p, "record hashes", err)
			}
			p.touched = true
			w.look(p)
		}
	}
	victim := w.pick(everyone)
	at := windows[w.rng.IntN(2)]/vmdisk.Block + w.rng.Int64N(windowSize/vmdisk.Block)
	r := victim.rots(at, 1<<w.rng.IntN(8))
	if r == nil {
		w.note("%s's block %d isn't in its base", victim.id, at)
		return true
	}
	w.note("%s's block %d goes bad; %s verifies with %d copies", victim.id, at, d.id, len(copies))
	res, err := w.round(d, copies, victim)
	for _, p := range everyone {
		p.touched = true
	}
	if err != nil {
		w.trouble(d, "verify", err)
	}
	w.judgeRound(d, victim, r, res)
	return true
}

// comparable says whether p takes part, as package app does.
func (w *world) comparable(d, p *device, term uint64) bool {
	if p.e == nil || p.e.disk == nil || p.fuse.lit || p.e.owner() || p.e.sealed || p.e.machine.State() != baton.Replica || !w.net.linked(d.id, p.id) || !d.sees[p.id] {
		return false
	}
	at, owner, ok := p.e.dir.Owner(vmID)
	info := p.e.disk.Info()
	return ok && at == term && owner == d.id && info.Complete && !info.Hydrating && info.Err == nil && w.saboteur.mayReceive(p.e)
}

// round is one verification.
func (w *world) round(d *device, copies []*device, victim *device) (*verify.Result, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	defer served.Wait()
	defer cancel()
	o := verify.Options{
		Size: d.e.disk.Size(), Copies: map[string]verify.Copy{}, Overwrite: w.saboteur == overwritesAll,
		Fetch: func(_ context.Context, off, n int64, sum [16]byte) ([]byte, error) {
			return w.piece(copies, off, n, sum)
		},
	}
	o.Key[0] = byte(w.rng.IntN(256))
	target := replica.Target{VM: vmID, Disk: replica.ID(diskID), Size: o.Size, Term: d.e.disk.Info().Term}
	heard := func(device string, at vmdisk.Position) {
		w.notes(d, w.dev(device), vmdisk.ReplicaState{Disk: diskID, Complete: true, Position: at})
	}
	lent := diskverify.NewOwner(ctx, d.e.disk, nil, d.e.history, heard)
	o.Disk = ownersDisk{lent, w, d, victim}
	for _, p := range copies {
		a, b := wiretest.Pipe(w.tb)
		served.Go(func() {
			_ = verify.Serve(ctx, b, func(verify.Hello) (verify.Replica, verify.State, error) {
				if err := p.e.disk.Reach(o.Size); err != nil {
					return nil, verify.State{}, err
				}
				lent := diskverify.NewReplica(ctx, p.e.disk, nil, func() error { return nil })
				return replicasDisk{lent, w}, diskmirror.State(p.e.disk.ReplicaState()), nil
			})
		})
		x, there, err := verify.Open(ctx, a, verify.Hello{Target: target, Key: o.Key})
		if err != nil {
			w.note("%s isn't compared: %v", p.id, err)
			continue
		}
		defer x.Close()
		heard(p.id, vmdisk.Position(there.Position))
		o.Copies[p.id] = x
	}
	return verify.Round(ctx, o)
}

// piece is what somebody has of a place, if that is what was recorded. One in four lies.
func (w *world) piece(copies []*device, off, n int64, sum [16]byte) ([]byte, error) {
	for _, p := range copies {
		b := make([]byte, n)
		if p.e.disk.ReadAt(b, off) != nil {
			continue
		}
		if lies := w.rng.IntN(4) == 0; lies {
			b[w.rng.Int64N(n)]++
			return b, nil
		}
		if is := blake3.Sum256(b); [16]byte(is[:16]) == sum || w.saboteur == mendsUnproven {
			return b, nil
		}
	}
	return nil, errors.New("nobody has it")
}

// ownersDisk has writes and pushes arrive while copies are waited for.
type ownersDisk struct {
	*diskverify.Owner
	w         *world
	d, victim *device
}

func (x ownersDisk) Look() (verify.Look, error) {
	l, err := x.Owner.Look()
	x.d.touched = true
	x.w.look(x.d)
	return pumped{l, x}, err
}

func (x ownersDisk) Mend(p []byte, off int64) error {
	if x.w.saboteur != mendsUnproven {
		return x.Owner.Mend(p, off)
	}
	f, err := x.d.mem.Open(baseFile)
	if err == nil {
		_, err = f.WriteAt(p, off)
		err = errors.Join(err, f.Close())
	}
	return err
}

type pumped struct {
	verify.Look
	x ownersDisk
}

// Reached implements verify.Look. What the owner's bad drive has must not be sent: such a copy is left to its patience.
func (l pumped) Reached(ctx context.Context, device string, off, n int64) (bool, error) {
	w, d := l.x.w, l.x.d
	for range 20 {
		if p := w.dev(device); l.x.victim == d || !w.bring(d, p) && !w.receive(p) {
			break
		}
		w.look(d)
	}
	return l.Look.Reached(ctx, device, off, n)
}

// replicasDisk is a copy as it is lent.
type replicasDisk struct {
	*diskverify.Replica
	w *world
}

func (x replicasDisk) Patch(p verify.Patch) error {
	if x.w.saboteur == patchesWhole {
		p.Without = 0
	}
	return x.Replica.Patch(p)
}

// judgeRound checks what a verification says, and has the drive exchanged.
func (w *world) judgeRound(d, victim *device, r *rot, res *verify.Result) {
	left := r.exchange(victim)
	for _, f := range res.Findings {
		w.note("found: %+v", f)
		for device, o := range f.Copies {
			sent := o == verify.Repaired || o == verify.Sent
			if left && victim == d && sent && f.Off <= r.off && r.off < f.Off+f.Len {
				w.fail("%s's bad block %d was sent to %s", d.id, r.off/vmdisk.Block, device)
			}
			if victim != d && device != victim.id && o != verify.Withheld {
				w.fail("%s's copy is %q, and %s's drive is the bad one", device, o, victim.id)
			}
		}
		if victim != d && f.Here != "" {
			w.fail("%s's disk is %q, and %s's drive is the bad one", d.id, f.Here, victim.id)
		}
	}
	if w.acts.rotten++; !left {
		w.acts.mended++
	}
}

// withRot is a life in which drives go bad.
func withRot(t *testing.T, seed uint64, sab saboteur, verbose bool) *world {
	return liveBy(t, seed, sab, verbose, func(w *world, n int) {
		switch {
		case n%8 == 7:
			w.some(w.verifies)
		case n%16 == 3:
			w.some(w.copiesOut)
		default:
			w.event()
		}
	})
}

var flagRotten = flag.Uint64("fleet.rotten", 15, "how many seeds are tried of lives in which drives go bad")

// TestDrivesGoBad: whatever a verification finds, and repairs, nobody who was well is any different.
func TestDrivesGoBad(t *testing.T) {
	if *flagSeed != 0 {
		withRot(t, *flagSeed, "", true).replayed(t)
		return
	}
	var all acts
	for seed := *flagFrom; seed < *flagFrom+*flagRotten; seed++ {
		w := withRot(t, seed, "", false)
		if w.err != nil {
			t.Errorf("seed %d: %v\nreplay: go test ./app/fleetsim -run TestDrivesGoBad -v -fleet.seed %d", seed, w.err, seed)
		}
		all.add(w.acts)
	}
	t.Logf("%d drives went bad, %d of them were repaired; %d pushes, %d blocks found elsewhere, %d hand-offs", all.rotten, all.mended, all.pushes, all.elsewhere, all.handoffs)
	if n := int(*flagRotten); n >= 15 && (all.rotten < 5*n || all.mended < all.rotten/4 || all.elsewhere == 0) {
		t.Errorf("hardly anything goes bad, is repaired or found")
	}
}

// TestBadRepairsAreNoticed breaks what repairs stand on.
func TestBadRepairsAreNoticed(t *testing.T) {
	for _, s := range []saboteur{mendsUnproven, patchesWhole, overwritesAll, trustsTheIndex} {
		t.Run(string(s), func(t *testing.T) {
			for seed := range uint64(200) {
				if w := withRot(t, seed+1, s, false); w.err != nil && withRot(t, seed+1, "", false).err == nil {
					t.Logf("seed %d: %v", seed+1, w.err)
					return
				}
			}
			t.Error("not noticed in 200 seeds")
		})
	}
}
