package handoff_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"tagalong.org/tagalong/p2p/flow"
	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// memory opens a memory stream over a pair of streams.
func memory(t *testing.T, pair func(testing.TB) (wire.Stream, wire.Stream), version, lanes int) (giver, taker *handoff.Memory) {
	t.Helper()
	a, b := pair(t)
	h := handoff.MemHeader{Version: version, VM: "v", Attempt: "a"}
	opened := make(chan error, 1)
	go func() {
		var err error
		giver, err = handoff.OpenMemory(t.Context(), a, h, lanes)
		opened <- err
	}()
	got, taker, err := handoff.AcceptMemory(t.Context(), b)
	if err := errors.Join(err, <-opened); err != nil || got != h {
		t.Fatalf("accepted %+v: %v", got, err)
	}
	t.Cleanup(func() { _, _ = giver.Reset(), taker.Reset() })
	return giver, taker
}

// pages is memory as guests have it: some of it dense, some like text, some nearly empty.
func pages(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	var b []byte
	for len(b) < n {
		page := make([]byte, 4096)
		switch r.IntN(3) {
		case 0:
			for i := range page {
				page[i] = byte(r.Uint32())
			}
		case 1:
			for i := range page {
				page[i] = "the quick brown fox "[(i+int(seed))%20] + byte(r.IntN(2))
			}
		default:
			binary.BigEndian.PutUint64(page[r.IntN(500)*8:], r.Uint64())
		}
		b = append(b, page...)
	}
	return b[:n]
}

// From one hypervisor's socket through two pipes and a stream to another's: each byte arrives once and in order, both ways, in any version and
// over any stream; and when all has ended nothing is left behind.
func TestMemoryStream(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		for _, c := range []struct{ version, lanes int }{{handoff.MemoryRaw, 1}, {handoff.MemoryFramed, 1}, {handoff.MemoryFramed, flow.MaxLanes}} {
			t.Run(name, func(t *testing.T) {
				giver, taker := memory(t, pair, c.version, c.lanes)
				from, a := wiretest.TCP(t)
				b, to := wiretest.TCP(t)
				gate, free := handoff.NewGate(nil), handoff.NewGate(nil)
				gate.Open()
				free.Release()
				ends := make(chan error, 2)
				go func() { ends <- handoff.Pipe(t.Context(), a, giver, gate, nil) }()
				go func() { ends <- handoff.Pipe(t.Context(), taker, b, free, nil) }()
				there, back := pages(1, 5_000_001), pages(2, 70_000)
				var wg sync.WaitGroup
				send := func(s wire.Stream, p []byte) {
					wg.Go(func() {
						_, err := s.Write(p)
						if err := errors.Join(err, s.CloseWrite()); err != nil {
							t.Error(err)
						}
					})
				}
				receive := func(s wire.Stream, want []byte) {
					wg.Go(func() {
						if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
							t.Errorf("%d bytes of %d came, or others: %v", len(got), len(want), err)
						}
					})
				}
				send(from, there)
				receive(to, there)
				send(to, back)
				receive(from, back)
				wg.Wait()
				if err := errors.Join(soon(t, ends, "end of a pipe"), soon(t, ends, "end of a pipe")); err != nil {
					t.Fatal(err)
				}
				if giver.Arrived() != int64(len(there)) {
					t.Errorf("%d bytes were said to have arrived of %d", giver.Arrived(), len(there))
				}
				if share := float64(giver.Wire()) / float64(len(there)); c.version == handoff.MemoryFramed && name == "pipe" && share > 1.01 {
					t.Errorf("%.2f bytes on the stream for each", share)
				}
			})
		}
	}
}

// What has left the hypervisor and wasn't given to the other one is little when that one is slow, or stands still: a parked hand-off is as near to its end as it seems.
func TestMemoryIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		giver, taker := memory(t, wiretest.Pipe, handoff.MemoryFramed, flow.MaxLanes)
		dense := make([]byte, 64<<10)
		for i := range dense {
			dense[i] = byte(rand.Uint32())
		}
		// Much of a guest's memory is empty, and nothing of what it writes anew need be.
		var left atomic.Int64
		const empty = 2000 * (64 << 10)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if _, err := giver.Write(make([]byte, empty)); err != nil {
				t.Error(err)
				return
			}
			for {
				if _, err := giver.Write(dense); err != nil {
					return
				}
				left.Add(int64(len(dense)))
			}
		}()
		const rate = 2 << 20 // bytes a second
		read := int64(0)
		if _, err := io.ReadFull(taker, make([]byte, empty)); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			n, err := io.ReadFull(taker, make([]byte, rate/100))
			if err != nil {
				t.Fatal(err)
			}
			read += int64(n)
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		// 32 KiB of window, what waits to be sent, 64 KiB that the taker reads at once, a frame or two, and 1 MiB that it keeps for a hypervisor that is slower
		// than the link.
		if way := left.Load() - read; way > 1536<<10 {
			t.Errorf("%d bytes are on their way", way)
		}
		if speed := giver.Speed(); speed < 0.6*rate || speed > 1.7*rate {
			t.Errorf("a way of %d bytes a second is said to carry %.0f", rate, speed)
		}
		if arrived := giver.Arrived() - empty; arrived > read || arrived < read-256<<10 {
			t.Errorf("%d bytes were read, %d are said to have arrived", read, arrived)
		}
		if err := taker.Reset(); err != nil {
			t.Error(err)
		}
		<-ended
	})
}

