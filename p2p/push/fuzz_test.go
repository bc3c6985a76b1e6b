package push_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"testing"

	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

const fuzzSize = push.Region + 3*block

func jsonBytes(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := wire.WriteJSON(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func fuzzHello() push.Hello {
	h := hello(fuzzSize, at(2))
	h.Version = push.Version
	return h
}

// beginBytes begins a copy onto a disk at from.
func beginBytes(from push.Position) []byte {
	b := append([]byte{1}, "push-0123456789a"...)
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, from.Term), from.Barrier)
	return append(b, make([]byte, 32)...)
}

// FuzzReceive feeds a hostile sender's bytes to a receiver. Its disk panics if it is asked for what no disk could do.
func FuzzReceive(f *testing.F) {
	head := append(jsonBytes(f, fuzzHello()), beginBytes(at(1))...)
	cat := func(p ...[]byte) []byte { return bytes.Join(append([][]byte{head}, p...), nil) }
	data := append([]byte{2, 0, 0, 2, 1, 5, 0, 0x80, 0x20}, noise(1)...)
	f.Add(cat(data, []byte{5}))
	f.Add(cat([]byte{3, 1, 4}, []byte{5}))
	f.Add(cat([]byte{3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 4}))
	f.Add(cat(append([]byte{4, 1, 0, 2, 1, 5, 1}, make([]byte, 32)...)))
	f.Add(cat(append([]byte{4, 4, 1, 0}, make([]byte, 96)...)))
	f.Add(cat(append([]byte{4, 3, 0, 0}, make([]byte, 16)...), []byte{5}))
	f.Add(cat([]byte{2, 1, 0, 2, 1, 5, 0, 9, 0x28, 0xb5, 0x2f, 0xfd, 0x60, 0xff, 0xff, 0, 0}))
	f.Add(cat(append([]byte{2, 1, 0, 1}, bytes.Repeat([]byte{0xff}, 200)...)))
	f.Add(append(jsonBytes(f, fuzzHello()), beginBytes(at(9))...))
	f.Add(jsonBytes(f, push.Hello{}))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := newReplica(newContent(fuzzSize, nil), at(1))
		err := push.Receive(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, func(h push.Hello) (push.Replica, push.State, error) {
			if h.Size != fuzzSize {
				return push.Replica{}, push.State{}, errDisk
			}
			return push.Replica{Sink: d, Index: index{}}, d.state(), nil
		}, nil)
		if err == nil && d.pos == at(1) {
			t.Fatal("an orderly end without the cut")
		}
	})
}

// FuzzSend feeds a hostile receiver's answers to a sender.
func FuzzSend(f *testing.F) {
	state := jsonBytes(f, push.State{Complete: true, Position: at(1)})
	held := jsonBytes(f, push.State{Complete: true, Position: at(1), Copy: push.ID{'p', 'u', 's', 'h', 1}, Checkpoint: at(2)})
	f.Add(append(bytes.Clone(state), 0x80, 0, 0))
	f.Add(append(bytes.Clone(state), 0x80, 1, 0, 0x83))
	f.Add(append(bytes.Clone(state), 0x80, 1, 0, 0x82, 0, 0))
	f.Add(append(bytes.Clone(state), 0x80, 1, 0, 0x82, 0, 2, 1, 3, 0, 0x82, 0, 0))
	f.Add(append(bytes.Clone(state), 0x80, 0, 0, 0x81, 10, 10, 0x81, 4, 0))
	f.Add(append(bytes.Clone(held), 0x80, 0, 2, 0, 1, 5, 9))
	f.Add(append(bytes.Clone(held), 0x80, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1))
	f.Add(append(bytes.Clone(held), 0x80, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1))
	f.Add(append(bytes.Clone(state), 0x84, 0, 1, 0, 2, 'n', 'o'))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		cut := newContent(fuzzSize, nil)
		for _, x := range []int64{3, 4, 70, 1024} {
			cut.here[x] = noise(uint64(x))
		}
		src := &source{content: cut, lacks: []int64{3, 4, 5, 70, 1024}}
		_ = push.Send(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, hello(fuzzSize, at(2)),
			func(push.State, iter.Seq2[int64, int64]) (push.Work, error) { return push.Work{Source: src}, nil }, push.Options{})
	})
}

// The layout in the package comment, byte by byte: other versions of the program speak it.
func TestWireFormat(t *testing.T) {
	cut := newContent(fuzzSize, nil)
	cut.here[7] = noise(1)
	src := &source{content: cut, lacks: []int64{5, 6, 7}}
	d := newReplica(newContent(fuzzSize, func(int64) []byte { return noise(5) }), at(1))
	a, b := wiretest.TCP(t)
	var sent, said bytes.Buffer
	if err1, err2 := pushed(t, tee{a, &sent}, tee{b, &said}, hello(fuzzSize, at(2)), push.Work{Source: src, Exact: true}, d, nil, nil); err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	var h push.Hello
	if err := wire.ReadJSON(&sent, wire.MaxMessage, &h); err != nil || h != fuzzHello() {
		t.Fatalf("hello %+v, %v", h, err)
	}
	head := sent.Next(65)
	if head[0] != 1 || string(head[1:5]) != "push" || !bytes.Equal(head[17:33], []byte{7: 3, 15: 1}) {
		t.Errorf("begin %x", head)
	}
	// A question with its sum; the content; zeros; the end.
	got := sent.Bytes()
	want := fmt.Sprintf("0401000201"+"0700"+"%x"+"0200000201"+"0700"+"8020"+"%x"+"030502"+"05", got[7:23], noise(1))
	if fmt.Sprintf("%x", got) != want {
		t.Errorf("frames\n%.300x, want\n%.300s", got, want)
	}
	var st push.State
	if err := wire.ReadJSON(&said, wire.MaxMessage, &st); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(said.Bytes(), []byte{0x80, 0, 0}) || !bytes.Contains(said.Bytes(), []byte{0x82, 0, 2, 1, 7, 0}) || !bytes.HasSuffix(said.Bytes(), []byte{0x83}) {
		t.Errorf("the receiver said %x", said.Bytes())
	}
}

// tee notes what is written.
type tee struct {
	wire.Stream
	out *bytes.Buffer
}

func (s tee) Write(p []byte) (int, error) {
	s.out.Write(p)
	return s.Stream.Write(p)
}
