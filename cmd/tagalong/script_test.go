package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/api/apitest"
)

// TestScripts runs testdata/*.txtar. Each has a fake engine of its own, which runs from the start;
// the commands below steer it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			// Not below $WORK, whose path is too long for a socket on some systems.
			dir, err := os.MkdirTemp("", "tg")
			if err != nil {
				return err
			}
			f := &fake{socket: api.SocketPath(dir)}
			env.Defer(func() { f.stop(); _ = os.RemoveAll(dir) })
			env.Values["fake"] = f
			env.Setenv("TAGALONG_DATA", dir)
			env.Setenv("TZ", "UTC")
			return f.start(fleet())
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":     cmdExits,
			"engine":    cmdEngine,
			"fail":      cmdFail,
			"saw":       cmdSaw,
			"seen":      cmdSeen,
			"phase":     cmdPhase,
			"job":       cmdJob,
			"pairing":   cmdPairing,
			"emit":      cmdEmit,
			"ready":     cmdReady,
			"listening": cmdListening,
			"terminate": cmdTerminate,
			"scene":     cmdScene,
		},
	})
}

// fleet is the state that scripts begin in.
func fleet() api.Status {
	at := time.Now().Add(-60 * time.Hour) // "2 days ago", however long a script takes
	return api.Status{
		Version: "1.2.3", DataDir: "/data",
		Hypervisor: api.Hypervisor{Found: true, Version: "9.2.0", Accel: "kvm"},
		Device:     api.Device{ID: "D1", Name: "desk", Self: true},
		Devices: []api.Device{
			{ID: "D1", Name: "desk", Self: true},
			{ID: "D2", Name: "laptop", Connected: true, RTTMicros: 1200},
			{ID: "D3", Name: "attic", LastSeen: at},
		},
		VMs: []api.VM{
			{ID: "vm1", Name: "Work", State: api.VMRunning, Owner: "D2", OwnerName: "laptop", Term: 3, Position: api.Position{Term: 3, Barrier: 120},
				Spec: api.Spec{CPUs: 2, MemoryKiB: 2 << 20, DiskBytes: 20 << 30, Machine: "pc-q35-9.2", CPU: "x86-64-v2"},
				Replicas: []api.Replica{
					{Device: "D2", DeviceName: "laptop", State: api.ReplicaOwner, Position: api.Position{Term: 3, Barrier: 120}, Heard: at},
					{Device: "D1", DeviceName: "desk", State: api.ReplicaBehind, Position: api.Position{Term: 3, Barrier: 90}, Remaining: 3 << 20, Blocks: 768, Since: time.Now().Add(-90 * time.Minute), Rate: 1 << 20, ETA: 3 * time.Second},
					{Device: "D3", DeviceName: "attic", State: api.ReplicaAway, Position: api.Position{Term: 2, Barrier: 7}, Remaining: 5 << 30, Blocks: 5 << 18},
				}},
			{ID: "vm2", Name: "Play", State: api.VMStopped, Here: true, Owner: "D1", OwnerName: "desk", Term: 1, Spec: api.Spec{DiskBytes: 10 << 30}},
		},
	}
}

// fake is a script's engine, which can stop and start.
type fake struct {
	*apitest.Engine
	socket string
	asked  atomic.Int64 // snapshots
	told   atomic.Int64 // the latest of those that were asked for, by its number, that has been made
	stop   func()
}

// Status implements api.Engine.
func (f *fake) Status(ctx context.Context) (*api.Status, error) {
	n := f.asked.Add(1)
	st, err := f.Engine.Status(ctx)
	for was := f.told.Load(); was < n && !f.told.CompareAndSwap(was, n); was = f.told.Load() {
	}
	return st, err
}

func (f *fake) start(st api.Status) error {
	l, err := api.Listen(f.socket)
	if err != nil {
		return err
	}
	f.Engine = apitest.New(st)
	f.SetHistory("vm1", []api.HistoryEntry{
		{VM: "vm1", Term: 1, Owner: "D1", OwnerName: "desk", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Kind: "created", Hash: "h1"},
		{VM: "vm1", Term: 3, Owner: "D2", OwnerName: "laptop", From: "D1", FromName: "desk", At: time.Date(2026, 1, 3, 3, 4, 5, 0, time.UTC), Kind: "switch",
			Position: api.Position{Term: 1, Barrier: 99}, Hash: "h2"},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.NewServer(f, nil).Serve(ctx, l) }()
	f.stop = func() {
		cancel()
		<-done
		f.stop = func() {}
	}
	return nil
}

func fakeOf(ts *testscript.TestScript) *fake { return ts.Value("fake").(*fake) }

func soonEnough() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 2*time.Minute)
}

