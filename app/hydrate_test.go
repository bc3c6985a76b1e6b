package app

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/vmdisk"
)

// valve holds back what a device gives of its copy, until it is opened.
type valve struct {
	mu   sync.Mutex
	open chan struct{}
}

// valveOn puts a closed valve on all that the device lends. Its engine must run.
func valveOn(d *device) *valve {
	v := &valve{open: make(chan struct{})}
	e := d.engine
	e.host.Handle(fetch.Protocol, func(ctx context.Context, s p2p.Stream) {
		e.handleFetch(ctx, held2{s, ctx, v})
	})
	d.t.Cleanup(v.release)
	return v
}

func (v *valve) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.open:
	default:
		close(v.open)
	}
}

// held2 is a stream whose content waits for the valve.
type held2 struct {
	p2p.Stream
	ctx context.Context
	v   *valve
}

func (s held2) Write(p []byte) (int, error) {
	if len(p) > 0 && (p[0] == 0x81 || p[0] == 0x82) { // content or zeros
		select {
		case <-s.v.open:
		case <-s.ctx.Done():
			return 0, s.ctx.Err()
		}
	}
	return s.Stream.Write(p)
}

// halfSynced makes the other's copy of the owner's VM lack the first n blocks, which hold 2 instead of 1 by now; block n holds 1 on both.
func halfSynced(t *testing.T, owner, other *device, id string, n int64) {
	t.Helper()
	for b := range n + 1 {
		owner.write(id, b, 1)
	}
	owner.live("Work")
	owner.engine.vm(id).holdBack(other.engine.host.ID())
	for b := range n {
		owner.write(id, b, 2)
	}
	owner.engine.handover = handover.Rule{} // nothing is waited for
}

func take(t *testing.T, d *device) {
	t.Helper()
	if _, err := d.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := d.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("the switch: %s %v", s.Phase, s.Error)
	}
}

func (d *device) hydration() *api.Hydration {
	d.t.Helper()
	v, _ := d.vm("Work")
	return v.Hydration
}

func (d *device) untilWhole() {
	d.t.Helper()
	until(d.t, d.name+"'s disk to be whole", func() bool { return d.hydration() == nil })
}

func TestSwitchOntoACopyThatIsntWhole(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 100)
	gate := valveOn(desk)
	take(t, laptop)
	until(t, "the guest to run here", func() bool { w, _ := laptop.vm("Work"); return w.State == api.VMRunning && w.Here })
	h := laptop.hydration()
	if h == nil || h.Remaining != 100*blockSize {
		t.Fatalf("%+v is lacking", h)
	}
	until(t, "the desk to answer", func() bool {
		h := laptop.hydration()
		return len(h.From) == 1 && h.From[0].DeviceName == "desk" && h.From[0].Connected && h.From[0].Needed && !h.Waiting
	})
	until(t, "the desk to say so", func() bool {
		w, _ := desk.vm("Work")
		return w.Lending != nil && w.Lending.ToName == "laptop"
	})
	if laptop.read(v.ID, 100) != 1 {
		t.Error("a block that is here isn't what it was")
	}
	read := make(chan byte)
	go func() { read <- laptop.read(v.ID, 50) }()
	until(t, "a read that waits", func() bool { return laptop.hydration().Reads == 1 })

	// What it can't do meanwhile. The giver's side of the switch may end a little later.
	if s := desk.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("the giver's switch: %s %v", s.Phase, s.Error)
	}
	var refused *api.Error
	if _, err := desk.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := desk.ended("Work"); s.Error == nil || s.Error.Code != api.CodeBusy || !strings.Contains(s.Error.Sentence, "Not all of Work") {
		t.Errorf("switched back: %+v", s.Error)
	}
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work", To: "desk"}); !errors.As(err, &refused) || refused.Code != api.CodeBusy {
		t.Errorf("sent back: %v", err)
	}

	gate.release()
	if b := <-read; b != 2 {
		t.Errorf("it read %d", b)
	}
	laptop.untilWhole()
	for b := range int64(100) {
		if got := laptop.read(v.ID, b); got != 2 {
			t.Fatalf("block %d is %d", b, got)
		}
	}
	// From here on all is as after any switch: the giver follows, and the VM may go back.
	laptop.write(v.ID, 3, 9)
	laptop.live("Work")
	take(t, desk)
	if desk.read(v.ID, 3) != 9 || desk.read(v.ID, 4) != 2 {
		t.Error("the desk doesn't have what was written")
	}
}

