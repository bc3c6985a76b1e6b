package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"tagalong.org/tagalong/vmdisk/reclog"
	"tagalong.org/tagalong/vmdisk/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(m *vfs.Mem, kind Kind) Config {
	return Config{FS: m, Name: "layer-1", Disk: [16]byte{7}, Blocks: 40, Kind: kind}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fill(x byte) []byte { return bytes.Repeat([]byte{x}, Block) }

// model is what a layer is known to have. Content is a stamp for each 512 bytes.
type model struct {
	t    *testing.T
	r    *rand.Rand
	mem  *vfs.Mem
	l    *Layer
	kind Kind
	log  []string
	// now is the content of what was written, maybe the stamps that each sector had since the last sync.
	now     []uint64
	maybe   [][]uint64
	present map[int64]bool
	durable map[int64]bool
	stamp   uint64
}

const sectors = Block / 512

func (m *model) note(f string, a ...any) { m.log = append(m.log, fmt.Sprintf(f, a...)) }

func (m *model) fatal(f string, a ...any) {
	m.t.Helper()
	for _, s := range m.log {
		m.t.Log(s)
	}
	m.t.Fatalf(f, a...)
}

// write writes a range of sectors; parts of blocks only where they are present.
func (m *model) write() error {
	m.stamp++
	a := m.r.Int64N(40 * sectors)
	b := min(40*sectors, a+1+m.r.Int64N(3*sectors))
	if !m.present[a/sectors] {
		a = a / sectors * sectors
	}
	if !m.present[(b-1)/sectors] {
		b = (b + sectors - 1) / sectors * sectors
	}
	stamp := m.stamp
	zero := m.r.IntN(3) == 0
	var err error
	if zero {
		stamp = 0
	}
	m.note("write %d to sectors %d-%d", stamp, a, b)
	for s := a; s < b; s++ {
		m.maybe[s] = append(m.maybe[s], stamp)
	}
	if zero {
		err = m.l.ZeroAt(a*512, (b-a)*512, m.r.IntN(2) == 0)
	} else {
		p := make([]byte, (b-a)*512)
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], stamp)
		}
		err = m.l.WriteAt(p, a*512)
	}
	if err != nil {
		return err
	}
	for s := a; s < b; s++ {
		m.now[s] = stamp
		m.present[s/sectors] = true
	}
	return nil
}

func (m *model) sync() error {
	m.note("sync")
	if err := m.l.Sync(); err != nil {
		return err
	}
	for x := range m.present {
		m.durable[x] = true
	}
	for s := range m.maybe {
		m.maybe[s] = []uint64{m.now[s]}
	}
	return nil
}

// crash ends the process, or cuts the power, and compares what is found. After a failed call anything that was
// written since the last sync may be there, or not.
func (m *model) crash(failed bool) {
	m.t.Helper()
	loss := vfs.Loss(m.r.IntN(3))
	m.note("crash, loss %d", loss)
	m.mem.FailAt(0, nil, false)
	m.mem = m.mem.Crash(loss, m.r.Uint64())
	_ = m.l.Close()
	var err error
	if m.l, err = Open(config(m.mem, m.kind)); err != nil {
		m.fatal("open: %v", err)
	}
	p := make([]byte, Block)
	for x := range int64(40) {
		has := m.l.Has(x)
		switch {
		case !has && m.durable[x]:
			m.fatal("block %d is gone", x)
		case !has && m.kind == Written && loss == vfs.LoseNothing && !failed && m.present[x]:
			m.fatal("block %d was written and is gone", x)
		case has && !m.durable[x] && m.kind != Written && !failed:
			m.fatal("block %d counts although it was never synced", x)
		case !has:
			delete(m.present, x)
			continue
		}
		m.present[x] = true
		if m.kind != Written {
			m.durable[x] = true
		}
		must(m.t, m.l.ReadAt(p, x*Block))
		for i := range int64(sectors) {
			s, got := x*sectors+i, binary.LittleEndian.Uint64(p[i*512:])
			good := got == m.now[s]
			if loss != vfs.LoseNothing || failed {
				for _, v := range m.maybe[s] {
					good = good || v == got
				}
			}
			if !good {
				m.fatal("sector %d of block %d is %d, not %d nor one of %v", i, x, got, m.now[s], m.maybe[s])
			}
			m.now[s] = got
		}
	}
	for s := range m.maybe {
		m.maybe[s] = append(m.maybe[s], m.now[s])
	}
	if n := m.l.Present(); n != int64(len(m.present)) {
		m.fatal("%d blocks present, want %d", n, len(m.present))
	}
}

