package compare_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func frame(kind byte, numbers ...uint32) []byte {
	b := []byte{kind}
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func helloBytes(t testing.TB, h compare.Hello) []byte {
	var b bytes.Buffer
	if err := wire.WriteJSON(&b, h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzServe feeds a hostile owner's questions to the replica.
func FuzzServe(f *testing.F) {
	h := hello(10 << 20)
	h.Version = compare.Version
	ok := helloBytes(f, h)
	cat := func(p ...[]byte) []byte { return bytes.Join(append([][]byte{ok}, p...), nil) }
	f.Add(cat(frame(1, 0, 3), frame(2, 1, 1)))
	f.Add(cat(frame(1, 2, 2)))
	f.Add(cat(frame(1, 0xffffffff, 0xffffffff)))
	f.Add(cat(frame(2, 0, 0)))
	f.Add(cat(bytes.Repeat(frame(1, 0, 3), 9)))
	f.Add(cat(frame(0x81, 1)))
	f.Add(cat(frame(3, 0, 3), frame(4, 0, 0, 1), frame(4, 2, 0xffffffff, 0xffffffff)))
	f.Add(cat(frame(4, 0, 0, 0)))
	f.Add(cat(frame(4, 3, 0, 1)))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := newDisk(10 << 20)
		d.put(3, 1)
		d.put(1500, 2)
		stats := &compare.Stats{}
		_ = compare.Serve(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, func(h compare.Hello) (compare.Reader, compare.State, error) {
			if h.Size != d.size {
				return nil, compare.State{}, errors.New("another disk")
			}
			return d, whole, nil
		}, stats)
		if n := stats.Read.Load(); n > 5*d.size {
			t.Fatalf("%d bytes were read of a disk of %d", n, d.size)
		}
	})
}

// FuzzRun feeds a hostile replica's answers to the owner.
func FuzzRun(f *testing.F) {
	state := func(s string) []byte {
		var b bytes.Buffer
		if err := wire.WriteFrame(&b, []byte(s)); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	good := state(`{"complete":true,"position":{"term":4,"barrier":9}}`)
	cat := func(p ...[]byte) []byte { return bytes.Join(append([][]byte{good}, p...), nil) }
	tags := make([]byte, 129)
	tags[0], tags[1] = 0x83, 8
	late := bytes.Clone(tags)
	late[128] = 0x80
	f.Add(cat(frame(0x81, 3)))
	f.Add(cat(frame(0x81, 4)))
	f.Add(cat(frame(0x81, 0)))
	f.Add(cat(append([]byte{0x82}, make([]byte, 16)...), frame(0x81, 2), tags, make([]byte, 16)))
	f.Add(cat(frame(0x81, 2), append([]byte{0x82}, make([]byte, 16)...), late, make([]byte, 32)))
	unlike := append([]byte{0x82}, make([]byte, 16)...)
	middle := append([]byte{0x85, 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 16)...)
	f.Add(cat(unlike, frame(0x81, 2), middle, tags, make([]byte, 16)))
	f.Add(cat(unlike, frame(0x81, 2), middle, late, make([]byte, 32)))
	f.Add(cat(unlike, frame(0x81, 2), []byte{0x85, 0x80, 0, 0, 0, 0, 0, 0, 0}, tags[:1], make([]byte, 128)))
	f.Add(cat(frame(0x81, 2), unlike, []byte{0x85, 0x80, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 16)))
	f.Add(cat([]byte{0x84, 0, 2, 'n', 'o'}))
	f.Add(cat([]byte{0x84, 0xff, 0xff}))
	f.Add(state(`{"refusal":{"code":"busy","text":"x"}}`))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := newDisk(10 << 20) // its Equal checks ranges
		d.put(3, 1)
		d.put(1500, 2)
		err := compare.Run(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, hello(d.size),
			func(compare.State) (compare.Disk, error) { return d, nil }, nil)
		// Without the key nobody can make up a sum or a tag.
		if d.equal[3] || d.equal[1500] {
			t.Fatal("a block with content was taken for equal")
		}
		if err == nil && len(d.equal) != 10<<20/compare.Block-2 {
			t.Fatalf("an orderly end with %d blocks equal", len(d.equal))
		}
	})
}

// The layout in the package comment, byte by byte: other versions of the program speak it.
func TestWireFormat(t *testing.T) {
	h := hello(10 << 20)
	h.Version = compare.Version
	in := bytes.Join([][]byte{helloBytes(t, h), frame(1, 0, 3), frame(2, 1, 2)}, nil)
	d := newDisk(10 << 20)
	d.put(3, 1)
	d.put(1500, 2)
	d.put(1502, 0) // written zeros
	out := &recorded{Input: wiretest.Input{Reader: bytes.NewReader(in)}}
	if err := compare.Serve(t.Context(), out, func(compare.Hello) (compare.Reader, compare.State, error) { return d, whole, nil }, nil); err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(out.out.Bytes())
	var st compare.State
	if err := wire.ReadJSON(r, wire.MaxMessage, &st); err != nil || st != whole {
		t.Fatalf("%+v: %v", st, err)
	}
	rest, _ := io.ReadAll(r)
	bits := make([]byte, 128)
	bits[(1500-1024)/8] = 1 << ((1500 - 1024) % 8)
	want := bytes.Join([][]byte{
		{0x82}, keyed(t, []byte{0, 0, 0, 3, 0, 0, 0, 1}, d.blocks[3]), {0x82}, keyed(t, []byte{0, 0, 1, 0xdc, 0, 0, 0, 1}, d.blocks[1500]), frame(0x81, 1),
		{0x83}, bits, keyed(t, d.blocks[1500]), frame(0x81, 1),
	}, nil)
	if !bytes.Equal(rest, want) {
		t.Fatalf("got\n%x, want\n%x", rest, want)
	}
}

// keyed is a sum or a tag under the key of a Hello that doesn't say one.
func keyed(t *testing.T, parts ...[]byte) []byte {
	t.Helper()
	h, err := blake3.NewKeyed(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = h.Write(bytes.Join(parts, nil))
	return h.Sum(nil)[:16]
}

// recorded keeps what was written.
type recorded struct {
	wiretest.Input
	out bytes.Buffer
}

func (r *recorded) Write(p []byte) (int, error) { return r.out.Write(p) }

// An owner may ask for each region a few times; who asks for more only makes the replica read.
func TestQuestionsAreBounded(t *testing.T) {
	h := hello(10 << 20)
	h.Version = compare.Version
	for asked, want := range map[int]error{4: nil, 5: compare.ErrProtocol} {
		in := append(helloBytes(t, h), bytes.Repeat(frame(1, 0, 3), asked)...)
		d := newDisk(10 << 20)
		err := compare.Serve(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, func(compare.Hello) (compare.Reader, compare.State, error) { return d, whole, nil }, nil)
		if !errors.Is(err, want) {
			t.Errorf("asked %d times: %v", asked, err)
		}
	}
}
