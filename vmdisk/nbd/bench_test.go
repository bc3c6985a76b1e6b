package nbd

import (
	"encoding/binary"
	"io"
	"testing"
)

// nullDisk is a prompt disk that does nothing: what is left is the server.
type nullDisk struct{ size int64 }

func (d *nullDisk) Size() int64                       { return d.size }
func (*nullDisk) ReadAt([]byte, int64) error          { return nil }
func (*nullDisk) WriteAt([]byte, int64, bool) error   { return nil }
func (*nullDisk) Flush() error                        { return nil }
func (*nullDisk) Trim(int64, int64, bool) error       { return nil }
func (*nullDisk) Zero(int64, int64, bool, bool) error { return nil }
func (*nullDisk) Prompt(int64, int64, bool) bool      { return true }

// slowDisk is a nullDisk whose requests all go through the workers.
type slowDisk struct{ nullDisk }

func (*slowDisk) Prompt(int64, int64, bool) bool { return false }

// BenchmarkRequests shows what a request costs the server, client included, and that none allocates once all is warm.
func BenchmarkRequests(b *testing.B) {
	for _, disk := range []struct {
		name string
		Backend
	}{{"inline", &nullDisk{1 << 30}}, {"workers", &slowDisk{nullDisk{1 << 30}}}} {
		for _, c := range []struct {
			name string
			cmd  uint16
			n    uint32
		}{{"read4K", cmdRead, 4 << 10}, {"write4K", cmdWrite, 4 << 10}, {"read64K", cmdRead, 64 << 10}, {"write64K", cmdWrite, 64 << 10}, {"read1M", cmdRead, 1 << 20}, {"write1M", cmdWrite, 1 << 20}} {
			b.Run(disk.name+"/"+c.name, func(b *testing.B) { benchRequests(b, disk.Backend, c.cmd, c.n) })
		}
	}
}

// benchRequests sends requests at depth 8, or 1 if they are long.
func benchRequests(b *testing.B, disk Backend, cmd uint16, n uint32) {
	depth := 8
	if n > 64<<10 {
		depth = 1
	}
	c := connect(b, serve(b, &Server{Backend: disk}).path, "", true)
	var sent []byte
	for i := range depth {
		sent = append(sent, requestBytes(cmd, 0, uint64(i), uint64(i)*uint64(n), n)...)
		if cmd == cmdWrite {
			sent = append(sent, make([]byte, n)...)
		}
	}
	answer := simpleSize
	if cmd == cmdRead {
		answer = chunkSize + 8 + int(n)
	}
	got := make([]byte, depth*answer)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += depth {
		if _, err := c.nc.Write(sent); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.in, got); err != nil {
			b.Fatal(err)
		}
		if m := binary.BigEndian.Uint32(got); m != magicStructured && m != magicSimple {
			b.Fatalf("answer begins with %#x", m)
		}
	}
}