// exits CODE PROGRAM ARGS... runs a program that must end with that code.
func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// engine stop | start | again | empty | twins: again keeps the state; the last two start another
// with no VM, or with two of a name.
func cmdEngine(ts *testscript.TestScript, _ bool, args []string) {
	f, st := fakeOf(ts), fleet()
	if args[0] == "again" {
		now, err := f.Engine.Status(context.Background())
		ts.Check(err)
		st = *now
	}
	f.stop()
	switch args[0] {
	case "stop":
		return
	case "start", "again":
	case "empty":
		st.VMs, st.Devices, st.Hypervisor = nil, nil, api.Hypervisor{Note: "Install QEMU."}
	case "twins":
		st.VMs[1].Name = "Work"
	default:
		ts.Fatalf("engine %q", args)
	}
	ts.Check(f.start(st))
}

// fail METHOD CODE SENTENCE [NEXT]
func cmdFail(ts *testscript.TestScript, _ bool, args []string) {
	e := &api.Error{Code: api.Code(args[1]), Sentence: args[2]}
	if len(args) > 3 {
		e.Next = args[3]
	}
	fakeOf(ts).Fail(args[0], e)
}

// saw CALL waits until the engine was called like this.
func cmdSaw(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		for _, call := range fakeOf(ts).Calls() {
			if call == args[0] {
				ts.Fatalf("the engine saw %s", call)
			}
		}
		return
	}
	ctx, cancel := soonEnough()
	defer cancel()
	ts.Check(fakeOf(ts).AwaitCall(ctx, args[0]))
}

// seen waits until somebody has got a snapshot that shows the present state.
func cmdSeen(ts *testscript.TestScript, _ bool, _ []string) {
	f := fakeOf(ts)
	ctx, cancel := soonEnough()
	defer cancel()
	for before := f.asked.Load(); f.told.Load() <= before; {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			ts.Fatalf("nobody asks for a snapshot")
		}
	}
}

// phase PHASE [BYTES TOTAL] moves Work's switch on; gone takes it out of the snapshot.
func cmdPhase(ts *testscript.TestScript, _ bool, args []string) {
	var told api.Switch
	fakeOf(ts).Update("switch.progress", "on", func(st *api.Status) {
		vm := &st.VMs[0]
		if args[0] == "gone" {
			vm.Switch = nil
			return
		}
		sw := *vm.Switch
		sw.Phase = api.SwitchPhase(args[0])
		if len(args) > 2 {
			sw.Bytes, sw.Total = number(ts, args[1]), number(ts, args[2])
			sw.Rate, sw.ETA = 1<<20, 7*time.Second
		}
		switch sw.Phase {
		case api.PhaseDone:
			sw.Started, sw.Ended, sw.Pause = time.Unix(1000, 0), time.Unix(1012, 0), 84*time.Millisecond
			vm.Owner, vm.OwnerName, vm.Here, vm.State = sw.To, sw.ToName, sw.To == "D1", api.VMRunning
		case api.PhaseFailed:
			sw.Error = &api.Error{Code: api.CodeUnreachable, Sentence: "The link to laptop broke.", Next: "Try again."}
		}
		vm.Switch = &sw
		told = sw
	})
	if told.ID != "" {
		fakeOf(ts).Emit(api.Event{Kind: "switch.progress", VM: "vm1", Text: "on", Switch: &told})
	}
}

func number(ts *testscript.TestScript, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	ts.Check(err)
	return n
}