// The thesis's race (§4.3.2): a block that is on its way arrives after the guest has written it. The guest's write counts.
func TestAFetchedBlockArrivesAfterTheGuestsWrite(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 64)
	gate := valveOn(desk)
	take(t, laptop)
	read := make(chan byte)
	go func() { read <- laptop.read(v.ID, 10) }() // it is asked for, with what follows
	until(t, "the question", func() bool { return laptop.hydration().Reads == 1 })
	until(t, "a holder", func() bool { h := laptop.hydration(); return len(h.From) == 1 && h.From[0].Connected })
	for _, b := range []int64{10, 11, 40} {
		laptop.write(v.ID, b, 7)
	}
	if b := <-read; b != 7 {
		t.Errorf("the read that waited got %d", b)
	}
	gate.release()
	laptop.untilWhole()
	for b := range int64(64) {
		want := byte(2)
		if slices.Contains([]int64{10, 11, 40}, b) {
			want = 7
		}
		if got := laptop.read(v.ID, b); got != want {
			t.Errorf("block %d is %d, not %d", b, got, want)
		}
	}
}

// The giver's engine ends right after it has given, and nobody else has the rest: reads wait, the person is told once, and when it comes
// back all goes on.
func TestTheGiverLeavesAndReturns(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 64)
	valveOn(desk)
	events := laptop.engine.hub.watch(t.Context(), laptop.engine.hub.last())
	take(t, laptop)
	desk.stop()
	read := make(chan byte)
	go func() { read <- laptop.read(v.ID, 5) }()
	until(t, "that it waits", func() bool { h := laptop.hydration(); return h.Waiting && h.Reads == 1 })
	if h := laptop.hydration(); len(h.From) != 1 || h.From[0].DeviceName != "desk" || !h.From[0].Needed || h.From[0].Connected {
		t.Errorf("%+v could help", h.From)
	}
	select {
	case b := <-read:
		t.Fatalf("it read %d from nowhere", b)
	default:
	}
	laptop.write(v.ID, 6, 8) // what it writes it needn't have
	desk.start()
	if b := <-read; b != 2 {
		t.Errorf("it read %d", b)
	}
	laptop.untilWhole()
	if laptop.read(v.ID, 6) != 8 {
		t.Error("the guest's write is lost")
	}
	told := 0
	for done := false; !done; {
		select {
		case ev := <-events:
			if ev.Kind == "vm.waits" {
				told++
				if !strings.Contains(ev.Text, "desk") || !strings.Contains(ev.Text, "roll back") {
					t.Errorf("told: %s", ev.Text)
				}
			}
			done = ev.Kind == "vm.whole"
		case <-time.After(patience):
			t.Fatal("the end isn't told")
		}
	}
	if told != 1 {
		t.Errorf("the person was told %d times", told)
	}
}

// The new owner's engine ends while it fetches: the next one goes on, with what the guest wrote, and its guest ran on.
func TestTheNewOwnerRestartsWhileItFetches(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 64)
	gate := valveOn(desk)
	take(t, laptop)
	laptop.write(v.ID, 6, 8)
	began := time.Now()
	go func() {
		b := make([]byte, blockSize)
		_ = laptop.engine.vm(v.ID).currentDisk().ReadAt(b, 5*blockSize) // ends with the engine
	}()
	until(t, "a read that waits", func() bool { return laptop.hydration().Reads == 1 })
	laptop.stop()
	t.Logf("the engine ended after %v", time.Since(began))
	laptop.start()
	until(t, "its guest to be found", func() bool { w, _ := laptop.vm("Work"); return w.Here && w.State == api.VMRunning })
	if h := laptop.hydration(); h == nil || h.Remaining != 63*blockSize {
		t.Fatalf("after the restart: %+v", h)
	}
	gate.release()
	laptop.untilWhole()
	if laptop.read(v.ID, 6) != 8 || laptop.read(v.ID, 5) != 2 {
		t.Error("the disk isn't what it must be")
	}
	laptop.live("Work")
}

// Of two that have it, the one that doesn't answer is followed by the other.
func TestAnotherHolderAnswers(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	tower := newDevice(t, "tower")
	pair(t, desk, tower)
	linked(t, desk, laptop, tower)
	id := tower.engine.host.ID()
	until(t, "the tower's copy", func() bool {
		w, _ := desk.vm("Work")
		return slices.ContainsFunc(w.Replicas, func(r api.Replica) bool { return r.Device == id && r.State == api.ReplicaLive })
	})
	halfSynced(t, desk, laptop, v.ID, 64)
	until(t, "the tower's copy to have it", func() bool {
		w, _ := desk.vm("Work")
		return slices.ContainsFunc(w.Replicas, func(r api.Replica) bool { return r.Device == id && r.Remaining == 0 })
	})
	valveOn(desk) // it is asked, and never answers
	take(t, laptop)
	if b := laptop.read(v.ID, 33); b != 2 {
		t.Errorf("it read %d", b)
	}
	laptop.untilWhole()
	if h := laptop.hydration(); h != nil {
		t.Errorf("%+v", h)
	}
}

