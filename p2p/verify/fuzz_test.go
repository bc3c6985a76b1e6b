package verify_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func frame(kind byte, n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{kind}, n) }

func helloBytes(t testing.TB, version int) []byte {
	h := hello(verify.Key{1})
	h.Version = version
	var b bytes.Buffer
	if err := wire.WriteJSON(&b, h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// patchFrame is a patch of a leaf with n bytes.
func patchFrame(l uint32, without uint16, barrier uint64, flags byte, n int) []byte {
	b := binary.BigEndian.AppendUint16(frame(7, l), without)
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, 0), barrier)
	return append(append(b, flags), bytes.Repeat([]byte{9}, n)...)
}

// FuzzServe feeds a hostile owner's questions to a replica.
func FuzzServe(f *testing.F) {
	ok := helloBytes(f, verify.Version)
	cat := func(p ...[]byte) []byte { return bytes.Join(append([][]byte{ok}, p...), nil) }
	f.Add(cat(frame(1, 1), frame(2, 1), frame(3, 64), frame(4, lastLeaf)))
	f.Add(cat(frame(2, 0)))
	f.Add(cat(frame(1, 1), frame(3, 0)))
	f.Add(cat(frame(1, 2)))
	f.Add(cat(frame(4, lastLeaf+1)))
	f.Add(cat(frame(4, 0xffffffff)))
	f.Add(cat(frame(0x81, 1)))
	f.Add(cat([]byte{1, 0}))
	f.Add(cat(append(frame(5, 3), 0, 1), append(frame(5, lastLeaf), 0xff, 0xff)))
	f.Add(cat(append(frame(6, 0), bytes.Repeat([]byte{0, 3}, 64)...), append(frame(6, 65), make([]byte, 128)...)))
	f.Add(cat(patchFrame(3, 0xfffe, 1, 0, 4096)))
	f.Add(cat(patchFrame(lastLeaf, 0, 1, 1, 3*4096)))
	f.Add(cat(patchFrame(lastLeaf, 7, 1, 0, 0)))
	f.Add(cat(patchFrame(3, 0, 1, 2, 65536)))
	f.Add(append(helloBytes(f, 1), append(frame(5, 3), 0, 1)...))
	f.Add(helloBytes(f, verify.Version+1))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := newDisk()
		d.put(3, 1)
		d.put(lastLeaf, 2)
		d.record(3)
		err := verify.Serve(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, func(h verify.Hello) (verify.Replica, verify.State, error) {
			if h.Size != diskSize {
				return nil, verify.State{}, errors.New("another disk")
			}
			return &follower{disk: d}, verify.State{Complete: true}, nil
		})
		if err == nil && !bytes.HasPrefix(in, []byte{0, 0}) {
			t.Fatal("nonsense was answered")
		}
	})
}

// FuzzSession feeds a hostile replica's answers to an owner.
func FuzzSession(f *testing.F) {
	var ok bytes.Buffer
	if err := wire.WriteJSON(&ok, verify.State{Complete: true}); err != nil {
		f.Fatal(err)
	}
	cat := func(p ...[]byte) []byte { return bytes.Join(append([][]byte{ok.Bytes()}, p...), nil) }
	sums := func(n int) []byte {
		return append([]byte{0x81, byte(n >> 8), byte(n)}, bytes.Repeat([]byte{7}, 16*n)...)
	}
	state := func(record byte, sum byte) []byte {
		return append(append([]byte{0x82}, append(make([]byte, 16), record)...), bytes.Repeat([]byte{sum}, 16)...)
	}
	f.Add(cat([]byte{0x83, 0x83}, sums(1), sums(2), sums(64), state(1, 5)))
	f.Add(cat(sums(1), sums(2), sums(64), state(3, 0)))
	f.Add(cat(sums(1), sums(2), sums(64), state(3, 1)))
	f.Add(cat(sums(1), sums(2), sums(64), state(4, 1)))
	f.Add(cat(sums(2)))
	f.Add(cat(bytes.Repeat([]byte{0x83}, 1000)))
	f.Add(cat([]byte{0x84, 0, 2, 'n', 'o'}))
	f.Add(cat([]byte{0x84, 0xff, 0xff}))
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, _, err := verify.Open(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, hello(verify.Key{1}))
		if err != nil {
			return
		}
		if _, err = s.Span(t.Context(), 1); err != nil {
			return
		}
		regions, err := s.Regions(t.Context(), 1)
		if err != nil {
			return
		}
		leaves, err := s.Leaves(t.Context(), 64)
		if err != nil {
			return
		}
		if len(regions) != 2 || len(leaves) != 64 {
			t.Fatalf("%d and %d sums", len(regions), len(leaves))
		}
		if st, err := s.Leaf(t.Context(), 3); err == nil && (st.Record > verify.Unreadable || (st.Record == verify.Unreadable) != (st.Sum == verify.Sum{})) {
			t.Fatalf("%+v", st)
		}
	})
}

// An owner that asks what makes no sense is told, a replica that answers so is left.
func TestProtocolViolations(t *testing.T) {
	for name, in := range map[string][]byte{
		"a span beyond the end":           frame(1, 2),
		"a leaf beyond the end":           frame(4, lastLeaf+1),
		"regions before the span":         frame(2, 0),
		"leaves of another span":          append(frame(1, 0), frame(3, 64)...),
		"an answer instead of a question": frame(0x81, 0),
		"a patch of no blocks":            patchFrame(lastLeaf, 7, 0, 0, 0),
		"a patch with an unknown flag":    patchFrame(3, 0, 0, 2, 65536),
		"a part beyond the end":           append(frame(5, lastLeaf+1), 0, 0),
	} {
		err := verify.Serve(t.Context(), wiretest.Input{Reader: io.MultiReader(bytes.NewReader(helloBytes(t, verify.Version)), bytes.NewReader(in))},
			func(verify.Hello) (verify.Replica, verify.State, error) {
				return &follower{disk: newDisk()}, verify.State{}, nil
			})
		if !errors.Is(err, verify.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
