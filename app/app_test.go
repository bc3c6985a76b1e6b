package app

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/vmdisk"
)

func wantCode(t *testing.T, what string, err error, code api.Code) {
	t.Helper()
	if !errors.Is(err, &api.Error{Code: code}) {
		t.Errorf("%s: %v, want %s", what, err, code)
		return
	}
	if e := api.AsError(err); e.Sentence == "" {
		t.Errorf("%s: no sentence for the person", what)
	}
}

func TestASecondEngineIsRefused(t *testing.T) {
	d := newDevice(t, "desk")
	_, err := open(d.options())
	wantCode(t, "a second engine", err, api.CodeEngineRunning)
}

func TestVerbsSayWhatIsWrong(t *testing.T) {
	d := newDevice(t, "desk")
	ctx := t.Context()
	d.create("Work")
	e := d.engine
	err := e.StartVM(ctx, "Wrok")
	wantCode(t, "a wrong name", err, api.CodeNotFound)
	if !strings.Contains(api.AsError(err).Next, `"Work"`) {
		t.Errorf("the near name isn't suggested: %v", err)
	}
	wantCode(t, "stopping a stopped VM", e.StopVM(ctx, "Work", false), api.CodeConflict)
	wantCode(t, "suspending a stopped VM", e.SuspendVM(ctx, "Work"), api.CodeConflict)
	wantCode(t, "resuming a VM that isn't suspended", e.ResumeVM(ctx, "Work"), api.CodeConflict)
	_, err = e.Switch(ctx, api.SwitchVM{})
	wantCode(t, "a switch to where it is", err, api.CodeConflict)
	_, err = e.Switch(ctx, api.SwitchVM{To: "laptop"})
	wantCode(t, "a switch to nobody", err, api.CodeNotFound)
	wantCode(t, "cancelling nothing", e.CancelSwitch(ctx, "x"), api.CodeNotFound)
	for what, req := range map[string]api.CreateVM{
		"no name":          {MemoryMiB: 64, DiskBytes: testDisk},
		"a name of spaces": {Name: "  ", MemoryMiB: 64, DiskBytes: testDisk},
		"a control letter": {Name: "a\nb", MemoryMiB: 64, DiskBytes: testDisk},
		"no memory":        {Name: "x", DiskBytes: testDisk},
		"no disk":          {Name: "x", MemoryMiB: 64},
		"a huge disk":      {Name: "x", MemoryMiB: 64, DiskBytes: 1 << 60},
		"too many CPUs":    {Name: "x", MemoryMiB: 64, DiskBytes: testDisk, CPUs: 1000},
		"a strange format": {Name: "x", MemoryMiB: 64, DiskBytes: testDisk, Format: "exe"},
	} {
		_, err := e.CreateVM(ctx, req)
		wantCode(t, what, err, api.CodeUsage)
	}
	_, err = e.CreateVM(ctx, api.CreateVM{Name: "Work", MemoryMiB: 64, DiskBytes: testDisk})
	wantCode(t, "a name that is taken", err, api.CodeConflict)
	_, err = e.CreateVM(ctx, api.CreateVM{Name: "x", MemoryMiB: 64, Image: "/nowhere.qcow2"})
	wantCode(t, "an image that isn't there", err, api.CodeNotFound)
	if err := e.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "removing a running VM", e.RemoveVM(ctx, "Work"), api.CodeConflict)
	if err := e.StopVM(ctx, "Work", true); err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	if _, there := d.vm("Work"); there {
		t.Error("a removed VM is still shown")
	}
	_, err = e.PairJoin(ctx, api.PairJoin{Code: "1234-5678", Addr: "nonsense"})
	wantCode(t, "a strange address", err, api.CodeUsage)
}

func TestAStoppedVMIsSwitchedByTheBatonAlone(t *testing.T) {
	a, b := newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, a, b)
	v := a.create("Work")
	a.live("Work")
	a.write(v.ID, 7, 'x')
	until(t, "the VM to be known", func() bool { _, ok := b.vm("Work"); return ok })
	wantCode(t, "starting a VM that is elsewhere", b.engine.StartVM(t.Context(), "Work"), api.CodeElsewhere)
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := b.ended("Work"); s.Phase != api.PhaseDone || s.Kind != "baton" {
		t.Fatalf("%+v", s)
	}
	if s := a.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	if got := b.read(v.ID, 7); got != 'x' {
		t.Errorf("the taker reads %q", got)
	}
	if err := a.engine.vm(v.ID).currentDisk().WriteAt(make([]byte, blockSize), 0, false); err == nil {
		t.Error("the giver still writes")
	}
	b.write(v.ID, 7, 'y')
	b.live("Work")
	// And back, sent this time by the one who has it.
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Work", To: "desk"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the VM to be back", func() bool { v, _ := a.vm("Work"); return v.Here && v.State == api.VMStopped })
	if got := a.read(v.ID, 7); got != 'y' {
		t.Errorf("back home it reads %q", got)
	}
	history, err := a.engine.History(t.Context(), "Work")
	if err != nil || len(history) != 3 || history[2].Owner != a.engine.host.ID() || history[2].Term != 3 {
		t.Errorf("%+v, %v", history, err)
	}
}

