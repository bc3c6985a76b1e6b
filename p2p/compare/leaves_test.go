package compare_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

// scatter makes n blocks of theirs differ, at random places, and returns these in order.
func scatter(theirs *disk, n int64) []int64 {
	r, at := rand.New(rand.NewPCG(1, 2)), map[int64]bool{}
	for int64(len(at)) < n {
		x := r.Int64N(theirs.size / compare.Block)
		at[x] = true
		theirs.put(x, 0xff)
	}
	var out []int64
	for x := range at {
		out = append(out, x)
	}
	slices.Sort(out)
	return out
}

// Of 1 % scattered blocks the comparison costs less than a tenth of what they are; one block in a region costs next to nothing. Without leaves, which a
// peer with an older program doesn't know, it is four times as much.
func TestScatteredChangesCostLittle(t *testing.T) {
	for _, c := range []struct {
		version int
		size    int64
		changed int64   // blocks
		most    float64 // times what changed
	}{{2, 256 << 20, 655, 0.095}, {1, 32 << 20, 82, 0.41}, {2, 32 << 20, 819, 0.055}, {2, 32 << 20, 8, 0.45}} {
		size := c.size
		mine, theirs := newDisk(size), newDisk(size)
		mine.version = c.version
		same := bytes.Repeat([]byte{7}, compare.Block)
		for x := range int64(size / compare.Block) {
			mine.blocks[x], theirs.blocks[x] = same, same
		}
		changed := scatter(theirs, c.changed)
		a, b := wiretest.TCP(t)
		stats := [2]*compare.Stats{{}, {}}
		if ran, served := compared(t.Context(), a, b, mine, theirs, stats); ran != nil || served != nil {
			t.Fatalf("run: %v, serve: %v", ran, served)
		}
		if got := mine.unequal(); !slices.Equal(got, changed) {
			t.Fatalf("%d blocks differ, not %d", len(got), len(changed))
		}
		cost := float64(stats[0].Sent.Load()+stats[0].Received.Load()) / float64(len(changed)*compare.Block)
		t.Logf("version %d, %d blocks of %d changed: %d bytes sent, %d received: %.3f of what changed; the replica read %.2f times the disk", c.version, len(changed), size/compare.Block,
			stats[0].Sent.Load(), stats[0].Received.Load(), cost, float64(stats[1].Read.Load())/float64(size))
		if cost > c.most || stats[0].Compared.Load() != size {
			t.Errorf("version %d, %d blocks: %.3f of what changed, %d bytes compared", c.version, c.changed, cost, stats[0].Compared.Load())
		}
	}
}

// Where all differs the leaves are left out after the first window, on either side of which nothing is missed.
func TestWhereAllDiffersLeavesAreLeftOut(t *testing.T) {
	const regions, perRegion = 256 + 40, 64
	mine, theirs := newDisk(regions*compare.Region), newDisk(regions*compare.Region)
	one, other := bytes.Repeat([]byte{1}, compare.Block), bytes.Repeat([]byte{2}, compare.Block)
	var changed []int64
	for l := range int64(regions * perRegion) {
		x := l * (compare.Leaf / compare.Block)
		mine.blocks[x], theirs.blocks[x] = one, other
		changed = append(changed, x)
	}
	a, b := wiretest.TCP(t)
	stats := [2]*compare.Stats{{}, {}}
	if ran, served := compared(t.Context(), a, b, mine, theirs, stats); ran != nil || served != nil {
		t.Fatalf("run: %v, serve: %v", ran, served)
	}
	if got := mine.unequal(); !slices.Equal(got, changed) {
		t.Fatalf("%d blocks differ, not %d", len(got), len(changed))
	}
	const sum, middle, tags = 17, 9 + 16*perRegion, 129 + 16*perRegion
	if got, want := stats[0].Received.Load(), int64(regions*(sum+tags)+256*middle); got != want {
		t.Errorf("%d bytes came, want %d", got, want)
	}
	if stats[0].Compared.Load() != mine.size {
		t.Errorf("%d of %d bytes compared", stats[0].Compared.Load(), mine.size)
	}
}

