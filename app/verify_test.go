package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/scrub"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/vmdisk"
)

// rot changes some bytes of a device's disk file, as a bad drive does.
func (d *device) rot(id string, off int64) {
	d.t.Helper()
	base, err := os.OpenFile(filepath.Join(d.dir, "vms", id, "disk", "base.raw"), os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer base.Close()
	b := make([]byte, 3)
	if _, err := base.ReadAt(b, off); err != nil {
		d.t.Fatal(err)
	}
	for i := range b {
		b[i] ^= 0x55
	}
	if _, err := base.WriteAt(b, off); err != nil {
		d.t.Fatal(err)
	}
}

// record makes records of what an owner's disk has.
func (d *device) record(id string) {
	d.t.Helper()
	disk := d.engine.vm(id).currentDisk()
	until(d.t, "hashes to be recorded", func() bool {
		if err := disk.Save(); err != nil {
			d.t.Fatal(err)
		}
		s, err := disk.Scrub(d.t.Context(), vmdisk.ScrubOptions{Record: true})
		return err == nil && s.Recorded+s.Verified > 0 && s.Busy == 0
	})
}

// verify has a VM verified, to the end.
func (d *device) verify(req api.VerifyVM) (*api.Verification, *api.Error) {
	d.t.Helper()
	job, err := d.engine.VerifyVM(d.t.Context(), req)
	if err != nil {
		d.t.Fatal(err)
	}
	done := d.finished(job.ID)
	if done.Verification == nil && done.Error == nil {
		d.t.Fatalf("%+v", done)
	}
	return done.Verification, done.Error
}

// busily has the guest write the first region of the disk until stop is called.
func (d *device) busily(id string) (stop func()) {
	ctx, cancel := context.WithCancel(d.t.Context())
	disk := d.engine.vm(id).currentDisk()
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := byte(0); ctx.Err() == nil; n++ {
			if err := disk.WriteAt(bytes.Repeat([]byte{n}, 2*blockSize), int64(n)*3*blockSize, n%16 == 0); err != nil {
				d.t.Error(err)
				return
			}
			time.Sleep(time.Millisecond) // a guest, and not a benchmark
		}
	})
	return func() { cancel(); wg.Wait() }
}

const far = 20<<20 + 12345 // a byte far from what busily writes

// What is damaged on either side, and known to be by the owner's records, is repaired while the guest goes on.
func TestVerifyRepairsByTheOwnersRecords(t *testing.T) {
	owner, other, id := filled(t)
	owner.record(id)
	right := make([]byte, comparedDisk)
	if err := owner.engine.vm(id).currentDisk().ReadAt(right, 0); err != nil {
		t.Fatal(err)
	}
	other.rot(id, far)
	owner.rot(id, far+4<<20)
	stop := owner.busily(id)
	v, err := owner.verify(api.VerifyVM{VM: "Work"})
	stop()
	if err != nil || !v.Clean || !v.Complete || len(v.Findings) != 2 || v.Findings[0].Copies[other.engine.host.ID()] != string(verify.Repaired) || v.Findings[1].Here != string(verify.Repaired) {
		t.Fatalf("%+v, %v", v, err)
	}
	if !strings.Contains(v.Findings[0].Sentence, "laptop") || !strings.Contains(v.Sentence, "repaired") || v.AsRecorded == 0 {
		t.Errorf("%+v", v)
	}
	owner.live("Work")
	same(t, owner, other, id)
	got := make([]byte, comparedDisk)
	if err := owner.engine.vm(id).currentDisk().ReadAt(got, 0); err != nil || !bytes.Equal(got[4<<20:], right[4<<20:]) {
		t.Errorf("the disk isn't what it was: %v", err)
	}
	if v, _ := owner.vm("Work"); v.Replicas[0].Verified.IsZero() {
		t.Error("the copy doesn't count as verified")
	}
	if v, err := owner.verify(api.VerifyVM{VM: id}); err != nil || len(v.Findings) != 0 || v.Sentence != "Work and its copy are equal." {
		t.Errorf("%+v, %v", v, err)
	}
}