// job BYTES moves the last job on; done, exported, clean, damaged and failed end it.
func cmdJob(ts *testscript.TestScript, _ bool, args []string) {
	fakeOf(ts).Update("job.progress", "on", func(st *api.Status) {
		job := &st.Jobs[len(st.Jobs)-1]
		switch args[0] {
		case "done":
			job.Done = true
		case "exported":
			job.Done, job.Export = true, &api.DiskExport{File: "/backup/work.qcow2", Format: api.DiskQcow2, Position: api.Position{Term: 3, Barrier: 121}, Size: 20 << 30, Allocated: 3 << 30}
		case "clean":
			job.Done, job.Check = true, &api.DiskCheck{Dir: "/vms/vm1", Clean: true, Findings: []api.DiskFinding{}, Damaged: []api.DiskDamage{}, Verified: 3 << 30, Busy: 4 << 20}
		case "damaged":
			job.Done, job.Check = true, &api.DiskCheck{Dir: "/vms/vm1", Verified: 1 << 30, Unverified: 2 << 20, Recorded: 1 << 20,
				Findings:    []api.DiskFinding{{File: "epochs", Sentence: "The epoch log is shorter than it was.", Next: "Let the engine copy the disk again."}},
				Notes:       []api.DiskFinding{{Sentence: "It has a stranger."}},
				Damaged:     []api.DiskDamage{{Off: 1 << 30, Len: 64 << 10}, {Off: 2 << 30, Len: 4096, Error: "input/output error"}},
				MoreDamaged: 8192}
		case "verified":
			job.Done, job.Verification = true, &api.Verification{VM: "vm1", VMName: "Work", Started: time.Now().Add(-90 * time.Second), Sentence: "Work and its copy are equal.", Clean: true,
				Read: 20 << 30, AsRecorded: 1 << 30, Copies: []api.VerifiedCopy{{Device: "D1", DeviceName: "desk", Equal: 20<<30 - 1<<20, Busy: 1 << 20}, {Device: "D3", DeviceName: "attic", Missing: "isn't up to date now"}},
				Findings: []api.VerifyFinding{}}
		case "differing":
			job.Done, job.Verification = true, &api.Verification{VM: "vm1", VMName: "Work", Started: time.Now().Add(-90 * time.Second), Sentence: "Something is wrong with Work.",
				Read: 20 << 30, Copies: []api.VerifiedCopy{{Device: "D1", DeviceName: "desk", Equal: 1 << 30, Missing: "can't be reached", Until: 1 << 30}},
				Findings: []api.VerifyFinding{{Off: 65536, Len: 65536, Open: true, Sentence: "65536 bytes differ.", Next: "Decide.", Copies: map[string]string{"D1": "undecided"}}}, MoreFindings: 64 << 10}
		case "failed":
			job.Done, job.Error = true, &api.Error{Code: api.CodeSpace, Sentence: "The disk is full.", Next: "Make room."}
		default:
			job.Phase, job.Bytes, job.Total, job.Rate, job.ETA = "writing", number(ts, args[0]), 20<<30, 50<<20, 90*time.Second
		}
	})
}

// pairing done | failed | closed
func cmdPairing(ts *testscript.TestScript, _ bool, args []string) {
	fakeOf(ts).Update("pairing."+args[0], "on", func(st *api.Status) {
		p := *st.Pairing
		switch args[0] {
		case "done":
			p.Done, p.Peer, p.Words = true, &st.Devices[1], []string{"apple", "river", "stone", "cloud"}
		case "failed":
			p.Done, p.Error = true, &api.Error{Code: api.CodeRefused, Sentence: "Three wrong codes were entered.", Next: "Try again."}
		}
		st.Pairing = &p
		if args[0] == "closed" {
			st.Pairing = nil
		}
	})
}

// emit KIND TEXT
func cmdEmit(ts *testscript.TestScript, _ bool, args []string) {
	fakeOf(ts).Emit(api.Event{Kind: args[0], Text: args[1]})
}

// ready DIR waits for an engine on a data directory.
func cmdReady(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := soonEnough()
	defer cancel()
	c := api.NewClient(api.SocketPath(filepath.Clean(args[0])))
	defer c.Close()
	ts.Check(c.WaitReady(ctx))
}

// listening SOCKET waits until somebody takes connections there.
func cmdListening(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := soonEnough()
	defer cancel()
	for {
		conn, err := net.Dial("unix", args[0])
		if err == nil {
			ts.Check(conn.Close())
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			ts.Fatalf("nobody listens: %v", err)
		}
	}
}

// terminate asks all programs in the background to end, as the system does at its own end.
func cmdTerminate(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}
