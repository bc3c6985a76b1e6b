package app

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/limits"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Badger's and libp2p's own, which end a moment after their Close.
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

// patience bounds waits for conditions; reaching it means that something hangs.
const patience = 3 * time.Minute

// device is one engine in this process.
type device struct {
	t       *testing.T
	name    string
	dir     string
	hv      *fakeHypervisor
	engine  *Engine
	stop    func()
	reserve int64         // of its disk's space, in bytes
	prepare func(*Engine) // what is done to each engine before it serves
	around  *limits.Around
	listen  string // its address, from its first start on: who was away finds it there
}

func newDevice(t *testing.T, name string) *device {
	t.Helper()
	dir, err := os.MkdirTemp("", "te")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &device{t: t, name: name, dir: dir, hv: newFake(), around: &limits.Around{}, listen: "/ip4/127.0.0.1/tcp/0"}
	d.start()
	return d
}

func (d *device) options() Options {
	return Options{DataDir: d.dir, Name: d.name, Listen: []string{d.listen}, Hypervisor: d.hv, Log: slog.New(slog.NewTextHandler(d.t.Output(), nil)).With("device", d.name), Reserve: max(d.reserve, 1), Around: d.around}
}

// start starts the engine, a second time too, as after a crash or a restart.
func (d *device) start() {
	d.t.Helper()
	e, err := open(d.options())
	if err != nil {
		d.t.Fatal(err)
	}
	if d.prepare != nil {
		d.prepare(e)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	e.stop = cancel
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- e.serve(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		d.t.Fatal(err)
	}
	d.engine, d.listen = e, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", e.host.Port())
	var once sync.Once
	d.stop = func() {
		once.Do(func() {
			cancel(nil)
			select {
			case <-ended:
			case <-time.After(patience):
				d.t.Error("the engine doesn't end")
			}
		})
	}
	d.t.Cleanup(d.stop)
}

// withFreeMemory starts the engine anew on a device that always has so many bytes of memory free: what other programs take and give back meanwhile doesn't
// count.
func (d *device) withFreeMemory(bytes int64) {
	d.t.Helper()
	d.stop()
	d.prepare = func(e *Engine) { e.free = func() int64 { return bytes } }
	d.start()
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (d *device) vm(name string) (api.VM, bool) {
	d.t.Helper()
	s, err := d.engine.Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, v := range s.VMs {
		if v.Name == name {
			return v, true
		}
	}
	return api.VM{}, false
}

// pair makes two devices one fleet, by address, and waits until they are connected.
func pair(t *testing.T, a, b *device) {
	t.Helper()
	p, err := a.engine.PairStart(t.Context(), api.PairStart{})
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := a.engine.Status(t.Context()); len(p.Addrs) == 0 || s.Pairing == nil || !slices.Equal(s.Pairing.Addrs, p.Addrs) {
		t.Fatalf("it waits at %v, and shows %+v", p.Addrs, s.Pairing)
	}
	// There is no discovery here: the code and an address that is shown beside it are enough.
	joined, err := b.engine.PairJoin(t.Context(), api.PairJoin{Code: p.Code, Addr: p.Addrs[0]})
	if err != nil {
		t.Fatal(err)
	}
	if joined.Peer.Name != a.name || len(joined.Words) != 4 {
		t.Fatalf("paired with %+v", joined)
	}
	linked(t, a, b)
}

// linked waits until every device has a control link to every other.
func linked(t *testing.T, devices ...*device) {
	t.Helper()
	for _, d := range devices {
		for _, other := range devices {
			if d != other {
				until(t, d.name+"'s control link to "+other.name, func() bool { return d.engine.linked(other.engine.host.ID()) })
			}
		}
	}
}

const testDisk = 4 << 20

// create makes a VM and waits until it is there.
func (d *device) create(name string) api.VM {
	d.t.Helper()
	job, err := d.engine.CreateVM(d.t.Context(), api.CreateVM{Name: name, CPUs: 1, MemoryMiB: 64, DiskBytes: testDisk})
	if err != nil {
		d.t.Fatal(err)
	}
	var v api.VM
	until(d.t, "the VM "+name, func() bool {
		if j := d.engine.job(job.ID); j != nil {
			if s := j.snapshot(); s.Error != nil {
				d.t.Fatal(s.Error)
			}
		}
		var ok bool
		v, ok = d.vm(name)
		return ok
	})
	return v
}

// live waits until the other device's copy is.
func (d *device) live(name string) {
	d.t.Helper()
	until(d.t, "a live copy", func() bool {
		v, _ := d.vm(name)
		return len(v.Replicas) > 0 && v.Replicas[0].State == api.ReplicaLive && v.Replicas[0].Remaining == 0
	})
}

// twoDevices is a fleet of two: the VM runs on the first, the second's copy of it is live.
func twoDevices(t *testing.T) (owner, other *device, v api.VM) {
	t.Helper()
	return twoDevicesAnd(t, func(*device) {})
}

// twoDevicesAnd does as twoDevices, after the second one was prepared.
func twoDevicesAnd(t *testing.T, prepare func(other *device)) (owner, other *device, v api.VM) {
	t.Helper()
	owner, other = newDevice(t, "desk"), newDevice(t, "laptop")
	prepare(other)
	pair(t, owner, other)
	v = owner.create("Work")
	if err := owner.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	owner.live("Work")
	return owner, other, v
}

// write changes the disk as the guest would.
func (d *device) write(id string, block int64, fill byte) {
	d.t.Helper()
	if err := d.engine.vm(id).currentDisk().WriteAt(bytes.Repeat([]byte{fill}, blockSize), block*blockSize, true); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) read(id string, block int64) byte {
	d.t.Helper()
	b := make([]byte, blockSize)
	if err := d.engine.vm(id).currentDisk().ReadAt(b, block*blockSize); err != nil {
		d.t.Fatal(err)
	}
	if !bytes.Equal(b, bytes.Repeat(b[:1], blockSize)) {
		d.t.Fatalf("block %d is a mixture", block)
	}
	return b[0]
}

// ended waits until the VM's switch has ended.
func (d *device) ended(name string) api.Switch {
	d.t.Helper()
	var s api.Switch
	until(d.t, "the switch to end on "+d.name, func() bool {
		v, _ := d.vm(name)
		if v.Switch == nil {
			return false
		}
		s = *v.Switch
		return s.Phase.Ended()
	})
	return s
}
