package push_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"testing"

	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// What a lying receiver says ends the stream, and nothing else.
func TestALyingReceiver(t *testing.T) {
	state := push.State{Complete: true, Position: at(1)}
	held := push.State{Complete: true, Position: at(1), Copy: push.ID{'p', 'u', 's', 'h', 1}, Checkpoint: at(2)}
	for name, c := range map[string]struct {
		st   push.State
		says []byte
	}{
		"done before the end":         {state, []byte{0x80, 0, 0, 0x83}},
		"an answer to nothing":        {state, []byte{0x80, 0, 0, 0x82, 1, 0}},
		"another block":               {state, []byte{0x80, 0, 0, 0x82, 0, 2, 1, 9, 0}},
		"a part of a sum":             {state, []byte{0x80, 0, 0, 0x82, 0, 2, 1, 100, 0}},
		"more bytes than were sent":   {state, append(binary.AppendUvarint([]byte{0x80, 0, 0, 0x81}, 1<<40), 0)},
		"more durable than came":      {state, []byte{0x80, 0, 0, 0x81, 1, 2}},
		"fewer bytes than before":     {state, []byte{0x80, 0, 0, 0x81, 9, 9, 0x81, 8, 8}},
		"held beyond the end":         {held, []byte{0x80, 0, 1, 0, 0xff, 0xff, 0x7f}},
		"held runs that touch":        {held, []byte{0x80, 0, 2, 0, 1, 0, 1}},
		"too many runs":               {held, append([]byte{0x80, 0}, binary.AppendUvarint(nil, 1<<17)...)},
		"a number without end":        {held, append([]byte{0x80, 0}, bytes.Repeat([]byte{0xff}, 12)...)},
		"a region beyond the disk":    {state, []byte{0x80, 0, 0, 0x82, 9, 0}},
		"a set beyond the region":     {state, append([]byte{0x80, 0, 0, 0x82, 1, 1}, bytes.Repeat([]byte{0xff}, 128)...)},
		"a frame of the sender's":     {state, []byte{0x80, 0, 0, 0x03, 0, 1}},
		"no frame at all":             {state, []byte{0x80, 0, 0, 0x99}},
		"nothing held, but something": {state, []byte{0x81, 0, 0}},
	} {
		cut := newContent(fuzzSize, nil)
		var lacks []int64
		for x := range int64(64) {
			cut.here[100+x] = noise(uint64(x))
			lacks = append(lacks, 100+x)
		}
		// What follows Held comes when the first question was asked.
		first := len(c.says)
		if bytes.HasPrefix(c.says, []byte{0x80, 0, 0}) {
			first = 3
		}
		a, b := wiretest.TCP(t)
		go func() {
			_, _ = b.Write(append(jsonBytes(t, c.st), c.says[:first]...))
			_, _ = io.ReadFull(b, make([]byte, len(jsonBytes(t, fuzzHello()))+65+10))
			_, _ = b.Write(c.says[first:])
			_ = b.CloseWrite()
			_, _ = io.Copy(io.Discard, b)
		}()
		src := &source{content: cut, lacks: lacks}
		err := push.Send(t.Context(), a, hello(fuzzSize, at(2)), func(push.State, iter.Seq2[int64, int64]) (push.Work, error) {
			return push.Work{Source: src}, nil
		}, push.Options{})
		overflow := name == "a number without end"
		if !errors.Is(err, push.ErrProtocol) && !(overflow && err != nil) {
			t.Errorf("%s: %v", name, err)
		}
		if len(src.done) > 0 {
			t.Errorf("%s: something counts as done", name)
		}
	}
}

// What a lying sender says ends the stream, and the disk stays what it was.
func TestALyingSender(t *testing.T) {
	begin := beginBytes(at(1))
	mirrors := bytes.Clone(begin)
	copy(mirrors[1:], "mirr")
	after := func(p ...byte) []byte { return append(bytes.Clone(begin), p...) }
	for name, in := range map[string][]byte{
		"onto another position":       beginBytes(at(9)),
		"onto nothing":                beginBytes(push.Position{}),
		"another protocol's copy":     mirrors,
		"content before the copy":     append([]byte{2}, begin...),
		"content of nothing":          after(2, 0, 0, 2, 0, 0),
		"too much content":            after(append([]byte{2, 0, 0, 0}, binary.AppendUvarint(nil, push.Region)...)...),
		"content of another size":     after(2, 0, 0, 2, 1, 0, 0, 5),
		"an unknown codec":            after(append([]byte{2, 7, 0, 2, 1, 0, 0, 0x80, 0x20}, noise(1)...)...),
		"a region beyond the disk":    after(2, 0, 2, 2, 1, 0, 0),
		"blocks beyond the region":    after(2, 0, 1, 2, 1, 3, 0),
		"zeros beyond the disk":       after(3, 0xff, 0x07, 0xff, 0xff, 0x03),
		"no zeros":                    after(3, 0, 0),
		"a question of no kind":       after(4, 9, 0, 0),
		"a question about nothing":    after(4, 1, 0, 2, 0),
		"a frame of the receiver's":   after(0x82, 0, 0),
		"something after the end":     after(5, 3, 0, 1),
		"compressed nonsense":         after(2, 1, 0, 2, 1, 0, 0, 4, 1, 2, 3, 4),
		"another beginning":           append(after(), begin...),
		"runs that touch in one set":  after(4, 1, 0, 2, 2, 0, 0, 0, 0),
		"a form of set that is none":  after(4, 1, 0, 7),
		"a bitmap beyond the region":  after(append([]byte{4, 1, 1, 1}, bytes.Repeat([]byte{0xff}, 128)...)...),
		"the end of the stream early": after(3, 0, 1),
	} {
		old := newContent(fuzzSize, func(x int64) []byte { return noise(uint64(x)) })
		d := newReplica(old.clone(), at(1))
		a, b := wiretest.TCP(t)
		go func() {
			_ = wire.WriteJSON(a, fuzzHello())
			_, _ = a.Write(in)
			_ = a.CloseWrite()
			_, _ = io.Copy(io.Discard, a)
		}()
		err := push.Receive(t.Context(), b, func(push.Hello) (push.Replica, push.State, error) {
			return push.Replica{Sink: d}, d.state(), nil
		}, nil)
		want := push.ErrProtocol
		if name == "the end of the stream early" {
			want = io.ErrUnexpectedEOF
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		if name != "something after the end" {
			d.equals(t, old, at(1))
		}
	}
}