func TestARunningVMTakesItsMemoryAlong(t *testing.T) {
	a, b, v := twoDevices(t)
	a.write(v.ID, 1, 'm')
	given := a.hv.only()
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	s := b.ended("Work")
	if s.Phase != api.PhaseDone || s.Kind != "teleport" || s.Memory < int64(len(a.hv.memory)) || s.Pause == 0 {
		t.Fatalf("%+v", s)
	}
	taken := b.hv.only()
	if taken == nil || taken.get() != hypervisor.StateRunning || !bytes.Equal(taken.memory, a.hv.memory) {
		t.Fatal("the guest doesn't run there with its memory")
	}
	until(t, "the giver's hypervisor to end", given.gone)
	if given.runs != 0 {
		t.Error("the giver's guest was let go on")
	}
	if got := b.read(v.ID, 1); got != 'm' {
		t.Errorf("the taker reads %q", got)
	}
}

func TestAFailedLoadLeavesTheVMWhereItWas(t *testing.T) {
	a, b, v := twoDevices(t)
	b.hv.setBroken(true)
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*device{a, b} {
		if s := d.ended("Work"); s.Phase != api.PhaseFailed || s.Error == nil {
			t.Fatalf("%s: %+v", d.name, s)
		}
	}
	until(t, "the guest to go on", func() bool { return a.hv.only().get() == hypervisor.StateRunning })
	until(t, "the taker's hypervisor to end", func() bool { return b.hv.only() == nil })
	a.write(v.ID, 2, 'n')
	a.live("Work")
	b.hv.setBroken(false)
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := b.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("the next try: %+v", s)
	}
	if got := b.read(v.ID, 2); got != 'n' {
		t.Errorf("the taker reads %q", got)
	}
}

func TestAnEngineFindsItsRunningVMAgain(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	d.write(v.ID, 3, 'z')
	d.stop()
	if g := d.hv.only(); g == nil || g.get() != hypervisor.StateRunning {
		t.Fatal("the engine's end ended the guest")
	}
	d.start()
	until(t, "the VM to run", func() bool { v, ok := d.vm("Work"); return ok && v.Here && v.State == api.VMRunning })
	until(t, "the disk to be active", func() bool { return d.engine.vm(v.ID).currentDisk().Info().Active })
	d.write(v.ID, 4, 'z')
	if d.read(v.ID, 3) != 'z' || d.read(v.ID, 4) != 'z' {
		t.Error("writes were lost")
	}
}

func TestAGiverThatRestartsNeverRunsWhatItGave(t *testing.T) {
	a, b := newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, a, b)
	v := a.create("Work")
	a.live("Work")
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	b.ended("Work")
	a.stop()
	a.start()
	wantCode(t, "starting a VM that was given away", a.engine.StartVM(t.Context(), "Work"), api.CodeElsewhere)
	if err := a.engine.vm(v.ID).currentDisk().Activate(1); !errors.Is(err, vmdisk.ErrFenced) {
		t.Errorf("the disk's own fence: %v", err)
	}
}

func TestSuspendKeepsMemoryAndDiskTogether(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	ctx := t.Context()
	if err := d.engine.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	if err := d.engine.SuspendVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	if got, _ := d.vm("Work"); got.State != api.VMSuspended || d.hv.only() != nil {
		t.Fatalf("%+v", got)
	}
	d.stop()
	d.start()
	until(t, "the disk to be active", func() bool { return d.engine.vm(v.ID).currentDisk().Info().Active })
	if err := d.engine.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	if g := d.hv.only(); g == nil || !bytes.Equal(g.memory, d.hv.memory) || g.get() != hypervisor.StateRunning {
		t.Fatal("it didn't go on with its memory")
	}
	if err := d.engine.SuspendVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	if err := d.engine.StopVM(ctx, "Work", true); err != nil {
		t.Fatal(err)
	}
	if got, _ := d.vm("Work"); got.State != api.VMStopped {
		t.Errorf("after its memory was dropped it is %s", got.State)
	}
}

func TestRemovalReachesTheOthers(t *testing.T) {
	a, b := newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, a, b)
	v := a.create("Work")
	a.live("Work")
	wantCode(t, "removing a VM that is elsewhere", b.engine.RemoveVM(t.Context(), "Work"), api.CodeElsewhere)
	if err := a.engine.RemoveVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	until(t, "the copy to go", func() bool { return b.engine.vm(v.ID) == nil })
}