// The person goes back to what the laptop had: what was written since is gone, and said before; the giver's newer version is a conflict when it
// returns, and can still be chosen.
func TestRollBack(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 64)
	valveOn(desk)
	take(t, laptop)
	laptop.write(v.ID, 6, 8)
	desk.stop()
	until(t, "that it waits", func() bool { return laptop.hydration().Waiting })
	go func() {
		b := make([]byte, blockSize)
		_ = laptop.engine.vm(v.ID).currentDisk().ReadAt(b, 5*blockSize) // ends by the rollback
	}()
	until(t, "a read that waits", func() bool { return laptop.hydration().Reads == 1 })
	told, err := laptop.engine.Rollback(t.Context(), "Work")
	if err != nil {
		t.Fatal(err)
	}
	if !told.Running || told.Written != blockSize || told.Remaining != 63*blockSize || len(told.Holders) != 1 || told.Holders[0].DeviceName != "desk" {
		t.Errorf("told: %+v", told)
	}
	if err := laptop.engine.RollBack(t.Context(), api.RollBackVM{VM: v.ID, Token: "old"}); err == nil {
		t.Error("it was rolled back without having been read")
	}
	guest := laptop.hv.only()
	if err := laptop.engine.RollBack(t.Context(), api.RollBackVM{VM: v.ID, Token: told.Token}); err != nil {
		t.Fatal(err)
	}
	if w, _ := laptop.vm("Work"); !w.Here || w.State != api.VMStopped || w.Hydration != nil || w.Term <= 2 || !guest.gone() {
		t.Errorf("afterwards: here %v, %s, term %d, %+v", w.Here, w.State, w.Term, w.Hydration)
	}
	for _, b := range []int64{0, 5, 6, 63, 64} {
		if got := laptop.read(v.ID, b); got != 1 {
			t.Errorf("block %d is %d", b, got)
		}
	}
	if err := laptop.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	laptop.write(v.ID, 20, 5)

	// All of that survives a restart.
	laptop.stop()
	laptop.start()
	if laptop.read(v.ID, 20) != 5 || laptop.read(v.ID, 6) != 1 {
		t.Error("a restart changes what it went back to")
	}
	desk.start()
	until(t, "the conflict", func() bool { w, _ := laptop.vm("Work"); return w.Conflict != nil && len(w.Conflict.Sides) == 2 })
	if desk.read(v.ID, 5) != 2 {
		t.Error("the desk's version was overwritten before anybody chose")
	}
}

// Memory that is saved while the disk isn't whole belongs to the disk all the same.
func TestSuspendWhileTheRestComes(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 64)
	gate := valveOn(desk)
	take(t, laptop)
	laptop.write(v.ID, 6, 8)
	if err := laptop.engine.SuspendVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	laptop.stop()
	laptop.start()
	until(t, "the suspended VM", func() bool { w, _ := laptop.vm("Work"); return w.State == api.VMSuspended && w.Hydration != nil })
	if err := laptop.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	gate.release()
	laptop.untilWhole()
	if laptop.read(v.ID, 6) != 8 || laptop.read(v.ID, 5) != 2 {
		t.Error("the disk isn't what it must be")
	}
}

// Working offline waits for the rest, and says how much that is.
func TestOfflineWaitsForTheRest(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 64)
	gate := valveOn(desk)
	take(t, laptop)
	job, err := laptop.engine.GoOffline(t.Context(), api.GoOffline{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "how much is missing", func() bool {
		s, _ := laptop.engine.Status(t.Context())
		return !s.Offline.On && len(s.Offline.VMs) == 1 && s.Offline.VMs[0].Missing != nil && *s.Offline.VMs[0].Missing == 64*blockSize
	})
	gate.release()
	until(t, "the end of the preparation", func() bool { return laptop.engine.job(job.ID).snapshot().Done })
	if s, _ := laptop.engine.Status(t.Context()); !s.Offline.On || laptop.hydration() != nil {
		t.Errorf("it left with %+v missing", laptop.hydration())
	}
}

