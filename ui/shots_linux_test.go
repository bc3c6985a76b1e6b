//go:build linux && !ci

package ui

import (
	"fmt"
	"image"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// TestRealShots writes a picture of every state to $TAGALONG_UI_SHOTS, for people to look at.
func TestRealShots(t *testing.T) {
	dir := os.Getenv("TAGALONG_UI_SHOTS")
	if dir == "" {
		t.Skip("TAGALONG_UI_SHOTS names no directory for pictures")
	}
	need(t, "Xvfb", "dbus-daemon", "xdotool", "import")
	for name, s := range shots(time.Now()) {
		t.Run(name, func(t *testing.T) {
			display, bus := startX(t), startBus(t)
			engine := newFakeEngine(s.st)
			engine.takeover, engine.history = lossy(time.Now()), pastOf(time.Now())
			engine.rollback, engine.preflight, engine.measures = rollbackOf(), s.preflight, s.measures
			socket := serve(t, engine)
			if s.st == nil {
				socket = filepath.Join(filepath.Dir(socket), "nobody.sock")
			}
			launch(t, socket, display, bus, true)
			until(t, "a window", func() bool { return len(windows(display)) == 1 })
			for _, p := range s.clicks {
				clickAt(t, display, p.X, p.Y)
			}
			// Nothing tells when the first frames have been drawn; pictures are for people to judge.
			time.Sleep(5 * time.Second)
			cmd := exec.Command("import", "-window", windows(display)[0], filepath.Join(dir, name+".png"))
			cmd.Env = append(os.Environ(), "DISPLAY="+display)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// clickAt presses the mouse in the window, for a person who looks at the picture to have been right.
func clickAt(t *testing.T, display string, x, y int) {
	t.Helper()
	time.Sleep(2 * time.Second)
	cmd := exec.Command("xdotool", "mousemove", "--window", windows(display)[0], fmt.Sprint(x), fmt.Sprint(y), "sleep", "0.3", "click", "1")
	cmd.Env = append(os.Environ(), "DISPLAY="+display)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// shot is a state worth a picture, and where to click first. No status is an engine that isn't there.
type shot struct {
	st     *api.Status
	clicks []image.Point
	// preflight is what is found before a switch.
	preflight api.Preflight
	measures  bool // it is still looked for
}

func shots(now time.Time) map[string]shot {
	m := map[string]shot{"none": {}}
	with := func(name string, change func(*api.Status), clicks ...image.Point) {
		st := sample(now)
		change(st)
		m[name] = shot{st: st, clicks: clicks}
	}
	at := image.Pt
	with("elsewhere", func(*api.Status) {})
	with("pairing", func(*api.Status) {}, at(685, 92), at(380, 275))
	conflict := func(st *api.Status) { inConflict(st, now) }
	gone := func(st *api.Status) { ownerGone(st, now) }
	points := func(st *api.Status) { withPoints(st, now) }
	with("conflict", conflict)
	with("conflict-keep", conflict, at(390, 378))
	with("conflict-both", conflict, at(109, 450))
	with("conflict-open", conflict, at(109, 500))
	with("gone", gone)
	with("takeover", gone, at(387, 154))
	with("orphan", func(st *api.Status) { ownerGone(st, now); st.VMs[0].Orphan = true })
	with("preparing", func(st *api.Status) { inConflict(st, now); st.VMs[0].Conflict = nil; preparing(st) })
	with("now", func(st *api.Status) { inConflict(st, now); st.VMs[0].Conflict = nil; preparing(st) }, at(340, 261))
	with("offline", func(st *api.Status) {
		inConflict(st, now)
		st.VMs[0].Conflict = nil
		preparing(st)
		st.Jobs, st.Offline.Job, st.Offline.On, st.Offline.Since = nil, "", true, now.Add(-2*time.Hour)
		st.Offline.VMs[1].At = now.Add(-5 * time.Hour)
		for i := range st.Devices {
			st.Devices[i].Connected = false
		}
	})
	with("journey", func(st *api.Status) {
		play := cloneStatus(st).VMs[0]
		play.ID, play.Name, play.Here, play.Owner, play.OwnerName = "p", "Play", true, "D", "Desk"
		old := cloneStatus(st).VMs[0]
		old.ID, old.Name, old.Owner, old.OwnerName, old.State = "o", "Accounts", "A", "Attic", api.VMStopped
		st.VMs = append(st.VMs, play, old)
	}, at(668, 39))
	with("taken-along", func(st *api.Status) {
		ownerGone(st, now)
		st.Devices[1].Offline, st.VMs[0].Offline, st.VMs[0].OfflineSince = true, true, now.Add(-26*time.Hour)
		st.Devices[2].Removed, st.Devices[2].Wipe = true, true
	})
	with("menu", points, at(456, 154))
	with("points", points, at(456, 154), at(490, 229))
	with("history", points, at(456, 154), at(490, 268))
	for name, of := range map[string]func(time.Time) api.Preflight{"estimate": estimated, "estimate-busy": tooBusy, "estimate-little": tooLittle} {
		m[name] = shot{st: sample(now), clicks: []image.Point{at(456, 154), at(490, 190)}, preflight: of(now)}
	}
	m["estimate-measuring"] = shot{st: sample(now), clicks: []image.Point{at(456, 154), at(490, 190)}, measures: true}
	with("running-here", running, at(456, 154))
	with("settings", running, at(456, 154), at(490, 424))
	with("disks", disksOf, at(456, 154), at(490, 307))
	with("disks-run", running, at(456, 154), at(490, 463))
	with("disk-add", disksOf, at(456, 154), at(490, 307), at(180, 432))
	with("disk-grow", disksOf, at(456, 154), at(490, 307), at(506, 268))
	with("disk-remove", disksOf, at(456, 154), at(490, 307), at(591, 268))
	with("reset", running, at(456, 154), at(490, 268))
	with("delete", func(st *api.Status) {
		running(st)
		st.VMs[0].State = api.VMSuspended
		withPoints(st, now)
	}, at(456, 154), at(490, 385))
	with("stopping", func(st *api.Status) { running(st); st.VMs[0].State = api.VMStopping })
	with("ahead", syncScenes(now)["switch-too-busy"], at(230, 385))
	with("remove", func(*api.Status) {}, at(722, 255))
	with("leave", func(*api.Status) {}, at(722, 150))
	with("switching", func(st *api.Status) {
		st.VMs[0].Switch, st.VMs[0].State = switching(), api.VMSwitching
	})
	with("many", func(st *api.Status) {
		here := *cloneStatus(st)
		play := here.VMs[0]
		play.ID, play.Name, play.Here, play.Owner, play.OwnerName = "p", "Play", true, "D", "Desk"
		play.Replicas[0].State, play.Replicas[1].State = api.ReplicaCopying, api.ReplicaOwner
		play.Replicas[0].Remaining, play.Replicas[0].Copied, play.Replicas[0].Rate = 12*gib, 20*gib, 80*mib
		play.Replicas[0].ETA = 150 * time.Second
		old := cloneStatus(st).VMs[0]
		old.ID, old.Name, old.Owner, old.OwnerName, old.State = "o", "Old accounts, a VM with a rather long name", "A", "Attic", api.VMStopped
		st.VMs = append(st.VMs, play, old)
		st.Jobs = []api.Job{{ID: "j", Kind: "import", VMName: "Photos", Bytes: 7 * gib, Total: 20 * gib, Rate: 210 * mib, ETA: 63 * time.Second}}
	})
	with("problem", func(st *api.Status) {
		st.VMs[0].Here, st.VMs[0].Owner, st.VMs[0].OwnerName, st.VMs[0].State = true, "D", "Desk", api.VMPaused
		st.VMs[0].Replicas = st.VMs[0].Replicas[1:]
		st.VMs[0].Replicas[0].State = api.ReplicaOwner
		st.VMs[0].Problem = &api.Error{Code: api.CodeSpace, Sentence: "Work stands still because its disk can't be written.", Next: "Free some space.", Remedy: api.RemedyResume, Topic: api.TopicUnwritable}
	})
	with("full-disk", func(st *api.Status) {
		st.Problem = &api.Error{Code: api.CodeSpace, Sentence: "This device's disk is full: VMs here stand still when they write, and can't be moved or changed.",
			Next: "Free some space, a few hundred megabytes at least; everything goes on by itself then."}
	})
	with("rollback", func(st *api.Status) { hydrating(st, now); holdersGone(st, now) }, at(388, 154))
	with("empty", func(st *api.Status) { st.VMs, st.Devices = nil, st.Devices[:1] })
	with("no-hypervisor", func(st *api.Status) { st.Hypervisor = api.Hypervisor{} })
	for name, change := range syncScenes(now) {
		with(name, change)
	}
	return m
}
