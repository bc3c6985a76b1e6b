package fetch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// A holder that dies after any number of bytes is followed by the next one; alone, it is a passing error, and what comes after
// it came back is right.
func TestHolderDiesAnywhere(t *testing.T) {
	const n = 12 * Block
	for _, alone := range []bool{true, false} {
		for _, demand := range []bool{true, false} {
			// What comes before the first content almost byte by byte, then a few bytes of each block.
			for cut := int64(0); cut < n+500; cut += 5 + min(cut/200, 1)*1999 {
				synctest.Test(t, func(t *testing.T) {
					dies := &holder{name: "dies", path: &path{delay: time.Millisecond}, disk: ones(), state: whole, budget: []int64{cut, cut}}
					other := &holder{name: "other", path: &path{delay: 5 * time.Millisecond}, disk: ones(), state: whole}
					holders := []*holder{dies, other}
					if alone {
						holders = holders[:1]
					}
					p := newPool(t, Options{}, holders...)
					time.Sleep(50 * time.Millisecond)
					b := make([]byte, n)
					err := fetchOne(t.Context(), p, Block, b, demand)
					switch {
					case err == nil:
						checkOnes(t, b, Block)
					case !alone:
						t.Errorf("cut after %d bytes: %v", cut, err)
					case !errors.Is(err, ErrNoHolder):
						t.Error(err)
					}
					dies.path.cut() // the next streams live
					synctest.Wait()
					connected(t, p, len(holders))
					checkOnes(t, get(t, p, Block, n, demand), Block)
				})
			}
		}
	}
}

// liar is a holder that says it has that, and answers questions with what answer makes of them.
func liar(s Stream, st State, answer func(question) []byte) {
	br := bufio.NewReader(s)
	var h Hello
	if err := wire.ReadJSON(br, wire.MaxMessage, &h); err != nil {
		return
	}
	if err := wire.WriteJSON(s, st); err != nil {
		return
	}
	for {
		q, err := readQuestion(br, h.Size)
		if err != nil {
			return
		}
		out := appendPong(nil, q.id)
		if q.kind == kindWant {
			out = answer(q)
		}
		if _, err := s.Write(out); err != nil {
			return
		}
	}
}

func piece(k kind, id uint32, n int) []byte {
	b := make([]byte, pieceHead)
	putPiece(b, k, id, n)
	if k == kindData && n <= MaxWant {
		b = append(b, make([]byte, n)...)
	}
	return b
}

// Whatever a holder answers that the protocol forbids ends its link, and the next holder is asked.
func TestLiars(t *testing.T) {
	for name, answer := range map[string]func(question) []byte{
		"nobody's":      func(q question) []byte { return piece(kindZero, q.id+1000, q.len) },
		"too much data": func(q question) []byte { return piece(kindData, q.id, q.len+Block) },
		"too many zeros": func(q question) []byte {
			return append(piece(kindData, q.id, q.len-Block), piece(kindZero, q.id, 2*Block)...)
		},
		"twice":      func(q question) []byte { return append(piece(kindZero, q.id, q.len), piece(kindZero, q.id, q.len)...) },
		"no length":  func(q question) []byte { return piece(kindZero, q.id, 0) },
		"unaligned":  func(q question) []byte { return piece(kindData, q.id, 100) },
		"huge":       func(q question) []byte { return piece(kindData, q.id, 1<<30) },
		"pong":       func(q question) []byte { return appendPong(nil, q.id) },
		"a question": func(q question) []byte { return q.appendTo(nil) },
		"noise":      func(question) []byte { return bytes.Repeat([]byte{0x55}, 100) },
		"sorry and more": func(q question) []byte {
			return append(appendSorry(nil, q.id, sorryRead), piece(kindZero, q.id, q.len)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				good := &holder{name: "good", path: &path{delay: 5 * time.Millisecond}, disk: ones(), state: whole}
				p := newPool(t, Options{}, good)
				way := &path{delay: time.Millisecond}
				p.Add(Holder{Name: "bad", Dial: func(context.Context) (Stream, error) {
					a, b := way.open()
					go liar(b, whole, answer)
					return a, nil
				}})
				connected(t, p, 2)
				b := make([]byte, 8*Block)
				for _, demand := range []bool{true, false} {
					// What it answers in full before it is found out is believed.
					if err := fetchOne(t.Context(), p, 0, b, demand); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(20 * time.Millisecond)
				if i := p.Holders(); !errors.Is(i[0].Err, ErrProtocol) || i[0].Connected {
					t.Errorf("%+v", i)
				}
				checkOnes(t, get(t, p, 0, 8*Block, true), 0)
			})
		})
	}
}

// Who says that its disk isn't whole isn't asked for anything.
func TestIncomplete(t *testing.T) {
	a, b := wiretest.TCP(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		liar(b, State{Position: handOff}, nil)
	}()
	if _, _, err := greet(t.Context(), a, hello()); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
	<-done
}

