package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/farewell"
)

// threeDevices is a fleet of three, of which the third was only ever paired with the second. The VM is on the first, and the
// others' copies are live.
func threeDevices(t *testing.T) (desk, laptop, nas *device, v api.VM) {
	t.Helper()
	desk, laptop, nas = newDevice(t, "desk"), newDevice(t, "laptop"), newDevice(t, "nas")
	pair(t, desk, laptop)
	pair(t, laptop, nas)
	linked(t, desk, laptop, nas)
	v = desk.create("Work")
	desk.allLive("Work", 2)
	for _, d := range []*device{laptop, nas} {
		until(t, "the VM to be known", func() bool { _, ok := d.vm("Work"); return ok })
	}
	return desk, laptop, nas, v
}

// allLive waits until so many other devices' copies are.
func (d *device) allLive(name string, n int) {
	d.t.Helper()
	until(d.t, "live copies", func() bool {
		v, _ := d.vm(name)
		live := 0
		for _, r := range v.Replicas {
			if r.State == api.ReplicaLive && r.Remaining == 0 {
				live++
			}
		}
		return live == n
	})
}

// sees finds a device by its name.
func (d *device) sees(name string) (api.Device, bool) {
	d.t.Helper()
	for _, x := range d.status().Devices {
		if x.Name == name {
			return x, true
		}
	}
	return api.Device{}, false
}

// told says whether there was an event of a kind.
func (d *device) told(kind string) bool {
	d.engine.hub.mu.Lock()
	defer d.engine.hub.mu.Unlock()
	return slices.ContainsFunc(d.engine.hub.kept, func(e api.Event) bool { return e.Kind == kind })
}

// alone waits until the device is a fleet of one.
func (d *device) alone() {
	d.t.Helper()
	until(d.t, d.name+" to be alone", func() bool { return len(d.engine.dir.Members()) == 0 && len(d.status().Devices) == 0 })
}

func (d *device) hasFiles(id string) bool {
	_, err := os.Stat(filepath.Join(d.dir, "vms", id, "disk"))
	return err == nil
}

func TestPairingWithOneJoinsTheFleet(t *testing.T) {
	a, b, c, d := newDevice(t, "a"), newDevice(t, "b"), newDevice(t, "c"), newDevice(t, "d")
	pair(t, a, b)
	pair(t, c, d)
	a.create("Work")
	// Two fleets of two become one of four.
	pair(t, b, c)
	linked(t, a, b, c, d)
	a.allLive("Work", 3)
	for _, x := range []*device{b, c, d} {
		if len(x.status().Devices) != 3 {
			t.Errorf("%s sees %+v", x.name, x.status().Devices)
		}
	}
	// Who comes back with another port is found, by those too that it was never paired with.
	d.stop()
	d.listen = "/ip4/127.0.0.1/tcp/0"
	d.start()
	linked(t, a, d)
}