// Whatever happens and whichever call fails: what was synced is there, what counts has the content that was written, and a
// layer of kind Written keeps every write when only the process dies.
func TestCrashes(t *testing.T) {
	for seed := range uint64(500) {
		m := &model{t: t, r: rand.New(rand.NewPCG(seed, 9)), mem: vfs.NewMem(), kind: Incoming, now: make([]uint64, 40*sectors), maybe: make([][]uint64, 40*sectors), present: map[int64]bool{}, durable: map[int64]bool{}}
		if seed%2 == 0 {
			m.kind = Written
		}
		m.note("seed %d, kind %d", seed, m.kind)
		l, err := Create(config(m.mem, m.kind))
		must(t, err)
		m.l = l
		for range 40 {
			if m.r.IntN(12) == 0 {
				why := []error{syscall.ENOSPC, syscall.EIO}[m.r.IntN(2)]
				m.mem.FailAt(1+m.r.IntN(4), why, m.r.IntN(2) == 0)
			}
			var err error
			switch m.r.IntN(8) {
			case 0:
				m.crash(false)
			case 1, 2:
				if err = m.sync(); errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrFailed) {
					m.note("%v", err)
					m.mem.FailAt(0, nil, false)
					err = m.sync() // there is room again
				}
			case 3:
				if m.r.IntN(4) == 0 {
					m.l.limit = 0 // compact next time
				}
			default:
				err = m.write()
			}
			if err != nil {
				if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) {
					m.fatal("%v", err)
				}
				m.note("%v", err)
				m.crash(true)
			}
		}
		_ = m.l.Close()
	}
}

