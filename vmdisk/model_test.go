package vmdisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

var (
	modelRuns = flag.Int("model.runs", 12, "how many seeds the model test tries")
	modelSeed = flag.Uint64("model.seed", 0, "the only seed to try, or 0")
)

const (
	modelDisk   = 12 << 20
	modelWindow = 64 << 10
	modelSize   = int64(len(windows)) * modelWindow
	modelMost   = modelDisk + 4<<20 // it may grow to
	modelSector = 512
	modelSteps  = 250
)

// windows are the parts of the disk that are written: the two ends, one across two regions of the activity log, and one that is there when the
// disk has grown. They are zeros as far as they are beyond its end.
var windows = [4]int64{0, 4<<20 - modelWindow/2, modelDisk - modelWindow, modelDisk + 1<<20 - modelWindow/2}

// look reads the windows.
func look(d *Store) ([]byte, error) {
	b := make([]byte, modelSize)
	for i, at := range windows {
		n := max(0, min(modelWindow, d.Size()-at))
		if err := d.ReadAt(b[i*modelWindow:][:n], min(at, d.Size())); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// device is one of the model's devices.
type device struct {
	name string
	mem  *vfs.Mem
	disk *Store
	// Of the connection from the owner:
	feed    *Feed
	applier *Applier
	acks    []Position
	broken  bool // a fault was injected and may have struck
}

// model is what the guest was told, and what the disk was at each position.
type model struct {
	t       *testing.T
	r       *rand.Rand
	dev     []*device
	owner   int
	small   bool
	tight   bool
	term    uint64
	stamp   uint64
	now     []byte
	maybe   [][]uint64 // what a sector may be after a crash of the owner, beside its durable content
	durable []byte
	next    uint64 // the term as which the owner was about to go on when it died, or 0
	history map[Position][]byte
	ends    []Position // what the directory knows
	log     []string
	cuts    []*modelCut
	clock   time.Time // what the disks' rules about time see
}

func (m *model) note(format string, args ...any) { m.log = append(m.log, fmt.Sprintf(format, args...)) }

func (m *model) fatal(format string, args ...any) {
	m.t.Helper()
	for _, l := range m.log[max(0, len(m.log)-40):] {
		m.t.Log(l)
	}
	m.t.Fatalf(format, args...)
}

// TestModel drives three devices at random, with power cuts, killed processes and lost connections, and checks what
// doc.go promises after each.
func TestModel(t *testing.T) {
	if *modelSeed != 0 {
		runModel(t, *modelSeed)
		return
	}
	for seed := range uint64(*modelRuns) {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) { runModel(t, seed+1) })
	}
}

func runModel(t *testing.T, seed uint64) {
	m := &model{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), term: 1, small: seed%4 != 0, tight: seed%3 == 0, clock: time.Unix(1e9, 0),
		now: make([]byte, modelSize), durable: make([]byte, modelSize),
		maybe: make([][]uint64, modelSize/modelSector), history: map[Position][]byte{},
	}
	size := int64(modelDisk)
	if seed%2 == 0 {
		size += 5 * Block // the last unit with a hash is short
	}
	for i := range 3 {
		d := &device{name: fmt.Sprintf("dev%d", i), mem: vfs.NewMem()}
		var err error
		if i == 0 {
			d.disk, err = Create("", ID{1}, size, m.options(d.mem))
		} else {
			d.disk, err = CreateReplica("", ID{1}, size, m.options(d.mem))
		}
		must(t, err)
		m.dev = append(m.dev, d)
	}
	defer func() {
		for _, d := range m.dev {
			d.mem.FailAt(0, nil, false)
			_ = d.disk.Close()
		}
	}()
	must(t, m.own().disk.Activate(m.term))
	for range modelSteps {
		m.step()
		m.record()
	}
	m.converge()
}

// options let most seeds catch up by copies that have several checkpoints.
func (m *model) options(mem *vfs.Mem) Options {
	o := quiet(mem)
	o.MirrorEvery = 1 // barriers are left out, and nothing waits
	if m.small {
		o.attachBelow, o.checkpointEvery = 8<<10, 24<<10
	}
	if m.tight {
		o.QueueBytes = 24 << 10 // so that peers fall behind
	}
	o.now = func() time.Time { return m.clock }
	return o
}

