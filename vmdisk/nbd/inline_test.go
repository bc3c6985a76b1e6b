package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

// A small request that is carried out by the goroutine that reads allocates nothing, at the server or on the way there.
func TestInlineAllocatesNothing(t *testing.T) {
	c := connect(t, serve(t, &Server{Backend: &nullDisk{1 << 30}}).path, "", true)
	got := make([]byte, chunkSize+8+4096)
	for _, x := range []struct {
		cmd    uint16
		answer int
	}{{cmdRead, len(got)}, {cmdWrite, simpleSize}} {
		sent := requestBytes(x.cmd, 0, 1, 0, 4096)
		if x.cmd == cmdWrite {
			sent = append(sent, make([]byte, 4096)...)
		}
		allocs := testing.AllocsPerRun(500, func() {
			if _, err := c.nc.Write(sent); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c.in, got[:x.answer]); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("command %d: %v allocations each", x.cmd, allocs)
		}
	}
}

// parts is a prompt disk except from some place on, whose writes there can be held.
type parts struct {
	*memDisk
	from int64
}

func (d parts) Prompt(off, _ int64, _ bool) bool { return off < d.from }

// Prompt requests wait for a change under way that they overlap, and for no other; then they see it.
func TestInlineWaitsForWhatItOverlaps(t *testing.T) {
	for _, cmd := range []uint16{cmdRead, cmdWrite} {
		d := newMemDisk(1 << 20)
		g := newGate()
		d.setHook(g.hold(64 << 10))
		s := serve(t, &Server{Backend: parts{d, 64 << 10}})
		c := connect(t, s.path, "", true)
		first := c.ask(cmdWrite, 0, 64<<10, 4096, fill(4096, 9))
		wait(t, g.entered)
		if got := c.must(cmdRead, 0, 0, 4096, nil); got[0] != 0 {
			t.Errorf("read %d", got[0])
		}
		// It begins in the prompt part and reaches into the held write.
		var data []byte
		if cmd == cmdWrite {
			data = fill(8192, 5)
		}
		second := c.ask(cmd, 0, 60<<10, 8192, data)
		c.must(cmdWrite, 0, 8192, 4096, fill(4096, 1))
		g.release <- nil
		answers := map[uint64]answer{}
		for range 2 {
			a := c.next(0)
			answers[a.cookie] = a
		}
		for _, cookie := range []uint64{first, second} {
			if a, ok := answers[cookie]; !ok || a.errno != 0 {
				t.Fatalf("answers %v", answers)
			}
		}
		if cmd == cmdRead && !bytes.Equal(answers[second].data, append(make([]byte, 4096), fill(4096, 9)...)) {
			t.Error("the read overtook the write")
		}
		if cmd == cmdWrite && !bytes.Equal(d.bytes()[60<<10:68<<10], data) {
			t.Error("the write overtook the one before")
		}
		s.stop()
		if err := d.breach(); err != nil {
			t.Error(err)
		}
	}
}

// What an inline write holds waits for it, on another connection too.
func TestOthersWaitForInlineWrite(t *testing.T) {
	d := newMemDisk(1 << 20)
	g := newGate()
	d.setHook(g.hold(0))
	s := serve(t, &Server{Backend: promptDisk{d}})
	one, two := connect(t, s.path, "", true), connect(t, s.path, "", true)
	one.ask(cmdWrite, 0, 0, 4096, fill(4096, 1))
	wait(t, g.entered)
	two.ask(cmdRead, 0, 0, 8192, nil)
	// It comes after the read was taken in; the read waits for the held write.
	two.must(cmdRead, 0, 32768, 4096, nil)
	d.setHook(nil)
	g.release <- nil
	if a := two.next(0); a.errno != 0 || !bytes.Equal(a.data, append(fill(4096, 1), make([]byte, 4096)...)) {
		t.Errorf("error %d: the read overtook the write of another connection", a.errno)
	}
	if a := one.next(0); a.errno != 0 {
		t.Errorf("error %d", a.errno)
	}
}