func TestARemovedDeviceIsWipedByWhomeverItMeets(t *testing.T) {
	desk, laptop, nas, v := threeDevices(t)
	other := laptop.create("Own")
	if err := laptop.engine.StartVM(t.Context(), "Own"); err != nil {
		t.Fatal(err)
	}
	guest := laptop.hv.only()
	until(t, "the VM to be known", func() bool { _, ok := desk.vm("Own"); return ok })
	laptop.stop()
	until(t, "the links to be gone", func() bool {
		return !desk.engine.linked(laptop.engine.host.ID()) && !nas.engine.linked(laptop.engine.host.ID())
	})
	err := desk.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop", Wipe: true})
	wantCode(t, "removing an owner", err, api.CodeConflict)
	wantText(t, "the refusal", api.AsError(err).Error(), "Own is on laptop", "--anyway")
	if err := desk.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop", Wipe: true, Anyway: true}); err != nil {
		t.Fatal(err)
	}
	if x, ok := desk.sees("laptop"); !ok || !x.Removed || !x.Wipe || x.Connected {
		t.Errorf("%+v", x)
	}
	until(t, "the other to hear", func() bool { x, ok := nas.sees("laptop"); return ok && x.Removed })
	if !desk.engine.dir.Orphan(other.ID) || !nas.engine.dir.Orphan(other.ID) {
		t.Error("what it owned isn't called an orphan")
	}
	// The one that removed it is away: another tells.
	desk.stop()
	laptop.start()
	laptop.alone()
	until(t, "the wipe", func() bool { return !laptop.hasFiles(v.ID) && !laptop.hasFiles(other.ID) })
	until(t, "its guest to end", guest.gone)
	until(t, "its VMs to be forgotten", func() bool { return len(laptop.status().VMs) == 0 })
	until(t, "the one that told to know", func() bool { _, shown := nas.sees("laptop"); return !shown })
	until(t, "the word of it", func() bool { return nas.told("device.wiped") })
	wantText(t, "the word of it", nas.event("device.wiped").Text, "laptop has deleted everything")
	wantText(t, "the word on the device", laptop.event("fleet.left").Text, "removed from the fleet by desk", "were deleted")
	if laptop.engine.host.Connected(nas.engine.host.ID()) && nas.engine.linked(laptop.engine.host.ID()) {
		t.Error("it still has a link")
	}
	// The one that removed it hears from the other that it is done.
	desk.start()
	until(t, "the remover to know", func() bool { _, shown := desk.sees("laptop"); return !shown && desk.told("device.wiped") })
	if v, ok := desk.vm("Work"); !ok || !v.Here {
		t.Error("the fleet's own VM is gone")
	}
	// A wiped device is as good as new.
	laptop.stop()
	laptop.start()
	laptop.alone()
	pair(t, desk, laptop)
	linked(t, desk, nas, laptop)
	until(t, "a copy again", func() bool { return laptop.hasFiles(v.ID) })
}

func TestARemovedDeviceKeepsItsCopiesUnlessWiped(t *testing.T) {
	desk, laptop, nas, v := threeDevices(t)
	if err := desk.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop"}); err != nil {
		t.Fatal(err)
	}
	laptop.alone()
	for _, d := range []*device{desk, nas} {
		until(t, d.name+" to know that it knows", func() bool { _, shown := d.sees("laptop"); return !shown })
		until(t, "no link", func() bool { return !d.engine.linked(laptop.engine.host.ID()) })
	}
	if !laptop.hasFiles(v.ID) {
		t.Error("its copy is gone")
	}
	got, ok := laptop.vm("Work")
	if !ok || got.OwnerName != "desk" || got.State != api.VMUnknown {
		t.Errorf("%+v", got)
	}
	wantCode(t, "starting what another owns", laptop.engine.StartVM(t.Context(), "Work"), api.CodeElsewhere)
	wantCode(t, "removing one that is gone", desk.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop"}), api.CodeNotFound)
	// What the owner writes from now on reaches the other only.
	desk.write(v.ID, 8, 'z')
	desk.allLive("Work", 1)
	if laptop.read(v.ID, 8) == 'z' {
		t.Error("a removed device still gets what is written")
	}
}

func TestLeavingTheFleet(t *testing.T) {
	desk, laptop, nas, v := threeDevices(t)
	err := desk.engine.LeaveFleet(t.Context(), api.LeaveFleet{})
	wantCode(t, "leaving with a VM that others have copies of", err, api.CodeConflict)
	wantText(t, "the refusal", api.AsError(err).Error(), "Work is on this device", "Switch it")
	nas.stop()
	until(t, "the link to be gone", func() bool { return !laptop.engine.linked(nas.engine.host.ID()) })
	if err := laptop.engine.LeaveFleet(t.Context(), api.LeaveFleet{Delete: true}); err != nil {
		t.Fatal(err)
	}
	// Who was connected knows before leaving returns, and shows nothing of one that left by itself.
	if desk.engine.dir.IsMember(laptop.engine.host.ID()) {
		t.Error("who was connected doesn't know")
	}
	if _, shown := desk.sees("laptop"); shown {
		t.Error("one that left by itself is shown as to be told")
	}
	laptop.alone()
	if laptop.hasFiles(v.ID) || len(laptop.status().VMs) != 0 {
		t.Error("its copies weren't deleted")
	}
	wantCode(t, "leaving twice", laptop.engine.LeaveFleet(t.Context(), api.LeaveFleet{}), api.CodeConflict)
	// Who wasn't there hears later, of whomever it meets first.
	nas.start()
	until(t, "the other to know", func() bool { return !nas.engine.dir.IsMember(laptop.engine.host.ID()) })
	linked(t, desk, nas)
	if err := nas.engine.LeaveFleet(t.Context(), api.LeaveFleet{}); err != nil {
		t.Fatal(err)
	}
	if !nas.hasFiles(v.ID) {
		t.Error("a copy was deleted that nobody wanted deleted")
	}
	desk.alone()
	if err := desk.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Errorf("a fleet of one: %v", err)
	}
}