// Without any record nobody knows who is right, if there are two: it is told, nothing changes, and the person may decide.
func TestVerifyChangesNothingThatIsUndecided(t *testing.T) {
	owner, other, v := twoDevices(t)
	owner.write(v.ID, 100, 'x')
	owner.live("Work")
	other.rot(v.ID, 100*blockSize)
	before := [2]byte{owner.firstByte(v.ID, 100), other.firstByte(v.ID, 100)}
	r, err := owner.verify(api.VerifyVM{VM: "Work"})
	if err != nil || r.Clean || !r.Complete || len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Next, "--overwrite") {
		t.Fatalf("%+v, %v", r, err)
	}
	if after := [2]byte{owner.firstByte(v.ID, 100), other.firstByte(v.ID, 100)}; before != after || after[0] == after[1] {
		t.Errorf("%v, then %v", before, after)
	}
	if s, _ := owner.vm("Work"); !s.Replicas[0].Verified.IsZero() {
		t.Error("a copy that differs counts as verified")
	}
	if r, err := owner.verify(api.VerifyVM{VM: "Work", Overwrite: true}); err != nil || !r.Clean || len(r.Findings) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := other.read(v.ID, 100); got != 'x' {
		t.Errorf("the copy reads %q", got)
	}
	// Only where the VM is.
	_, failed := other.engine.VerifyVM(t.Context(), api.VerifyVM{VM: "Work"})
	if failed == nil {
		t.Error("verified by who doesn't own it")
	}
}

func (d *device) firstByte(id string, block int64) byte {
	d.t.Helper()
	b := make([]byte, blockSize)
	if err := d.engine.vm(id).currentDisk().ReadAt(b, block*blockSize); err != nil {
		d.t.Fatal(err)
	}
	return b[0]
}

// A third copy decides, if it is for what the guest sees; against that nothing is changed.
func TestAThirdCopyDecides(t *testing.T) {
	desk, laptop, nas, v := threeDevices(t)
	for block := int64(100); block < 140; block++ {
		desk.write(v.ID, block, 'x')
	}
	desk.allLive("Work", 2)
	laptop.rot(v.ID, 100*blockSize)
	r, err := desk.verify(api.VerifyVM{VM: "Work"})
	if err != nil || !r.Clean || len(r.Findings) != 1 || len(r.Copies) != 2 || r.Findings[0].Copies[laptop.engine.host.ID()] != string(verify.Repaired) {
		t.Fatalf("%+v, %v", r, err)
	}
	if laptop.read(v.ID, 100) != 'x' {
		t.Error("the laptop's copy is damaged still")
	}
	desk.rot(v.ID, 130*blockSize)
	r, err = desk.verify(api.VerifyVM{VM: "Work"})
	if err != nil || r.Clean || len(r.Findings) != 1 || len(r.Findings[0].Copies) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if desk.firstByte(v.ID, 130) == 'x' || laptop.read(v.ID, 130) != 'x' || nas.read(v.ID, 130) != 'x' {
		t.Error("something was changed")
	}
}