// A holder ends the stream of an asker that breaks the protocol.
func TestBadQuestions(t *testing.T) {
	want := func(off uint64, n uint32) []byte {
		b := binary.BigEndian.AppendUint64([]byte{byte(kindWant), 0, 0, 0, 1}, off)
		return binary.BigEndian.AppendUint32(b, n)
	}
	for name, q := range map[string][]byte{
		"type": {0x77}, "an answer": appendPong(nil, 1), "cut short": want(0, Block)[:9],
		"unaligned": want(512, Block), "length": want(0, 100), "nothing": want(0, 0), "too much": want(0, MaxWant+Block),
		"beyond": want(testSize, Block), "over the end": want(testSize-Block, 2*Block), "negative": want(1<<63, Block), "wraps": want(1<<64-Block, 2*Block),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := wiretest.TCP(t)
			done := make(chan error, 1)
			go func() {
				done <- Serve(t.Context(), b, func(Hello) (Reader, State, error) { return ones(), whole, nil }, nil)
			}()
			h := hello()
			h.Version = Version
			if _, _, err := greet(t.Context(), a, h); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Write(append(want(0, Block), q...)); err != nil {
				t.Fatal(err)
			}
			_ = a.CloseWrite() // the holder may have hung up already
			if err := <-done; !errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
		})
	}
}

// strict is a Reader that panics on what no disk has.
func strict() Reader {
	return &fake{size: testSize, at: func(block int64) uint64 { return uint64(block) % 2 }}
}

func FuzzServe(f *testing.F) {
	h := hello()
	h.Version = Version
	var greeting bytes.Buffer
	if err := wire.WriteJSON(&greeting, h); err != nil {
		f.Fatal(err)
	}
	f.Add(question{kind: kindWant, id: 1, off: Block, len: 2 * Block}.appendTo(question{kind: kindPing, id: 7}.appendTo(nil)), true)
	f.Add(question{kind: kindWant, id: 1, off: testSize, len: Block}.appendTo(nil), true)
	f.Add(greeting.Bytes(), false)
	f.Fuzz(func(t *testing.T, in []byte, greeted bool) {
		if greeted {
			in = append(bytes.Clone(greeting.Bytes()), in...)
		}
		_ = Serve(t.Context(), wiretest.Input{Reader: bytes.NewReader(in)}, func(h Hello) (Reader, State, error) {
			if h.Size <= 0 || h.At.Term == 0 {
				t.Errorf("a hello without sense came through: %+v", h)
			}
			if h.Size != testSize {
				return nil, State{}, errors.New("another disk")
			}
			return strict(), whole, nil
		}, nil)
	})
}

func FuzzAsk(f *testing.F) {
	f.Add(append(piece(kindData, 1, Block), piece(kindZero, 1, 3*Block)...))
	f.Add(append(piece(kindZero, 2, MaxWant), appendPong(nil, 3)...))
	f.Add(appendSorry(appendSorry(nil, 1, sorryNotHere), 2, sorryOver))
	f.Add(piece(kindData, 1, 5*Block))
	f.Fuzz(func(t *testing.T, in []byte) {
		var greeting bytes.Buffer
		if err := wire.WriteJSON(&greeting, whole); err != nil {
			t.Fatal(err)
		}
		x, _, err := greet(t.Context(), wiretest.Input{Reader: io.MultiReader(&greeting, bytes.NewReader(in))}, hello())
		if err != nil {
			t.Fatal(err)
		}
		ended := 0
		x.answered = func(*want, error) { ended++ }
		var wants []*want
		bufs := make([]byte, 4*Block+MaxWant+Block)
		for i := range bufs {
			bufs[i] = 0xee
		}
		wants = append(wants, x.ask(0, bufs[:4*Block], false), x.ask(Block, bufs[4*Block:4*Block+MaxWant], false), x.ask(0, nil, false))
		if err := x.run(t.Context()); err == nil {
			t.Error("a session ended without a reason")
		}
		for i, w := range wants {
			if err := <-w.done; err == nil && w.got != w.n {
				t.Errorf("want %d is done with %d bytes of %d", i, w.got, w.n)
			}
		}
		if ended != len(wants) {
			t.Errorf("%d wants of %d have ended", ended, len(wants))
		}
		if !bytes.Equal(bufs[4*Block+MaxWant:], bytes.Repeat([]byte{0xee}, Block)) {
			t.Error("an answer went beyond its buffer")
		}
	})
}

// What is encoded is decoded, and what decodes is encoded as it came.
func FuzzFrames(f *testing.F) {
	f.Add(question{kind: kindWant, id: 1, off: Block, len: Block}.appendTo(nil))
	f.Add(question{kind: kindPing, id: 1 << 31}.appendTo(nil))
	f.Add(piece(kindData, 3, MaxWant)[:pieceHead])
	f.Add(appendSorry(nil, 4, 77))
	f.Add(appendPong(nil, 5))
	f.Fuzz(func(t *testing.T, in []byte) {
		if q, err := readQuestion(bufio.NewReader(bytes.NewReader(in)), testSize); err == nil {
			if !inRange(q.off, int64(q.len), testSize) && q.kind == kindWant {
				t.Errorf("%+v", q)
			}
			if out := q.appendTo(nil); !bytes.HasPrefix(in, out) {
				t.Errorf("%x came as %+v, which is %x", in, q, out)
			}
		}
		if a, err := readAnswer(bufio.NewReader(bytes.NewReader(in))); err == nil {
			var out []byte
			switch a.kind {
			case kindSorry:
				out = appendSorry(nil, a.id, a.code)
			case kindPong:
				out = appendPong(nil, a.id)
			default:
				out = piece(a.kind, a.id, a.len)[:pieceHead]
			}
			if !bytes.HasPrefix(in, out) {
				t.Errorf("%x came as %+v, which is %x", in, a, out)
			}
		}
	})
}