// Somebody else takes the VM over from an owner whose disk isn't whole, and who wrote nothing: when it hears of that it follows again.
func TestTakenOverWhileTheRestComes(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 64)
	valveOn(desk)
	take(t, laptop)
	if s := desk.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	laptop.stop()
	until(t, "that the laptop is gone", func() bool { return !desk.engine.linked(laptop.engine.host.ID()) })
	told, err := desk.engine.Takeover(t.Context(), "Work")
	if err != nil {
		t.Fatal(err)
	}
	if err := desk.engine.TakeOver(t.Context(), api.TakeOverVM{VM: v.ID, Token: told.Token}); err != nil {
		t.Fatal(err)
	}
	desk.write(v.ID, 7, 4)
	laptop.hv.only().Kill(t.Context()) // else its memory is something that nobody else has
	laptop.start()
	until(t, "the laptop to follow", func() bool {
		w, _ := laptop.vm("Work")
		return !w.Here && w.Hydration == nil && !laptop.engine.vm(v.ID).currentDisk().Info().Hydrating
	})
	desk.live("Work")
	until(t, "what was written", func() bool { return laptop.read(v.ID, 7) == 4 })
	if laptop.read(v.ID, 8) != 2 {
		t.Error("the laptop follows another disk")
	}
}

// A side whose disk isn't whole can't become a VM of its own: it is kept as a restore point, as it is, and the person is told; nothing hangs, also not
// after a restart.
func TestKeepBothOfWhichOneIsntWhole(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 64)
	valveOn(desk)
	take(t, laptop)
	if s := desk.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	laptop.write(v.ID, 6, 8)
	laptop.stop()
	until(t, "that the laptop is gone", func() bool { return !desk.engine.linked(laptop.engine.host.ID()) })
	desk.takeOver("Work")
	desk.write(v.ID, 7, 4)
	laptop.start()
	until(t, "both versions", func() bool {
		s, _ := laptop.vm("Work")
		return s.Conflict != nil && len(s.Conflict.Sides) == 2
	})
	laptop.choose(api.ResolveBoth, desk)
	one(t, desk, laptop, v.ID)
	points, err := laptop.engine.vm(v.ID).shelf().List()
	if err != nil || len(points) != 1 || !strings.Contains(points[0].Why, "can't run by itself") {
		t.Fatalf("%+v, %v", points, err)
	}
	if s, _ := laptop.engine.Status(t.Context()); len(s.VMs) != 1 {
		t.Errorf("%d VMs", len(s.VMs))
	}
	// All that it had is in the restore point still, and can be read.
	disk, err := vmdisk.Open(laptop.engine.vm(v.ID).shelf().Disk(points[0].ID), laptop.engine.diskOptions(v.ID))
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, blockSize)
	if err := disk.ReadAt(b, 6*blockSize); err != nil || b[0] != 8 || !disk.Stale(5*blockSize, blockSize) {
		t.Errorf("it has %d, %v", b[0], err)
	}
	disk.EndWaiting()
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
}

// The giver's person reads that the device must be left on as long as the new owner hasn't said that it is whole, also when that can't be heard and after the
// giver's engine was restarted, and then that it may be switched off.
func TestTheOldPlaceMayLeave(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 100)
	valveOn(desk)
	take(t, laptop)
	needed := func(silent bool) func() bool {
		return func() bool {
			w, _ := desk.vm("Work")
			l := w.Lending
			return l != nil && l.To == laptop.engine.host.ID() && l.ToName == "laptop" && l.Needed && l.Remaining == 100*blockSize && l.Silent == silent
		}
	}
	until(t, "the desk to be needed", needed(false))
	until(t, "the person to be told", func() bool { return desk.firstText("sync.stay") != "" })
	if said := desk.firstText("sync.stay"); !strings.Contains(said, "laptop still needs") || !strings.Contains(said, "leave it on") {
		t.Errorf("told: %s", said)
	}
	laptop.stop()
	until(t, "that it can't be heard", needed(true))
	desk.stop()
	desk.start()
	gate := valveOn(desk)
	until(t, "that it is known after a restart", needed(true))
	laptop.start()
	until(t, "that it is heard again", needed(false))
	if said := desk.firstText("sync.leave"); said != "" {
		t.Errorf("told too early: %s", said)
	}
	gate.release()
	until(t, "the person to be told that it may leave", func() bool { return desk.firstText("sync.leave") != "" })
	if said := desk.firstText("sync.leave"); !strings.Contains(said, "laptop has all of Work") || !strings.Contains(said, "may be switched off") {
		t.Errorf("told: %s", said)
	}
	if laptop.hydration() != nil {
		t.Error("told before it was true")
	}
	if w, _ := desk.vm("Work"); w.Lending != nil {
		t.Errorf("it still lends: %+v", w.Lending)
	}
}

// firstText is the text of the first event of that kind since the engine began; "" if there was none.
func (d *device) firstText(kind string) string {
	d.engine.hub.mu.Lock()
	defer d.engine.hub.mu.Unlock()
	for _, ev := range d.engine.hub.kept {
		if ev.Kind == kind {
			return ev.Text
		}
	}
	return ""
}