// A device with an older program, or one that talks nonsense, is left out, and that is said.
func TestVerifySaysWhoWasLeftOut(t *testing.T) {
	owner, other, _ := twoDevices(t)
	other.engine.host.Handle(verify.Protocol, func(_ context.Context, s p2p.Stream) { _, _ = s.Write([]byte("no")); _ = s.Reset() })
	r, err := owner.verify(api.VerifyVM{VM: "Work"})
	if err != nil || r.Complete || !r.Clean || len(r.Copies) != 1 || r.Copies[0].Missing == "" || !strings.Contains(r.Sentence, "no copy could be compared") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAVerificationIsCancelled(t *testing.T) {
	owner, _, _ := filled(t)
	job, err := owner.engine.VerifyVM(t.Context(), api.VerifyVM{VM: "Work", Rate: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.engine.VerifyVM(t.Context(), api.VerifyVM{VM: "Work"}); err == nil {
		t.Error("two at once")
	} else {
		wantCode(t, "a second verification", err, api.CodeBusy)
	}
	if err := owner.engine.CancelJob(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	if done := owner.finished(job.ID); done.Error == nil || done.Error.Code != api.CodeCancelled {
		t.Errorf("%+v", done)
	}
}

// The background verification goes on where it was after a restart, finds damage, tells of it, and rests then.
func TestTheBackgroundVerificationGoesOn(t *testing.T) {
	owner, other := newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, owner, other)
	const size = 2*verify.SpanSize + 1<<20
	if _, err := owner.engine.CreateVM(t.Context(), api.CreateVM{Name: "Work", CPUs: 1, MemoryMiB: 64, DiskBytes: size}); err != nil {
		t.Fatal(err)
	}
	var id string
	until(t, "the VM", func() bool { v, ok := owner.vm("Work"); id = v.ID; return ok })
	if err := owner.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1<<20)
	_, _ = rand.Read(p)
	if err := owner.engine.vm(id).currentDisk().WriteAt(p, verify.SpanSize+5<<20, true); err != nil {
		t.Fatal(err)
	}
	owner.live("Work")
	at := time.Now()
	step := func() {
		t.Helper()
		at = at.Add(scrub.Tick)
		if err := owner.engine.vm(id).scrubSpan(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	from := func() int64 { return owner.engine.vm(id).scrubbed().From }
	step()
	if got := from(); got != verify.SpanSize {
		t.Fatalf("after a step it is at %d", got)
	}
	other.rot(id, verify.SpanSize+5<<20+100)
	owner.stop()
	owner.start()
	owner.live("Work")
	if got := from(); got != verify.SpanSize {
		t.Fatalf("after a restart it is at %d", got)
	}
	if v, _ := owner.vm("Work"); v.Damage != nil || v.Verifying == nil || v.Verifying.Done != verify.SpanSize || v.Verifying.Total != size || v.Verifying.Began.IsZero() || !v.Verifying.Ended.IsZero() {
		t.Errorf("%+v, %+v", v.Verifying, v.Damage)
	}
	step()
	if v, _ := owner.vm("Work"); v.Damage == nil || !v.Damage.Open || len(v.Damage.Found) != 1 || v.Verifying.Rate == 0 && v.Verifying.ETA != 0 {
		t.Errorf("%+v, %+v", v.Verifying, v.Damage)
	}
	if ev := owner.event("vm.damage"); ev.VM != id || !strings.Contains(ev.Text, "laptop") {
		t.Errorf("the person is told %+v", ev)
	}
	step()
	s := owner.engine.vm(id).scrubbed()
	if s.From != 0 || !s.Ended.Equal(at) || len(s.Verified) != 0 {
		t.Errorf("after the round: %+v", s)
	}
	step()
	if from() != 0 {
		t.Error("the next round began at once")
	}
	if v, _ := owner.vm("Work"); v.Verifying.Done != 0 || !v.Verifying.Began.IsZero() || !v.Verifying.Ended.Equal(at.Add(-scrub.Tick)) || !v.Verifying.Next.Equal(v.Verifying.Ended.Add(scrub.Every)) {
		t.Errorf("%+v", v.Verifying)
	}
	if r, err := owner.verify(api.VerifyVM{VM: "Work", Overwrite: true}); err != nil || !r.Clean || len(r.Findings) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if v, _ := owner.vm("Work"); v.Damage == nil || v.Damage.Open || len(v.Damage.Found) != 1 {
		t.Errorf("%+v", v.Damage) // it was repaired just now
	}
	at = at.Add(scrub.Every)
	began := at.Add(scrub.Tick)
	for range 3 {
		step()
	}
	if s := owner.engine.vm(id).scrubbed(); len(s.Verified) != 1 || !s.Verified[other.engine.host.ID()].Equal(began) {
		t.Errorf("%+v, began %v", s, began)
	}
}