// say shows a record to a device over the farewell protocol.
func (d *device) say(to *device, record any) error {
	d.t.Helper()
	b, err := json.Marshal(record)
	if err != nil {
		d.t.Fatal(err)
	}
	until(d.t, "a connection", func() bool { return d.engine.host.Connected(to.engine.host.ID()) })
	s, err := d.engine.host.Open(d.t.Context(), to.engine.host.ID(), farewell.Protocol)
	if err != nil {
		d.t.Fatal(err)
	}
	return farewell.Tell(d.t.Context(), s, b, func([]byte) error { return nil })
}

func TestAFarewellIsBelievedOnlyOfOneself(t *testing.T) {
	desk, laptop, nas, _ := threeDevices(t)
	// Records that the laptop can sign, made in a directory that nobody sees.
	forger, err := directory.Open(directory.Options{
		Dir: t.TempDir(), Self: laptop.engine.host.ID(), Sign: laptop.engine.host.Sign,
		Verify: func(string, []byte, []byte) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	for _, d := range []*device{desk, nas} {
		if err := forger.AddMember(directory.Member{ID: d.engine.host.ID(), Name: d.name}); err != nil {
			t.Fatal(err)
		}
		if err := forger.RemoveMember(d.engine.host.ID(), true); err != nil {
			t.Fatal(err)
		}
	}
	ofDesk, _ := forger.Removal(desk.engine.host.ID())
	ofNas, _ := forger.Removal(nas.engine.host.ID())
	tampered := ofDesk
	tampered.Sig = append([]byte{1}, tampered.Sig[1:]...)
	foreign := ofDesk
	foreign.Writer = nas.engine.host.ID()
	for what, r := range map[string]any{
		"a record about somebody else": ofNas,
		"a wrong signature":            tampered,
		"another's hand":               foreign,
		"nonsense":                     map[string]any{"key": 7},
		"nothing":                      nil,
	} {
		if err := laptop.say(desk, r); !errors.Is(err, farewell.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := desk.engine.dir.Strikes()[laptop.engine.host.ID()]; n < 2 {
		t.Errorf("%d lies are remembered", n)
	}
	// Once it was removed itself, not even what it could have said before counts.
	laptop.stop()
	until(t, "the link to be gone", func() bool { return !desk.engine.linked(laptop.engine.host.ID()) })
	if err := desk.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop"}); err != nil {
		t.Fatal(err)
	}
	if _, err := desk.engine.dir.AcceptRemoval(ofDesk); !errors.Is(err, directory.ErrUnknownDevice) {
		t.Errorf("a removed device removes: %v", err)
	}
	if len(desk.engine.dir.Members()) != 1 || len(nas.engine.dir.Members()) == 0 {
		t.Error("somebody else is gone")
	}
}

// What a stolen device takes over after it was removed, it takes over for itself alone.
func TestATakeoverByAStolenDeviceIsVoid(t *testing.T) {
	desk, laptop, nas, v := threeDevices(t)
	laptop.stop()
	if err := desk.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop", Wipe: true}); err != nil {
		t.Fatal(err)
	}
	until(t, "the other to hear", func() bool { return !nas.engine.dir.IsMember(laptop.engine.host.ID()) })
	desk.stop()
	nas.stop()
	laptop.start()
	until(t, "the VM to be known", func() bool { _, ok := laptop.vm("Work"); return ok })
	laptop.takeOver("Work")
	laptop.write(v.ID, 1, 'l')
	if err := laptop.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	desk.start()
	nas.start()
	linked(t, desk, nas)
	laptop.alone()
	until(t, "the wipe", func() bool { return !laptop.hasFiles(v.ID) && laptop.hv.only() == nil })
	desk.allLive("Work", 1)
	desk.write(v.ID, 1, 'd')
	desk.allLive("Work", 1)
	for _, d := range []*device{desk, nas} {
		until(t, d.name+" to know that it is wiped", func() bool { _, shown := d.sees("laptop"); return !shown })
		if s, _ := d.vm("Work"); s.Conflict != nil || s.OwnerName != "desk" || len(d.engine.dir.History(v.ID)) != 1 {
			t.Errorf("%s: %+v", d.name, s)
		}
		if d.read(v.ID, 1) != 'd' {
			t.Errorf("%s has what the thief wrote", d.name)
		}
	}
}

// What it took over before anybody knew that it was stolen is void as soon as that is known, on every device that believed it.
func TestATakeoverBeforeTheRemovalIsUndone(t *testing.T) {
	desk, laptop, nas, v := threeDevices(t)
	desk.stop()
	until(t, "the links to be gone", func() bool { return !laptop.engine.linked(desk.engine.host.ID()) })
	laptop.takeOver("Work")
	laptop.write(v.ID, 1, 'l')
	until(t, "the other to believe it", func() bool { s, _ := nas.vm("Work"); return s.OwnerName == "laptop" })
	laptop.stop()
	until(t, "the links to be gone", func() bool { return !nas.engine.linked(laptop.engine.host.ID()) })
	err := nas.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop", Wipe: true})
	wantCode(t, "removing an owner", err, api.CodeConflict)
	if err := nas.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop", Wipe: true, Anyway: true}); err != nil {
		t.Fatal(err)
	}
	desk.start()
	linked(t, desk, nas)
	for _, d := range []*device{desk, nas} {
		until(t, d.name+" to call the desk the owner", func() bool {
			s, _ := d.vm("Work")
			return s.OwnerName == "desk" && s.Conflict == nil && !s.Orphan
		})
	}
	until(t, "the desk's disk to be active", func() bool { return desk.engine.vm(v.ID).currentDisk().Info().Active })
	desk.write(v.ID, 1, 'd')
	desk.allLive("Work", 1)
	if nas.read(v.ID, 1) != 'd' {
		t.Error("the copy isn't the desk's disk")
	}
	laptop.start()
	laptop.alone()
	until(t, "the wipe", func() bool { return !laptop.hasFiles(v.ID) })
}

// A device that dies between hearing of its removal and carrying it out does so when it comes back.
func TestAWipeSurvivesARestart(t *testing.T) {
	desk, laptop, nas, v := threeDevices(t)
	self := laptop.engine.host.ID()
	opt := directory.Options{Dir: filepath.Join(laptop.dir, "directory"), Self: self, Sign: laptop.engine.host.Sign, Verify: p2p.Verify}
	laptop.stop()
	if err := desk.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop", Wipe: true}); err != nil {
		t.Fatal(err)
	}
	r, _ := desk.engine.dir.Removal(self)
	dir, err := directory.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	if wipe, err := dir.AcceptRemoval(r); err != nil || !wipe {
		t.Fatal(wipe, err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	if !laptop.hasFiles(v.ID) {
		t.Fatal("nothing is left to be wiped: nothing is tested")
	}
	laptop.start()
	laptop.alone()
	until(t, "the wipe", func() bool { return !laptop.hasFiles(v.ID) && len(laptop.status().VMs) == 0 })
	for _, d := range []*device{desk, nas} {
		until(t, d.name+" to know that it is wiped", func() bool { _, shown := d.sees("laptop"); return !shown && d.told("device.wiped") })
	}
}

// filesWith are the files below a directory in which one of these is.
func filesWith(t *testing.T, dir string, marks ...string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went, or got its name, while it was looked for
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range marks {
			if bytes.Contains(b, []byte(m)) {
				found = append(found, path)
				break
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A restore point, which only the removed device has, and the memory of what is suspended there go with its copies.
func TestAWipeLeavesNoRestorePointAndNoMemory(t *testing.T) {
	desk, laptop, v := apart(t)
	laptop.choose(api.ResolveKeep, laptop)
	one(t, laptop, desk, v.ID)
	own := desk.create("Own")
	if err := desk.engine.StartVM(t.Context(), "Own"); err != nil {
		t.Fatal(err)
	}
	if err := desk.engine.SuspendVM(t.Context(), "Own"); err != nil {
		t.Fatal(err)
	}
	desk.write(own.ID, 1, 'o')
	vms := filepath.Join(desk.dir, "vms")
	marks := []string{strings.Repeat("d", blockSize), strings.Repeat("l", blockSize), strings.Repeat("o", blockSize), "TAGMEMOR"}
	s, _ := desk.vm("Work")
	if len(s.RestorePoints) != 1 || len(filesWith(t, filepath.Join(vms, v.ID, "kept"), marks[0])) == 0 || len(filesWith(t, filepath.Join(vms, own.ID), marks[3])) == 0 {
		t.Fatalf("there is no restore point, or no memory, to be wiped: %+v, %v", s.RestorePoints, filesWith(t, vms, marks...))
	}
	until(t, "the VM to be known", func() bool { _, ok := laptop.vm("Own"); return ok })
	if err := laptop.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "desk", Wipe: true, Anyway: true}); err != nil {
		t.Fatal(err)
	}
	until(t, "the word that it has deleted everything", func() bool { return laptop.told("device.wiped") })
	if left := filesWith(t, desk.dir, marks...); len(left) > 0 {
		t.Errorf("it has deleted everything but %v", left)
	}
	if _, err := os.Stat(vms); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the VMs' directory: %v", err)
	}
	if s := desk.status(); len(s.VMs) != 0 {
		t.Errorf("it still shows %+v", s.VMs)
	}
	// Nor does anything come back with the engine.
	desk.stop()
	desk.start()
	desk.alone()
	if left := filesWith(t, desk.dir, marks...); len(left) > 0 || len(desk.status().VMs) != 0 {
		t.Errorf("after a restart there is %v", left)
	}
}

// A wipe that fails is told on the device where it failed, once, shown until it has worked, and tried again, by the next engine too.
// What can be deleted is.
func TestAWipeThatFailsIsToldAndTriedAgain(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	own := laptop.create("Own")
	if err := laptop.engine.StartVM(t.Context(), "Own"); err != nil {
		t.Fatal(err)
	}
	until(t, "the VM to be known", func() bool { _, ok := desk.vm("Own"); return ok })
	immortal := func(is bool) {
		laptop.hv.mu.Lock()
		defer laptop.hv.mu.Unlock()
		laptop.hv.immortal, laptop.hv.doomed = is, 0
	}
	tried := func(n int) func() bool {
		return func() bool {
			laptop.hv.mu.Lock()
			defer laptop.hv.mu.Unlock()
			return laptop.hv.doomed >= n
		}
	}
	immortal(true)
	if err := desk.engine.RemoveDevice(t.Context(), api.RemoveDevice{Device: "laptop", Wipe: true, Anyway: true}); err != nil {
		t.Fatal(err)
	}
	failed := func() int {
		laptop.engine.hub.mu.Lock()
		defer laptop.engine.hub.mu.Unlock()
		n := 0
		for _, e := range laptop.engine.hub.kept {
			if e.Kind == "fleet.leaving-failed" {
				n++
			}
		}
		return n
	}
	shown := func() {
		t.Helper()
		until(t, "the word of it", func() bool { return failed() > 0 })
		wantText(t, "the word of it", laptop.event("fleet.leaving-failed").Text, "removed from the fleet by desk", "couldn't delete all", "tries again", own.ID, "it doesn't end")
		if l := laptop.status().Leaving; l == nil || l.ByName != "desk" || !l.Wipe || !strings.Contains(l.Cause, own.ID) {
			t.Errorf("it shows %+v", l)
		}
	}
	shown()
	until(t, "it to be tried again", tried(2))
	if n := failed(); n != 1 {
		t.Errorf("the same failure was told %d times", n)
	}
	if laptop.hasFiles(v.ID) || laptop.told("fleet.left") {
		t.Error("a copy stays because of another VM, or it claims to be done")
	}
	if d, ok := desk.sees("laptop"); !ok || !d.Removed || !d.Wipe || desk.told("device.wiped") {
		t.Errorf("the desk believes that it was wiped: %+v", d)
	}
	laptop.stop()
	immortal(true)
	laptop.start()
	shown()
	immortal(false)
	until(t, "the wipe", func() bool { return laptop.told("fleet.left") && !laptop.hasFiles(own.ID) && laptop.hv.only() == nil })
	until(t, "nothing to be shown any more", func() bool { return laptop.status().Leaving == nil })
	until(t, "the desk to know", func() bool { return desk.told("device.wiped") })
}