func (m *model) own() *device { return m.dev[m.owner] }

func (m *model) other() *device { return m.dev[(m.owner+1+m.r.IntN(len(m.dev)-1))%len(m.dev)] }

func (m *model) step() {
	m.clock = m.clock.Add(time.Duration(m.r.Int64N(int64(2 * touchEvery))))
	d := m.dev[m.r.IntN(len(m.dev))]
	if m.r.IntN(25) == 0 {
		n := 1 + m.r.IntN(6)
		m.note("power of %s fails at call %d", d.name, n)
		d.mem.FailAt(n, vfs.ErrGone, true)
		d.broken = true
	}
	if m.r.IntN(8) == 0 {
		m.cutStep(d)
	}
	if m.r.IntN(8) == 0 {
		m.recordHashes(m.dev[m.r.IntN(len(m.dev))])
	}
	switch x := m.r.IntN(100); {
	case x < 30:
		m.write()
	case x < 38:
		m.flush()
	case x < 70:
		m.pump(m.other(), 1+m.r.IntN(20))
	case x < 76:
		m.disconnect(m.other())
	case x < 88:
		m.connect(m.other())
	case x < 89:
		m.grow(d)
	case x < 91:
		m.save()
	case x < 93:
		m.restart(d)
	case x < 95:
		m.handoff()
	case x < 96:
		m.fork()
	case x < 97:
		m.renew()
	case x < 98:
		m.crash(d)
	default:
		m.merge(d)
	}
	for _, d := range m.dev {
		if d.broken && d.mem.Calls() > 0 && m.r.IntN(2) == 0 {
			m.crash(d)
		}
	}
}

// ok says whether err is nil; an error that no injected fault explains ends the test.
func (m *model) ok(what string, err error, involved ...*device) bool {
	m.t.Helper()
	if err == nil {
		return true
	}
	for _, d := range involved {
		if d.broken && (errors.Is(err, vfs.ErrGone) || errors.Is(err, ErrFailed)) {
			m.note("%s: %v", what, err)
			m.crash(d)
			return false
		}
	}
	m.fatal("%s: %v", what, err)
	return false
}

// record notes what the disk is at the owner's position, and checks all complete replicas.
func (m *model) record() {
	m.t.Helper()
	d := m.own().disk
	if i := d.Info(); !i.Unflushed && i.Err == nil {
		old, ok := m.history[i.Position]
		if ok && !bytes.Equal(old, m.now) {
			m.fatal("position %s stands for two contents", i.Position)
		}
		if i.Position.Term == m.term && !ok {
			m.history[i.Position] = bytes.Clone(m.now)
		}
		copy(m.durable, m.now)
		clear(m.maybe)
	}
	for n, d := range m.dev {
		if n != m.owner {
			m.check(d)
		}
	}
}

// check compares a replica with what the owner was at the replica's position.
func (m *model) check(d *device) {
	m.t.Helper()
	st := d.disk.ReplicaState()
	if !st.Complete {
		return
	}
	got, err := look(d.disk)
	if err != nil {
		m.ok("read "+d.name, err, d)
		return
	}
	want, ok := m.history[st.Position]
	if !ok {
		m.fatal("%s is at %s, which never was", d.name, st.Position)
	}
	if !bytes.Equal(got, want) {
		m.fatal("%s isn't what the disk was at %s: %s", d.name, st.Position, differ(got, want))
	}
}

func differ(a, b []byte) string {
	for i := 0; i < len(a); i += modelSector {
		if !bytes.Equal(a[i:i+modelSector], b[i:i+modelSector]) {
			return fmt.Sprintf("sector %d (block %d) is %d, not %d", i/modelSector, i/Block, binary.LittleEndian.Uint64(a[i:]), binary.LittleEndian.Uint64(b[i:]))
		}
	}
	return "equal"
}