// A crash just before a new VM's last step finds the VM whole; one before its record leaves nothing.
func TestACrashWhileAVMIsMade(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	d.stop()
	half := filepath.Join(d.dir, "vms", strings.Repeat("ab", 16))
	for _, dir := range []string{half, filepath.Join(d.dir, "vms", v.ID)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(marker(dir), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	if got, ok := d.vm("Work"); !ok || got.ID != v.ID {
		t.Error("a VM that was as good as finished is gone")
	}
	until(t, "the disk to be active", func() bool { return d.engine.vm(v.ID).currentDisk().Info().Active })
	d.write(v.ID, 0, 'w')
	if _, err := os.Stat(half); err == nil {
		t.Error("half a VM was kept")
	}
}

// A directory that was lost is no reason to delete a disk: only the owner's signed word is.
func TestALostDirectoryDeletesNothing(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	d.write(v.ID, 5, 'k')
	d.stop()
	if err := os.RemoveAll(filepath.Join(d.dir, "directory")); err != nil {
		t.Fatal(err)
	}
	d.start()
	// The engine has gone through its records when it answers to a change of them.
	before := d.engine.hub.last()
	d.engine.announce()
	until(t, "the records to be gone through", func() bool { return d.engine.hub.last() > before })
	base, err := os.ReadFile(filepath.Join(d.dir, "vms", v.ID, "disk", "base.raw"))
	if err != nil {
		t.Fatal(err)
	}
	if base[5*blockSize] != 'k' {
		t.Error("the disk's content is gone")
	}
}

func TestNearest(t *testing.T) {
	for _, c := range [][2]string{{"wrok", "Work"}, {"Works", "Work"}, {"zzz", ""}, {"", ""}, {"home", "Home"}} {
		if got := nearest(c[0], []string{"Work", "Home"}); got != c[1] {
			t.Errorf("nearest to %q: %q, want %q", c[0], got, c[1])
		}
	}
}

func TestHubCutsOffTheSlow(t *testing.T) {
	var h hub
	slow := h.watch(t.Context(), 0)
	for range keptEvents + watcherBacklog + 1 {
		h.publish(api.Event{Kind: "x"})
	}
	n := uint64(0)
	for e := range slow {
		if e.Seq != n+1 {
			t.Fatalf("event %d after %d", e.Seq, n)
		}
		n = e.Seq
	}
	if late := <-h.watch(t.Context(), h.last()-1); late.Seq != h.last() {
		t.Errorf("a late watcher got %d, want %d", late.Seq, h.last())
	}
}

// TestAHastyTeleportIsTriedAgain: memory that is all sent before we have stopped the guest ends the attempt, not the switch.
func TestAHastyTeleportIsTriedAgain(t *testing.T) {
	a, b, _ := twoDevices(t)
	a.hv.mu.Lock()
	a.hv.hasty = 1
	a.hv.mu.Unlock()
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := b.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	a.hv.mu.Lock()
	defer a.hv.mu.Unlock()
	if a.hv.hasty != -1 {
		t.Errorf("one attempt more than the hasty one was expected, %d are left", a.hv.hasty)
	}
}

// TestTheLastWriteIsThere switches in the middle of a burst of writes that the network hasn't taken yet.
func TestTheLastWriteIsThere(t *testing.T) {
	a, b, v := twoDevices(t)
	disk := a.engine.vm(v.ID).currentDisk()
	// The guest writes until it is stopped: what its disk took before is what must be there.
	guest, stop := a.hv.only(), make(chan int64)
	var written atomic.Int64
	go func() {
		for {
			n := written.Load()
			ran, err := guest.whileItRuns(func() error {
				return disk.WriteAt(bytes.Repeat([]byte{byte(n / 251), byte(n)}, blockSize/2), n%(testDisk/blockSize)*blockSize, false)
			})
			if !ran || err != nil {
				break
			}
			written.Add(1)
		}
		stop <- written.Load()
	}()
	until(t, "the guest to write", func() bool { return written.Load() > 100 })
	if _, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	s := b.ended("Work")
	n := <-stop
	if s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	if n < 100 {
		t.Fatalf("only %d writes: nothing was tested", n)
	}
	got, want := make([]byte, testDisk), make([]byte, testDisk)
	if err := b.engine.vm(v.ID).currentDisk().ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if err := disk.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the new owner's disk isn't what the old one's was")
	}
	last := n - 1
	block := last % (testDisk / blockSize) * blockSize
	if got[block] != byte(last/251) || got[block+1] != byte(last) {
		t.Error("the very last write is missing")
	}
}
