package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync/atomic"
	"syscall"
	"testing"
)

// backends runs a test against the ways a Backend may be served.
func backends(t *testing.T, size int64, f func(t *testing.T, c *client, d *memDisk, s *running)) {
	for _, prompt := range []bool{false, true} {
		for _, structured := range []bool{false, true} {
			t.Run(fmt.Sprintf("prompt=%v,structured=%v", prompt, structured), func(t *testing.T) {
				d := newMemDisk(size)
				var b Backend = d
				if prompt {
					b = promptDisk{d}
				}
				s := serve(t, &Server{Backend: b})
				f(t, connect(t, s.path, "", structured), d, s)
				s.stop()
				if err := d.breach(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func TestCommands(t *testing.T) {
	backends(t, 1<<20, func(t *testing.T, c *client, d *memDisk, s *running) {
		c.must(cmdWrite, 0, 4095, 3, []byte("abc"))
		c.must(cmdWrite, cmdFlagFUA, 1<<20-8192, 8192, fill(8192, 7))
		if d.syncs() != 1 {
			t.Errorf("FUA write: %d times durable", d.syncs())
		}
		if got := c.must(cmdRead, 0, 4094, 5, nil); string(got) != "\x00abc\x00" {
			t.Errorf("read %q", got)
		}
		c.must(cmdFlush, 0, 0, 0, nil)
		if d.syncs() != 2 {
			t.Errorf("flush: %d times durable", d.syncs())
		}
		c.must(cmdTrim, cmdFlagFUA, 0, 8192, nil)
		c.must(cmdWriteZeroes, cmdFlagNoHole, 1<<20-8192, 4096, nil)
		c.must(cmdCache, 0, 0, 1<<20, nil)
		want := append(make([]byte, 4096), fill(4096, 7)...)
		if got := c.must(cmdRead, 0, 1<<20-8192, 8192, nil); !bytes.Equal(got, want) {
			t.Error("wrong data after zeroing")
		}
		if d.isUsed(0) || d.isUsed(1) || !d.isUsed(255) || !d.isUsed(254) {
			t.Error("wrong blocks were trimmed")
		}
		for _, cmd := range []uint16{cmdRead, cmdWrite, cmdTrim, cmdWriteZeroes, cmdCache} {
			if got := c.must(cmd, 0, 1<<20, 0, nil); len(got) != 0 {
				t.Errorf("command %d of no length gave %x", cmd, got)
			}
		}
		st := s.Stats()
		if st.Reads != 3 || st.Writes != 3 || st.Flushes != 1 || st.Trims != 2 || st.Zeroes != 2 || st.Caches != 2 ||
			st.FUA != 2 || st.ReadBytes != 5+8192 || st.WriteBytes != 3+8192 || st.Errors != 0 || st.Conns != 1 || st.Accepted != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestLargest(t *testing.T) {
	backends(t, maxData+4096, func(t *testing.T, c *client, d *memDisk, _ *running) {
		p := make([]byte, maxData)
		for i := range p {
			p[i] = byte(i ^ i>>8 ^ i>>16)
		}
		c.must(cmdWrite, 0, 4096, maxData, p)
		if got := c.must(cmdRead, 0, 4096, maxData, nil); !bytes.Equal(got, p) {
			t.Error("32 MiB come back different")
		}
	})
}

// Every refusal leaves the connection usable and the disk untouched.
func TestRefused(t *testing.T) {
	const size = 1 << 20
	backends(t, size, func(t *testing.T, c *client, d *memDisk, _ *running) {
		d.setHook(func(op string, off, n int64) error {
			t.Errorf("%s at %d+%d reached the backend", op, off, n)
			return nil
		})
		df := uint32(nbdEINVAL)
		if c.structured {
			df = nbdOK
		}
		tests := []struct {
			cmd, flags uint16
			off        uint64
			n          uint32
			want       uint32
		}{
			{cmdRead, 0, size, 1, nbdEINVAL},
			{cmdRead, 0, size - 1, 2, nbdEINVAL},
			{cmdRead, 0, math.MaxUint64, 1, nbdEINVAL},
			{cmdRead, 0, math.MaxInt64, math.MaxUint32, nbdEINVAL},
			{cmdRead, 0, 0, maxData + 1, nbdEINVAL},
			{cmdRead, 0, 0, math.MaxUint32, nbdEINVAL},
			{cmdRead, cmdFlagNoHole, 0, 1, nbdEINVAL},
			{cmdRead, cmdFlagDF, 0, 0, df},
			{cmdWrite, 0, size, 1, nbdENOSPC},
			{cmdWrite, 0, size - 1, 4096, nbdENOSPC},
			{cmdWrite, 0, math.MaxUint64, 1, nbdENOSPC},
			{cmdWrite, 0, 0, maxData + 1, nbdEINVAL},
			{cmdWrite, cmdFlagDF, 0, 4096, nbdEINVAL},
			{cmdWrite, 1 << 5, 0, 10, nbdEINVAL},
			{cmdFlush, 0, 1, 0, nbdEINVAL},
			{cmdFlush, 0, 0, 1, nbdEINVAL},
			{cmdFlush, cmdFlagDF, 0, 0, nbdEINVAL},
			{cmdTrim, 0, size - 1, 2, nbdEINVAL},
			{cmdTrim, 0, 0, math.MaxUint32, nbdEINVAL},
			{cmdTrim, cmdFlagNoHole, 0, 1, nbdEINVAL},
			{cmdWriteZeroes, 0, size - 1, 2, nbdENOSPC},
			{cmdWriteZeroes, 0, 0, math.MaxUint32, nbdENOSPC},
			{cmdWriteZeroes, 1 << 4, 0, 1, nbdEINVAL}, // fast zero
			{cmdCache, 0, size, 1, nbdEINVAL},
			{cmdBlockStatus, 0, 0, 0, nbdEINVAL},
			{cmdBlockStatus, 0, size, 1, nbdEINVAL},
			{cmdBlockStatus, cmdFlagDF, 0, 1, nbdEINVAL},
			{8, 0, 0, 0, nbdEINVAL}, // resize
			{0xffff, 0xffff, 1, 1, nbdEINVAL},
		}
		for _, test := range tests {
			var data []byte
			if test.cmd == cmdWrite {
				data = make([]byte, test.n)
			}
			if a := c.do(test.cmd, test.flags, test.off, test.n, data); a.errno != test.want {
				t.Errorf("%+v: error %d", test, a.errno)
			}
		}
	})
}

func TestRefusedWithoutAbility(t *testing.T) {
	d := newMemDisk(4096)
	s := serve(t, &Server{Backend: &plainDisk{d}})
	c := connect(t, s.path, "", true)
	if c.flags&flagCache != 0 {
		t.Error("cache is offered")
	}
	for _, cmd := range []uint16{cmdCache, cmdBlockStatus} {
		if a := c.do(cmd, 0, 0, 1, nil); a.errno != nbdEINVAL {
			t.Errorf("command %d: error %d", cmd, a.errno)
		}
	}
}

func TestBackendErrors(t *testing.T) {
	tests := []struct {
		err  error
		want uint32
	}{
		{syscall.ENOSPC, nbdENOSPC},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, nbdENOSPC},
		{syscall.EDQUOT, nbdENOSPC},
		{syscall.EINVAL, nbdEINVAL},
		{syscall.EPERM, nbdEPERM},
		{syscall.EROFS, nbdEPERM},
		{syscall.ENOMEM, nbdENOMEM},
		{errors.ErrUnsupported, nbdENOTSUP},
		{syscall.EIO, nbdEIO},
		{errors.New("x"), nbdEIO},
	}
	backends(t, 1<<20, func(t *testing.T, c *client, d *memDisk, s *running) {
		var fail atomic.Value
		d.setHook(func(string, int64, int64) error { return fmt.Errorf("disk: %w", fail.Load().(*holder).err) })
		for _, test := range tests {
			fail.Store(&holder{test.err})
			cmds := []uint16{cmdRead, cmdWrite, cmdTrim, cmdWriteZeroes, cmdCache}
			if c.structured {
				cmds = append(cmds, cmdBlockStatus)
			}
			for _, cmd := range cmds {
				var data []byte
				if cmd == cmdWrite {
					data = make([]byte, 4096)
				}
				if a := c.do(cmd, 0, 0, 4096, data); a.errno != test.want || len(a.data) != 0 {
					t.Errorf("command %d, %v: error %d", cmd, test.err, a.errno)
				}
			}
			if a := c.do(cmdFlush, 0, 0, 0, nil); a.errno != test.want {
				t.Errorf("flush, %v: error %d", test.err, a.errno)
			}
		}
		if s.Stats().Errors == 0 || s.Stats().Writes != 0 {
			t.Errorf("stats %+v", s.Stats())
		}
	})
}

type holder struct{ err error }

func TestBlockStatus(t *testing.T) {
	d := newMemDisk(16 * 4096)
	s := serve(t, &Server{Backend: d})
	c := connect(t, s.path, "", true)
	c.must(cmdWrite, 0, 2*4096, 3*4096, fill(3*4096, 1))
	const hole = stateHole | stateZero
	for _, test := range []struct {
		flags uint16
		off   uint64
		n     uint32
		want  []uint32
	}{
		{0, 0, 16 * 4096, []uint32{2 * 4096, hole, 3 * 4096, 0, 11 * 4096, hole}},
		{cmdFlagReqOne, 0, 16 * 4096, []uint32{2 * 4096, hole}},
		{cmdFlagReqOne, 2*4096 + 1, 16*4096 - 2*4096 - 1, []uint32{3*4096 - 1, 0}},
		{0, 4*4096 + 5, 4096, []uint32{4091, 0, 5, hole}},
		{0, 7, 1, []uint32{1, hole}},
	} {
		p := c.must(cmdBlockStatus, test.flags, test.off, test.n, nil)
		var got []uint32
		for ; len(p) >= 4; p = p[4:] {
			got = append(got, be32(p))
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// extentDisk answers whatever a test wants it to.
type extentDisk struct {
	*memDisk
	extents []Extent
}

func (d *extentDisk) BlockStatus(int64, int64) ([]Extent, error) { return d.extents, nil }

func TestBlockStatusOfOddBackends(t *testing.T) {
	many := make([]Extent, 3*maxExtents)
	for i := range many {
		many[i] = Extent{Len: 1, Zero: i%2 == 0}
	}
	for _, test := range []struct {
		name    string
		extents []Extent
		errno   uint32
		length  int
	}{
		{"none", nil, nbdEIO, 0},
		{"negative", []Extent{{Len: -1}}, nbdEIO, 0},
		{"beyond the request", []Extent{{Len: math.MaxInt64}, {Len: 5}}, nbdOK, 8},
		{"then negative", []Extent{{Len: 5}, {Len: math.MinInt64, Zero: true}}, nbdOK, 8},
		{"too many", many, nbdOK, 8 * maxExtents},
	} {
		s := serve(t, &Server{Backend: &extentDisk{newMemDisk(1 << 20), test.extents}})
		c := connect(t, s.path, "", true)
		a := c.do(cmdBlockStatus, 0, 0, 1<<20, nil)
		if a.errno != test.errno || len(a.data) != test.length {
			t.Errorf("%s: error %d, %d bytes", test.name, a.errno, len(a.data))
		}
		var sum int64
		for p := a.data; len(p) >= 8; p = p[8:] {
			sum += int64(be32(p))
		}
		if sum > 1<<20 {
			t.Errorf("%s: extents of %d bytes", test.name, sum)
		}
		s.stop()
	}
}