func TestMemoryHeader(t *testing.T) {
	sa, _ := wiretest.Pipe(t)
	for _, h := range []handoff.MemHeader{{VM: "v"}, {VM: "v", Attempt: "a", Version: handoff.MemoryVersion + 1}} {
		if _, err := handoff.OpenMemory(t.Context(), sa, h, 1); !errors.Is(err, handoff.ErrHeader) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, sb := wiretest.Pipe(t)
	if _, _, err := handoff.AcceptMemory(ctx, sb); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent peer: %v", err)
	}
	for _, in := range []string{"", "\x00\x00\x00\x02{}", "\x00\x00\xff\xff{}", "\x00\x00\x00\x02{", `{"version":3,"vm":"v","attempt":"a"}`} {
		if in != "" && in[0] == '{' {
			in = "\x00\x00\x00" + string(rune(len(in))) + in
		}
		if _, _, err := handoff.AcceptMemory(t.Context(), wiretest.Input{Reader: strings.NewReader(in)}); err == nil || err == io.EOF {
			t.Errorf("header %q: %v", in, err)
		}
	}
}

const memHeader = `{"version":2,"vm":"v","attempt":"a"}`

// hostile opens a taker's end of a stream on which in follows the header.
func hostile(t *testing.T, in []byte) *handoff.Memory {
	var all bytes.Buffer
	if err := wire.WriteFrame(&all, []byte(memHeader)); err != nil {
		t.Fatal(err)
	}
	all.Write(in)
	_, m, err := handoff.AcceptMemory(t.Context(), wiretest.Input{Reader: &all})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Nonsense ends the stream with an error, and a little that says it is much takes no memory.
func TestHostileMemory(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	data := func(codec byte, n uint64, body []byte) []byte {
		b := append([]byte{1, codec}, binary.AppendUvarint(nil, n)...)
		b = binary.AppendUvarint(b, uint64(len(body)))
		return append(b, body...)
	}
	for name, in := range map[string][]byte{
		"ends":                nil,
		"an unknown type":     {9},
		"an acknowledgement":  {2, 1, 1},
		"nothing":             data(0, 0, nil),
		"too much":            data(0, 256<<10+1, nil),
		"more than it says":   data(0, 3, []byte("four")),
		"less than it says":   data(0, 5, []byte("four")),
		"an unknown codec":    data(2, 4, []byte("four")),
		"not compressed":      data(1, 40, []byte("twelve bytes")),
		"a bomb":              data(1, 256<<10, enc.EncodeAll(make([]byte, 64<<20), nil)[:9000]),
		"cut short":           data(0, 400, make([]byte, 400))[:100],
		"something after all": append([]byte{3}, data(0, 1, []byte("x"))...),
	} {
		m := hostile(t, in)
		if n, err := io.Copy(io.Discard, m); err == nil && name != "something after all" || n > 400 {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		_ = m.Reset()
	}
}

// What a taker says of what it got is believed only if it can be so.
func TestHostileAcknowledgements(t *testing.T) {
	for name, in := range map[string][]byte{"of more than was sent": {2, 0xff, 0x7f, 0}, "of more content": {2, 0, 0xff, 0xff, 0xff, 0x7f}, "a frame of nothing": {1}, "a number without end": append([]byte{2}, bytes.Repeat([]byte{0xff}, 20)...)} {
		a, b := wiretest.TCP(t)
		go func() {
			_, _ = io.ReadFull(b, make([]byte, 4+len(memHeader)))
			_, _ = b.Write(in)
			_, _ = io.Copy(io.Discard, b)
		}()
		m, err := handoff.OpenMemory(t.Context(), a, handoff.MemHeader{Version: handoff.MemoryFramed, VM: "v", Attempt: "a"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, m)
			done <- err
		}()
		if name == "a frame of nothing" {
			_ = b.CloseWrite()
		}
		if err := soon(t, done, name); err == nil {
			t.Errorf("%s was taken", name)
		}
		_ = m.Reset()
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte{1, 0, 4, 4, 'f', 'o', 'u', 'r', 3})
	f.Add([]byte{1, 1, 4, 2, 0, 0})
	f.Add([]byte{2, 1, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		m := hostile(t, in)
		_, _ = io.Copy(io.Discard, m)
		_ = m.Reset()
	})
}

func BenchmarkMemory(b *testing.B) {
	for name, content := range map[string][]byte{"mixed": pages(3, 4<<20), "zeros": make([]byte, 4<<20)} {
		for _, version := range []int{handoff.MemoryRaw, handoff.MemoryFramed} {
			b.Run(fmt.Sprintf("%s/%d", name, version), func(b *testing.B) {
				x, y := wiretest.TCP(b)
				h := handoff.MemHeader{Version: version, VM: "v", Attempt: "a"}
				giver, err := handoff.OpenMemory(b.Context(), x, h, flow.MaxLanes)
				if err != nil {
					b.Fatal(err)
				}
				_, taker, err := handoff.AcceptMemory(b.Context(), y)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(content)))
				for b.Loop() {
					wrote := make(chan error, 1)
					go func() {
						for at := 0; at < len(content); at += 64 << 10 {
							if _, err := giver.Write(content[at : at+64<<10]); err != nil {
								wrote <- err
								return
							}
						}
						wrote <- nil
					}()
					buf := make([]byte, 64<<10)
					for left := len(content); left > 0; {
						n, err := taker.Read(buf)
						if err != nil {
							b.Fatal(err)
						}
						left -= n
					}
					if err := <-wrote; err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(giver.Wire())/float64(giver.Arrived()+1), "wire/byte")
				_, _ = giver.Reset(), taker.Reset()
			})
		}
	}
}