// No creation that fails or is cut short leaves a layer that opens and isn't empty, or files that stay.
func TestCreateFails(t *testing.T) {
	for n := 1; ; n++ {
		m := vfs.NewMem()
		m.FailAt(n, syscall.ENOSPC, false)
		l, err := Create(config(m, Incoming))
		if err == nil {
			must(t, l.Close())
			if m.Calls() < n {
				break
			}
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		names, err := m.List()
		must(t, err)
		for _, f := range names {
			name, ok := Files(f)
			if !ok || name != "layer-1" {
				t.Fatalf("%s is nobody's", f)
			}
		}
	}
	m := vfs.NewMem()
	_, err := Create(config(m, Incoming))
	must(t, err)
	if _, err := Create(config(m, Incoming)); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second create: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	m := vfs.NewMem()
	l, err := Create(config(m, Incoming))
	must(t, err)
	if err := l.WriteAt(make([]byte, 512), 3*Block); !errors.Is(err, ErrAbsent) {
		t.Fatalf("part of an absent block: %v", err)
	}
	if err := l.ZeroAt(3*Block, Block+1, false); !errors.Is(err, ErrAbsent) {
		t.Fatalf("part of an absent block: %v", err)
	}
	for x := int64(0); x < 40; x += 2 {
		must(t, l.WriteAt(fill(byte(x+1)), x*Block))
		must(t, l.Sync())
	}
	must(t, l.Close())
	must(t, l.Close())
	if err := l.WriteAt(fill(1), 0); !errors.Is(err, ErrFailed) {
		t.Fatalf("write after close: %v", err)
	}
	other := config(m, Incoming)
	other.Disk[3] = 1
	if _, err := Open(other); !errors.Is(err, ErrForeign) {
		t.Fatalf("another disk: %v", err)
	}
	if _, err := Open(config(m, Fetched)); !errors.Is(err, ErrForeign) {
		t.Fatalf("another kind: %v", err)
	}
	f, err := m.Open("layer-1.map")
	must(t, err)
	size, err := f.Size()
	must(t, err)
	whole := make([]byte, size)
	_, err = f.ReadAt(whole, 0)
	must(t, err)
	for at := range size - 60 { // the last record may be torn
		b := bytes.Clone(whole)
		b[at] ^= 0x10
		_, err = f.WriteAt(b, 0)
		must(t, err)
		want := ErrCorrupt
		if at >= 8 && at < 12 {
			want = ErrVersion
		}
		if _, err := Open(config(m, Incoming)); !errors.Is(err, want) {
			t.Fatalf("byte %d of %d is wrong: %v", at, size, err)
		}
	}
	_, err = f.WriteAt(whole, 0)
	must(t, err)
	must(t, f.Truncate(size-1))
	l, err = Open(config(m, Incoming))
	must(t, err)
	if l.Present() != 19 || l.Has(38) || !l.Has(36) {
		t.Fatalf("%d blocks after a torn end", l.Present())
	}
	must(t, l.Remove())
	if names, _ := m.List(); len(names) > 0 {
		t.Fatalf("%v are left", names)
	}
	if _, err := Open(config(m, Incoming)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("open of nothing: %v", err)
	}
}

// The map stays short, and memory small, however often what is written.
func TestCompaction(t *testing.T) {
	m := vfs.NewMem()
	c := config(m, Written)
	c.Blocks = 1 << 32 // 16 TiB
	l, err := Create(c)
	must(t, err)
	l.limit = 4096
	for i := range int64(300) {
		must(t, l.WriteAt(fill(byte(i)), (i%7)*Block))
		must(t, l.ZeroAt((1<<31+i)*Block, Block, false))
		if i%3 == 0 {
			must(t, l.Sync())
			l.limit = min(l.limit, 4096)
		}
	}
	if l.size > 8192 {
		t.Fatalf("map of %d bytes", l.size)
	}
	must(t, l.Close())
	l, err = Open(c)
	must(t, err)
	if l.Present() != 307 {
		t.Fatalf("%d blocks", l.Present())
	}
	must(t, l.Close())
}

func FuzzMap(f *testing.F) {
	m := vfs.NewMem()
	l, err := Create(config(m, Written))
	must(f, err)
	for i := range int64(4) {
		must(f, l.WriteAt(fill(byte(i)), i*2*Block))
		must(f, l.ZeroAt((30+i)*Block, Block, false))
		if i == 1 {
			must(f, l.Sync())
		}
	}
	log, err := m.Open("layer-1.map")
	must(f, err)
	b := make([]byte, l.size)
	_, err = log.ReadAt(b, 0)
	must(f, err)
	f.Add(b)
	f.Add(b[:mapHeader])
	f.Add([]byte{})
	must(f, l.Close())
	f.Fuzz(func(t *testing.T, b []byte) {
		m := vfs.NewMem()
		data, err := m.Create("layer-1.data")
		must(t, err)
		must(t, data.Truncate(40*Block))
		log, err := m.Create("layer-1.map")
		must(t, err)
		_, err = log.WriteAt(b, 0)
		must(t, err)
		l, err := Open(config(m, Written))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrForeign) {
				t.Fatal(err)
			}
			return
		}
		must(t, l.WriteAt(fill(1), 39*Block))
		must(t, l.Sync())
		n := l.Present()
		must(t, l.Close())
		l, err = Open(config(m, Written))
		must(t, err)
		if l.Present() != n {
			t.Fatalf("%d blocks, were %d", l.Present(), n)
		}
		must(t, l.Close())
	})
}

// FuzzMapRecord goes behind the checksums.
func FuzzMapRecord(f *testing.F) {
	put := append(make([]byte, 8), make([]byte, 3*noteSum)...)
	f.Add(byte(recPresent), []byte{0}, byte(recPut), put)
	f.Add(byte(recPut), put, byte(recZero), binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 38), 2))
	f.Add(byte(recZero), bytes.Repeat([]byte{0xff}, 16), byte(9), []byte{})
	f.Fuzz(func(t *testing.T, kind1 byte, body1 []byte, kind2 byte, body2 []byte) {
		if len(body1) > reclog.MaxBody || len(body2) > reclog.MaxBody {
			return
		}
		m := vfs.NewMem()
		l, err := Create(config(m, Written))
		must(t, err)
		before := l.size
		b := reclog.Append(nil, l.sum, kind1, body1, l.seq+1, 0)
		b = reclog.Append(b, l.sum, kind2, body2, l.seq+2, 0)
		must(t, l.Close())
		log, err := m.Open("layer-1.map")
		must(t, err)
		_, err = log.WriteAt(b, before)
		must(t, err)
		must(t, log.Close())
		l, err = Open(config(m, Written))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		n := l.Present()
		if n > 40 {
			t.Fatalf("%d blocks of 40", n)
		}
		must(t, l.Close())
		l, err = Open(config(m, Written))
		must(t, err)
		if l.Present() != n {
			t.Fatalf("%d blocks, were %d", l.Present(), n)
		}
		must(t, l.Close())
	})
}