// The layout of version 2 in the package comment; version 1 knows none of it.
func TestWireFormatOfLeaves(t *testing.T) {
	h := hello(10 << 20)
	d := newDisk(10 << 20)
	d.put(3, 1)
	d.put(5, 1)
	d.put(40, 2)
	d.put(1024+16, 0) // written zeros
	part := append(frame(4, 0), 0, 0, 0, 0, 0, 0, 0, 0b100)
	for version, want := range map[int]error{1: compare.ErrProtocol, 2: nil, 3: errRefused} {
		h.Version = version
		in := bytes.Join([][]byte{helloBytes(t, h), frame(3, 0, 3), part}, nil)
		out := &recorded{Input: wiretest.Input{Reader: bytes.NewReader(in)}}
		err := compare.Serve(t.Context(), out, func(compare.Hello) (compare.Reader, compare.State, error) { return d, whole, nil }, nil)
		if want == errRefused {
			var r *compare.Refusal
			if !errors.As(err, &r) {
				t.Errorf("version %d: %v", version, err)
			}
			continue
		}
		if !errors.Is(err, want) {
			t.Errorf("version %d: %v", version, err)
		}
		if version != 2 {
			continue
		}
		r := bytes.NewReader(out.out.Bytes())
		var st compare.State
		if err := wire.ReadJSON(r, wire.MaxMessage, &st); err != nil || st != whole {
			t.Fatalf("%+v: %v", st, err)
		}
		rest, _ := io.ReadAll(r)
		bits := make([]byte, 128)
		bits[40/8] = 1
		must := bytes.Join([][]byte{
			{0x85, 0, 0, 0, 0, 0, 0, 0, 0b101},
			keyed(t, []byte{0, 0, 0, 3, 0, 0, 0, 1}, d.blocks[3], []byte{0, 0, 0, 5, 0, 0, 0, 1}, d.blocks[5]), keyed(t, []byte{0, 0, 0, 40, 0, 0, 0, 1}, d.blocks[40]),
			frame(0x81, 2), {0x83}, bits, keyed(t, d.blocks[40]),
		}, nil)
		if !bytes.Equal(rest, must) {
			t.Fatalf("got\n%x, want\n%x", rest, must)
		}
	}
}

var errRefused = errors.New("refused")

// What a replica tells of leaves that nobody asked for, or that its disk doesn't have, ends the comparison.
func TestLeavesThatWereNotAskedFor(t *testing.T) {
	var state bytes.Buffer
	if err := wire.WriteFrame(&state, []byte(`{"complete":true,"position":{"term":4,"barrier":9}}`)); err != nil {
		t.Fatal(err)
	}
	sum := make([]byte, 16)
	unlike := append([]byte{0x82}, sum...)
	middle := append([]byte{0x85, 0, 0, 0, 0, 0, 0, 0, 1}, sum...)
	tags := func(block int) []byte {
		b := make([]byte, 129)
		b[0], b[1+block/8] = 0x83, 1<<(block%8)
		return append(b, sum...)
	}
	for name, c := range map[string]struct {
		answers [][]byte
		want    error
	}{
		"what was asked for": {[][]byte{unlike, frame(0x81, 2), middle, tags(5)}, nil},
		"another leaf":       {[][]byte{unlike, frame(0x81, 2), middle, tags(20)}, compare.ErrProtocol},
		"zeros of a part":    {[][]byte{unlike, frame(0x81, 2), middle, frame(0x81, 1)}, compare.ErrProtocol},
		"beyond the disk":    {[][]byte{frame(0x81, 2), unlike, append([]byte{0x85, 0x80, 0, 0, 0, 0, 0, 0, 0}, sum...)}, compare.ErrProtocol},
		"too early":          {[][]byte{middle}, compare.ErrProtocol},
	} {
		d := newDisk(10 << 20)
		d.put(3, 1)
		d.put(2060, 1)
		in := wiretest.Input{Reader: io.MultiReader(bytes.NewReader(state.Bytes()), bytes.NewReader(bytes.Join(c.answers, nil)))}
		err := compare.Run(t.Context(), in, hello(d.size), func(compare.State) (compare.Disk, error) { return d, nil }, nil)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if d.equal[3] || d.equal[2060] {
			t.Errorf("%s: a block was taken for equal", name)
		}
	}
}
