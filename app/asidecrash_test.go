package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/app/restore"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/replica"
)

// chosenAway has the laptop choose its own version while the desk is off, and returns the choice.
func chosenAway(t *testing.T, desk, laptop *device, id string, how api.Resolution) directory.SignedTransfer {
	t.Helper()
	desk.stop()
	until(t, "the laptop to miss the desk", func() bool { return !laptop.engine.linked(desk.engine.host.ID()) })
	laptop.choose(how, laptop)
	heads := laptop.engine.dir.Heads(id)
	if len(heads) != 1 || heads[0].Kind != directory.KindResolved {
		t.Fatalf("the heads are %v", heads)
	}
	return heads[0]
}

// A crash between any two steps of making a restore point is gone on from.
func TestSettingAsideGoesOnAfterACrash(t *testing.T) {
	point := func(s directory.SignedTransfer) restore.Point {
		return restore.Point{ID: pointID(s), At: time.Now(), Why: "Half made."}
	}
	for step, crashed := range map[string]func(t *testing.T, dir string, s directory.SignedTransfer){
		"before the first step": func(*testing.T, string, directory.SignedTransfer) {},
		"after the note": func(t *testing.T, dir string, s directory.SignedTransfer) {
			kept := filepath.Join(dir, "kept", pointID(s))
			if err := durable.Mkdir(kept); err != nil {
				t.Fatal(err)
			}
			if err := durable.Write(filepath.Join(kept, "note.json"), []byte("{}")); err != nil {
				t.Fatal(err)
			}
		},
		"after the disk was moved": func(t *testing.T, dir string, s directory.SignedTransfer) {
			if err := restore.Shelf(filepath.Join(dir, "kept")).Take(point(s), filepath.Join(dir, "disk")); err != nil {
				t.Fatal(err)
			}
		},
		"in the middle of the copy": func(t *testing.T, dir string, s directory.SignedTransfer) {
			if err := restore.Shelf(filepath.Join(dir, "kept")).Take(point(s), filepath.Join(dir, "disk")); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(dir, "disk.new"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "disk.new", "base.raw"), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(step, func(t *testing.T) {
			desk, laptop, v := apart(t)
			s := chosenAway(t, desk, laptop, v.ID, api.ResolveKeep)
			crashed(t, filepath.Join(desk.dir, "vms", v.ID), s)
			desk.start()
			one(t, laptop, desk, v.ID)
			vm, _ := desk.vm("Work")
			if len(vm.RestorePoints) != 1 || vm.RestorePoints[0].ID != pointID(s) {
				t.Fatalf("the desk keeps %+v", vm.RestorePoints)
			}
			if desk.read(v.ID, 1) != 'l' {
				t.Error("the copy isn't the laptop's")
			}
			if _, err := os.Stat(filepath.Join(desk.dir, "vms", v.ID, "disk.new")); err == nil {
				t.Error("half a copy was left")
			}
			b := make([]byte, 1)
			if _, err := desk.engine.vm(v.ID).servePoint(pointID(s)); err != nil {
				t.Fatal(err)
			}
			if err := desk.engine.vm(v.ID).opened[pointID(s)].disk.ReadAt(b, blockSize); err != nil || b[0] != 'd' {
				t.Errorf("the restore point reads %q, %v", b, err)
			}
		})
	}
}

// Engines that end at any moment of a choice take it up again.
func TestAChoiceSurvivesRestartsOfBoth(t *testing.T) {
	for _, how := range []api.Resolution{api.ResolveKeep, api.ResolveBoth} {
		t.Run(string(how), func(t *testing.T) {
			desk, laptop, v := apart(t)
			chosenAway(t, desk, laptop, v.ID, how)
			// The desk is ended again in each state that it goes through.
			for _, state := range []baton.State{baton.Ousted, baton.Ousted, baton.Replica} {
				desk.start()
				until(t, "the desk to be "+string(state), func() bool { s := desk.state(v.ID); return s == state || s == baton.Replica })
				desk.stop()
				laptop.stop()
				laptop.start()
			}
			desk.start()
			one(t, laptop, desk, v.ID)
			if desk.read(v.ID, 1) != 'l' {
				t.Error("the copy isn't the laptop's")
			}
			names := 0
			for _, s := range desk.status().VMs {
				if s.ID != v.ID {
					names++
					if s.Name != "Work 2" || desk.read(s.ID, 1) != 'd' {
						t.Errorf("the second VM is %+v", s)
					}
				}
			}
			if want := map[api.Resolution]int{api.ResolveKeep: 0, api.ResolveBoth: 1}[how]; names != want {
				t.Errorf("there are %d more VMs", names)
			}
		})
	}
}

// A copy that the taker's lacks something of isn't overwritten before the person has chosen.
func TestACopyBeyondTheTakeoverIsASide(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	nas := newDevice(t, "nas")
	pair(t, desk, nas)
	until(t, "the nas's copy", func() bool {
		d := nas.engine.vm(v.ID)
		if d == nil {
			return false
		}
		disk := d.currentDisk()
		return disk != nil && disk.Info().Complete
	})
	pair(t, laptop, nas)
	laptop.stop()
	desk.write(v.ID, 1, 'n')
	until(t, "the nas to have it", func() bool {
		b := make([]byte, 1)
		return nas.engine.vm(v.ID).currentDisk().ReadAt(b, blockSize) == nil && b[0] == 'n'
	})
	desk.stop()
	nas.stop()
	laptop.start()
	until(t, "the VM to be known", func() bool { _, ok := laptop.vm("Work"); return ok })
	laptop.takeOver("Work")
	laptop.write(v.ID, 2, 'l')
	nas.start()
	until(t, "both versions", func() bool { s, _ := laptop.vm("Work"); return s.Conflict != nil })
	if s := laptop.side(nas); s.Kind != "kept" || s.OwnerName != "nas" {
		t.Errorf("the nas's side is %+v", s)
	}
	if nas.read(v.ID, 1) != 'n' {
		t.Error("the nas's copy was overwritten")
	}
	laptop.choose(api.ResolveKeep, nas)
	one(t, nas, laptop, v.ID)
	if laptop.read(v.ID, 1) != 'n' || laptop.read(v.ID, 2) == 'l' {
		t.Errorf("the laptop isn't the nas's copy: %q, %q", laptop.read(v.ID, 1), laptop.read(v.ID, 2))
	}
	if s, _ := laptop.vm("Work"); len(s.RestorePoints) != 1 {
		t.Errorf("the laptop keeps %+v", s.RestorePoints)
	}
}

// Until it has been compared with the new owner's history, a copy takes nothing of that owner's, however soon its stream comes.
func TestACopyTakesNothingBeforeItWasCompared(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	nas := newDevice(t, "nas")
	pair(t, desk, nas)
	until(t, "the nas's copy", func() bool {
		d := nas.engine.vm(v.ID)
		return d != nil && d.currentDisk() != nil && d.currentDisk().Info().Complete
	})
	pair(t, laptop, nas)
	laptop.stop()
	desk.write(v.ID, 1, 'n')
	copied := nas.engine.vm(v.ID)
	until(t, "the nas to have it", func() bool {
		b := make([]byte, 1)
		return copied.currentDisk().ReadAt(b, blockSize) == nil && b[0] == 'n'
	})
	// What would compare it doesn't come to it.
	copied.cancel()
	<-copied.done
	desk.stop()
	laptop.start()
	until(t, "the VM to be known", func() bool { _, ok := laptop.vm("Work"); return ok })
	laptop.takeOver("Work")
	laptop.write(v.ID, 2, 'l')
	owner := laptop.engine.host.ID()
	var term uint64
	until(t, "the nas to know of the takeover", func() bool {
		now, by, ok := nas.engine.dir.Owner(v.ID)
		term = now
		return ok && by == owner
	})
	disk := copied.currentDisk()
	_, err := nas.engine.replicaFor(owner, replica.Target{VM: v.ID, Disk: replica.ID(disk.ID()), Size: disk.Size(), Term: term})
	var refusal *replica.Refusal
	if !errors.As(err, &refusal) || refusal.Code != replica.RefuseBusy {
		t.Errorf("the owner's stream: %v", err)
	}
	b := make([]byte, 1)
	if err := disk.ReadAt(b, blockSize); err != nil || b[0] != 'n' {
		t.Errorf("the nas's copy has %q, %v", b, err)
	}
}

// Without room for a second copy nothing is lost, the person is told the numbers, and may give the restore point up.
func TestNoRoomForARestorePoint(t *testing.T) {
	desk, laptop, v := apart(t)
	choice := chosenAway(t, desk, laptop, v.ID, api.ResolveKeep)
	desk.reserve = 1 << 60
	desk.start()
	shared := func() bool { return desk.state(v.ID) == baton.Replica } // the file system lets both share their blocks
	until(t, "the desk to say that there is no room", func() bool {
		s, _ := desk.vm("Work")
		return s.Problem != nil && s.Problem.Code == api.CodeSpace || shared()
	})
	if shared() {
		t.Log("no room was needed here")
		return
	}
	s, _ := desk.vm("Work")
	if !strings.Contains(s.Problem.Sentence, "KiB") || !strings.Contains(s.Problem.Sentence, "laptop") || !strings.Contains(s.Problem.Next, pointID(choice)) {
		t.Errorf("the person reads %q", s.Problem)
	}
	if len(s.RestorePoints) != 1 {
		t.Fatalf("the desk keeps %+v", s.RestorePoints)
	}
	until(t, "the job to have ended", func() bool {
		for _, j := range desk.status().Jobs {
			if j.Kind == kindResolve && j.Done {
				return errors.Is(j.Error, &api.Error{Code: api.CodeSpace})
			}
		}
		return false
	})
	if err := laptop.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Errorf("the VM doesn't go on elsewhere: %v", err)
	}
	if err := desk.engine.DeleteRestorePoint(t.Context(), api.RestorePointRef{VM: "Work", ID: pointID(choice)}); err != nil {
		t.Fatal(err)
	}
	until(t, "the desk to follow", shared)
	desk.stop()
	desk.reserve = 0
	desk.start()
	one(t, laptop, desk, v.ID)
	if s, _ := desk.vm("Work"); len(s.RestorePoints) != 0 || s.Problem != nil {
		t.Errorf("after all: %+v, %v", s.RestorePoints, s.Problem)
	}
	if desk.read(v.ID, 1) != 'l' {
		t.Error("the copy isn't the laptop's")
	}
}