// crash kills a device's process or cuts its power, then opens its disk again.
func (m *model) crash(d *device) {
	m.t.Helper()
	loss := vfs.Loss(m.r.IntN(3))
	m.note("crash of %s, loss %d", d.name, loss)
	d.mem = d.mem.Crash(loss, m.r.Uint64())
	_ = d.disk.Close()
	m.harm(d)
	m.back(d, loss == vfs.LoseNothing && !d.broken)
}

// restart closes and opens a disk in good order.
func (m *model) restart(d *device) {
	m.note("restart of %s", d.name)
	if !m.ok("close", d.disk.Close(), d) {
		return
	}
	m.back(d, true)
}

func (m *model) back(d *device, all bool) {
	m.t.Helper()
	d.broken = false
	d.mem.FailAt(0, nil, false)
	for _, o := range m.dev {
		if o == d || d == m.own() {
			if o.feed != nil {
				o.feed.Close()
			}
			if o.applier != nil && o != d {
				m.ok("close applier", o.applier.Close(), o)
			}
			o.feed, o.applier, o.acks = nil, nil, nil
		}
	}
	var err error
	if d.disk, err = Open("", m.options(d.mem)); err != nil {
		m.fatal("open %s: %v", d.name, err)
	}
	if d != m.own() {
		m.check(d)
		if err := d.disk.WriteAt(make([]byte, Block), 0, false); !errors.Is(err, ErrInactive) {
			m.fatal("write to a replica: %v", err)
		}
		return
	}
	got, err := look(d.disk)
	must(m.t, err)
	for i := range m.maybe {
		s := got[i*modelSector : (i+1)*modelSector]
		if bytes.Equal(s, m.now[i*modelSector:(i+1)*modelSector]) {
			continue
		}
		if all {
			m.fatal("sector %d (block %d) is %d after a killed process", i, i*modelSector/Block, binary.LittleEndian.Uint64(s))
		}
		id := binary.LittleEndian.Uint64(s)
		good := bytes.Equal(s, m.durable[i*modelSector:(i+1)*modelSector])
		for _, v := range m.maybe[i] {
			good = good || v == id
		}
		if !good {
			m.fatal("sector %d (block %d) is %d, durable was %d, may be %v", i, i*modelSector/Block, id,
				binary.LittleEndian.Uint64(m.durable[i*modelSector:]), m.maybe[i])
		}
	}
	copy(m.now, got)
	copy(m.durable, got)
	clear(m.maybe)
	if d.disk.Info().Given >= m.term {
		return // a hand-off was cut short; it goes on
	}
	if i := d.disk.Info(); m.next > 0 && i.Term == m.next {
		m.term = m.next
	}
	m.next = 0
	if err := d.disk.Activate(m.term); err != nil {
		m.fatal("activate after a restart: %v", err)
	}
	m.record()
}

// converge connects all and compares byte for byte.
func (m *model) converge() {
	m.t.Helper()
	for _, d := range m.dev {
		d.mem.FailAt(0, nil, false)
		if d.broken {
			m.crash(d)
		}
	}
	m.note("converge")
	for i, d := range m.dev {
		if i == m.owner {
			continue
		}
		m.disconnect(d)
		m.connect(d)
	}
	m.flush()
	for i, d := range m.dev {
		if i == m.owner {
			continue
		}
		for n := 0; d.feed == nil || !d.feed.Progress().Complete; n++ {
			if n > 100 {
				m.fatal("%s never gets complete: %+v", d.name, d.disk.Info())
			}
			m.connect(d) // it may have left to merge its layers
			m.pump(d, 100)
			m.settleAcks(d)
			m.clock = m.clock.Add(touchEvery)
		}
	}
	m.flush()
	for i, d := range m.dev {
		if i == m.owner {
			continue
		}
		m.pump(d, 100)
		m.check(d)
		got, want := content(m.t, d.disk), content(m.t, m.own().disk)
		got, want = append(got, make([]byte, max(0, len(want)-len(got)))...), append(want, make([]byte, max(0, len(got)-len(want)))...)
		if !bytes.Equal(got, want) {
			m.fatal("%s differs at the end: %s", d.name, differ(got, want))
		}
	}
}
