package mirror_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// strict is a Sink that fails the test when it is asked for what no disk could do.
type strict struct {
	t    *testing.T
	size int64
	last mirror.Position
}

func (s *strict) span(off, n int64) error {
	if off < 0 || n <= 0 || off%mirror.Block != 0 || n%mirror.Block != 0 || off > s.size-n {
		s.t.Fatalf("the disk of %d bytes was asked for %d at %d", s.size, n, off)
	}
	return nil
}

func (s *strict) Begin([16]byte) error            { return nil }
func (s *strict) Write(off int64, p []byte) error { return s.span(off, int64(len(p))) }
func (s *strict) Zero(off, n int64) error         { return s.span(off, n) }

func (s *strict) Checkpoint(p mirror.Position) error { return s.Barrier(p) }

func (s *strict) Barrier(p mirror.Position) error {
	if p.Compare(s.last) < 0 {
		s.t.Fatalf("position %v after %v", p, s.last)
	}
	s.last = p
	return nil
}

// ownerBytes is what an owner sends for these operations to a replica that
// reads everything and acknowledges nothing.
func ownerBytes(t testing.TB, st mirror.State, ops ...mirror.Op) []byte {
	a, b := wiretest.TCP(t)
	sent := make(chan error, 1)
	go func() {
		sent <- mirror.Send(t.Context(), a, hello(), func(mirror.State) (mirror.Source, error) { return &script{ops: ops}, nil }, nil)
	}()
	if err := wire.WriteJSON(b, st); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	if err := <-sent; err == nil {
		t.Error("an orderly end without any acknowledgement")
	}
	return out
}

func helloBytes(t testing.TB, h mirror.Hello) []byte {
	var b bytes.Buffer
	if err := wire.WriteJSON(&b, h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pair(kind byte, x, y uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{kind}, x)
	return binary.BigEndian.AppendUint64(b, y)
}

func FuzzReceive(f *testing.F) {
	h := hello()
	h.Version = mirror.Version
	ok := helloBytes(f, h)
	data := append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64([]byte{2}, 4096), 4096), make([]byte, 4096)...)
	cat := func(p ...[]byte) []byte { return bytes.Join(append([][]byte{ok}, p...), nil) }
	f.Add(cat(data, pair(5, 3, 2)), true)
	f.Add(cat(pair(1, 1, 1), data, pair(3, 0, 8192), pair(4, 3, 1), pair(5, 3, 2)), false)
	f.Add(cat(pair(3, 1<<63, 4096)), true)
	f.Add(cat(pair(3, 4096, 1<<63-4096)), true)
	f.Add(cat([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xf0, 0}), true)
	f.Add(cat(pair(5, 4, 0)), true)
	f.Add(cat(pair(0x81, 3, 1)), true)
	f.Add(cat([]byte{0x82, 0, 1, 0xff, 0xff}), true)
	f.Add([]byte("\xff\xff\xff\xff"), true)
	f.Fuzz(func(t *testing.T, in []byte, whole bool) {
		sink := &strict{t: t}
		st := mirror.State{}
		if whole {
			st = complete
		}
		_ = mirror.Receive(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, func(h mirror.Hello) (mirror.Sink, mirror.State, error) {
			if h.Size <= 0 || h.Size > mirror.MaxSize {
				t.Fatalf("a disk of %d bytes was offered", h.Size)
			}
			sink.size = h.Size
			return sink, st, nil
		}, nil)
	})
}

// FuzzSend feeds a hostile replica's answers to the owner.
func FuzzSend(f *testing.F) {
	state := func(s string) []byte {
		var b bytes.Buffer
		if err := wire.WriteFrame(&b, []byte(s)); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	good := state(`{"complete":true,"position":{"term":3,"barrier":1}}`)
	f.Add(append(bytes.Clone(good), pair(0x81, 3, 2)...))
	f.Add(append(bytes.Clone(good), pair(0x81, 3, 99)...))
	f.Add(append(bytes.Clone(good), 0x82, 0, 1, 0, 2, 'n', 'o'))
	f.Add(append(bytes.Clone(good), 0x82, 0, 1, 0xff, 0xff))
	f.Add(append(bytes.Clone(good), pair(5, 3, 2)...))
	f.Add(append(append(append(bytes.Clone(good), 0x83, 0x83), pair(0x81, 3, 2)...), 0x83))
	f.Add(state(`{"refusal":{"code":"busy","text":"x"}}`))
	f.Add(state(`{"copy":"zz"}`))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		src := &script{ops: []mirror.Op{write(0, 1, 'a'), barrier(2), write(1, 1, 'b'), barrier(3)}}
		err := mirror.Send(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, hello(),
			func(s mirror.State) (mirror.Source, error) {
				if !s.Complete {
					return nil, errors.New("not of interest here")
				}
				return src, nil
			}, nil)
		if p := src.lastAck(); p.Compare(at(3)) > 0 {
			t.Fatalf("%v was acknowledged, which was never sent", p)
		}
		if err == nil && src.lastAck() != at(3) {
			t.Fatalf("an orderly end with only %v acknowledged", src.lastAck())
		}
		if src.freed.Load() != int64(src.taken()) {
			t.Fatalf("%d buffers released of %d", src.freed.Load(), src.taken())
		}
	})
}

// The layout in the package comment, byte by byte: other versions of the
// program speak it.
func TestWireFormat(t *testing.T) {
	out := ownerBytes(t, mirror.State{}, begin(), write(2, 1, 'x'), zero(3, 2), checkpoint(4), barrier(5))
	var h mirror.Hello
	r := bytes.NewReader(out)
	if err := wire.ReadJSON(r, wire.MaxMessage, &h); err != nil {
		t.Fatal(err)
	}
	want := hello()
	want.Version = 2
	if h != want {
		t.Errorf("hello %+v", h)
	}
	rest, _ := io.ReadAll(r)
	body := "09000000000000000000000000000000"
	hex := "01" + body + "02" + "0000000000002000" + "00001000" + fmt.Sprintf("%x", bytes.Repeat([]byte{'x'}, 4096)) +
		"03" + "0000000000003000" + "0000000000002000" + "04" + "0000000000000003" + "0000000000000004" + "05" + "0000000000000003" + "0000000000000005"
	if got := fmt.Sprintf("%x", rest); got != hex {
		t.Errorf("frames\n%s, want\n%s", got, hex)
	}
}