// A prompt disk's errors are answered in the right form, between others that go well.
func TestInlineErrors(t *testing.T) {
	for _, structured := range []bool{false, true} {
		d := newMemDisk(1 << 20)
		bad := errors.New("bad sector")
		d.setHook(func(op string, off, _ int64) error {
			if off == 4096 {
				return bad
			}
			return nil
		})
		c := connect(t, serve(t, &Server{Backend: promptDisk{d}}).path, "", structured)
		var sent []byte
		for i := range uint64(9) {
			cmd := cmdRead
			if i%2 == 1 {
				cmd = cmdWrite
			}
			sent = append(sent, requestBytes(cmd, 0, i, i%3*4096, 4096)...)
			if cmd == cmdWrite {
				sent = append(sent, fill(4096, byte(i))...)
			}
		}
		c.send(sent)
		for i := range uint64(9) {
			want := nbdOK
			if i%3 == 1 {
				want = nbdEIO
			}
			n := 0
			if i%2 == 0 {
				n = 4096
			}
			if a := c.next(n); a.cookie != i || a.errno != want {
				t.Fatalf("structured=%v: answer %d, error %d", structured, a.cookie, a.errno)
			}
		}
	}
}

// Slow requests go to the workers for a while, and then are tried again.
func TestPace(t *testing.T) {
	p := pace{limit: time.Hour}
	for range 1000 {
		if !p.quick() {
			t.Fatal("a quick one is held for slow")
		}
		p.end(p.begin(), 4096)
	}
	// One slow one among quick ones is chance.
	for range 100 {
		p.note(false)
		for range slowScore {
			p.note(true)
		}
		if !p.quick() {
			t.Fatal("a slow one among quick ones counts too much")
		}
	}
	p.note(false)
	p.note(false)
	for range restFor {
		if p.quick() {
			t.Fatal("slow ones go on inline")
		}
	}
	if !p.quick() {
		t.Fatal("never tried again")
	}
	// The time is really taken, of one in a few.
	p = pace{limit: -time.Hour}
	measured := 0
	for p.quick() {
		start := p.begin()
		if !start.IsZero() {
			measured++
		}
		p.end(start, 0)
	}
	if measured != 2 {
		t.Errorf("%d were measured until it rests", measured)
	}
}

// Whatever comes in whatever pieces, and however it is used, no byte is lost or comes twice.
func TestInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := make([]byte, rapid.IntRange(0, 4096).Draw(t, "length"))
		for i := 0; i+2 <= len(all); i += 2 {
			binary.BigEndian.PutUint16(all[i:], uint16(i))
		}
		var from io.Reader = bytes.NewReader(all)
		switch rapid.IntRange(0, 3).Draw(t, "pieces") {
		case 0:
			from = iotest.OneByteReader(from)
		case 1:
			from = iotest.HalfReader(from)
		case 2:
			from = iotest.DataErrReader(from)
		}
		in := newInput(from, 256)
		var got []byte
		for {
			n := rapid.IntRange(1, 256).Draw(t, "n")
			if rapid.Bool().Draw(t, "peek") {
				p, err := in.peek(n, rapid.IntRange(1, 300).Draw(t, "most"))
				if err != nil {
					if rest := len(all) - len(got); rest >= n || (err == io.EOF) != (rest == 0) {
						t.Fatalf("%v with %d left of %d", err, rest, n)
					}
					return
				}
				n = rapid.IntRange(0, n).Draw(t, "skip")
				got = append(got, p[:n]...)
				in.skip(n)
			} else {
				p := make([]byte, n)
				k, err := in.Read(p)
				got = append(got, p[:k]...)
				if err == io.EOF && len(got) == len(all) {
					return
				} else if err != nil && err != io.EOF {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, all[:len(got)]) {
				t.Fatal("bytes differ")
			}
		}
	})
}
