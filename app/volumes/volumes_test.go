package volumes

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

func TestOneDiskIsATable(t *testing.T) {
	table := One(5*Unit + block)
	if err := table.Check(); err != nil {
		t.Fatal(err)
	}
	if table.Space() != 5*Unit+block || table.Volumes[0].Bytes() != 5*Unit+block {
		t.Errorf("%+v", table)
	}
	grown, err := table.Grow("disk1", 7*Unit)
	if err != nil || grown.Space() != 7*Unit || len(grown.Volumes[0].Extents) != 1 {
		t.Errorf("%+v, %v", grown, err)
	}
	if table.Space() != 5*Unit+block {
		t.Error("growing changed the table it began with")
	}
}

// TestTablesOnlyEverGrow makes random tables and holds them against a map of whose each unit is.
func TestTablesOnlyEverGrow(t *testing.T) {
	for seed := range uint64(80) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		table := One(int64(1+rnd.IntN(5*256)) * block)
		owners := map[int64]string{} // of blocks
		offset := map[int64]int64{}  // what a block is within its volume
		note := func(when string) {
			t.Helper()
			for _, v := range table.Volumes {
				var at int64
				for p := range v.Pieces(0, v.Bytes()) {
					if p.Off != at {
						t.Fatalf("seed %d, %s: %s has a hole at %d", seed, when, v.ID, at)
					}
					at += p.Len
					for b := int64(0); b < p.Len; b += block {
						if o, known := owners[p.At+b]; known && (o != v.ID || offset[p.At+b] != p.Off+b) {
							t.Fatalf("seed %d, %s: %d was %s's, is %s's", seed, when, p.At+b, o, v.ID)
						}
						owners[p.At+b], offset[p.At+b] = v.ID, p.Off+b
					}
				}
				if at != v.Bytes() {
					t.Fatalf("seed %d, %s: %s has %d bytes in pieces of %d", seed, when, v.ID, v.Bytes(), at)
				}
			}
		}
		note("at first")
		for range 20 {
			before := table
			var err error
			switch v := table.Volumes[rnd.IntN(len(table.Volumes))]; rnd.IntN(4) {
			case 0:
				table, _, err = table.Add([]Kind{Disk, Vars, Memory}[rnd.IntN(3)], "", int64(1+rnd.IntN(700))*block)
			case 1, 2:
				table, err = table.Grow(v.ID, Round(v.Bytes())+int64(rnd.IntN(3))*Unit)
			case 3:
				table, err = table.Remove(v.ID)
			}
			if err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrFirst) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if err := table.Check(); err != nil {
				t.Fatalf("seed %d: %+v: %v", seed, table, err)
			}
			if !table.Extends(before) {
				t.Fatalf("seed %d: %+v doesn't extend %+v", seed, table, before)
			}
			same, _ := json.Marshal(table)
			if was, _ := json.Marshal(before); string(was) != string(same) && before.Extends(table) {
				t.Fatalf("seed %d: the older table extends the newer one:\n%s\n%s", seed, was, same)
			}
			if len(table.Volumes) > 1 && table.Space()%Unit != 0 {
				t.Fatalf("seed %d: the space ends at %d", seed, table.Space())
			}
			note("later")
		}
	}
}

func TestPieces(t *testing.T) {
	v := Volume{Extents: []Extent{{0, 3 * Unit}, {8 * Unit, Unit}, {16 * Unit, 2 * Unit}}}
	var got []Piece
	for p := range v.Pieces(3*Unit-512, Unit+1024) {
		got = append(got, p)
	}
	want := []Piece{{0, 3*Unit - 512, 512}, {512, 8 * Unit, Unit}, {512 + Unit, 16 * Unit, 512}}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct{ off, n int64 }{{-1, 1}, {0, -1}, {0, 6*Unit + 1}, {6 * Unit, 1}, {math.MaxInt64, 1}, {1, math.MaxInt64}} {
		if err := v.Within(c.off, c.n); !errors.Is(err, ErrBeyond) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := v.Within(6*Unit, 0); err != nil {
		t.Error(err)
	}
}

func TestHostileTables(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":             `{"version":1}`,
		"no version":          `{"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":4096}]}]}`,
		"not from 0":          `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":1048576,"bytes":4096}]}]}`,
		"memory first":        `{"version":1,"volumes":[{"id":"d","kind":"memory","extents":[{"at":0,"bytes":4096}]}]}`,
		"first removed":       `{"version":1,"volumes":[{"id":"d","kind":"disk","removed":true,"extents":[{"at":0,"bytes":4096}]}]}`,
		"empty":               `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":0}]}]}`,
		"negative":            `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":-4096}]}]}`,
		"half a block":        `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":512}]}]}`,
		"no extents":          `{"version":1,"volumes":[{"id":"d","kind":"disk"}]}`,
		"too large":           `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":17592186048512}]}]}`,
		"overflow":            `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":4096},{"at":9223372036853727232,"bytes":1048576}]}]}`,
		"overlap":             `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":2097152},{"at":1048576,"bytes":1048576}]}]}`,
		"overlap of two":      `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":2097152}]},{"id":"e","kind":"disk","extents":[{"at":1048576,"bytes":4096}]}]}`,
		"overlap of removed":  `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":4096}]},{"id":"e","kind":"disk","removed":true,"extents":[{"at":1048576,"bytes":4096}]},{"id":"f","kind":"disk","extents":[{"at":1048576,"bytes":4096}]}]}`,
		"unaligned":           `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":4096},{"at":4096,"bytes":4096}]}]}`,
		"the same ID":         `{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":4096}]},{"id":"d","kind":"disk","extents":[{"at":1048576,"bytes":4096}]}]}`,
		"an ID that's a path": `{"version":1,"volumes":[{"id":"../d","kind":"disk","extents":[{"at":0,"bytes":4096}]}]}`,
	} {
		var table Table
		if err := json.Unmarshal([]byte(text), &table); err != nil {
			t.Fatal(name, err)
		}
		if err := table.Check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Table{Version: 2}).Check(); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
	many := One(Unit)
	for range MaxVolumes - 1 {
		var err error
		if many, _, err = many.Add(Disk, "", Unit); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := many.Add(Disk, "", Unit); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if _, err := many.Grow("disk1", MaxSpace); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if _, err := many.Grow("disk1", Unit-block); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, err := many.Grow("disk1", 0); !errors.Is(err, ErrSmaller) {
		t.Error(err)
	}
	if _, err := many.Grow("disk999", Unit); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if _, _, err := One(Unit).Add(Disk, "disk1", Unit); !errors.Is(err, ErrName) {
		t.Error(err)
	}
}

func TestRemovedVolumesStay(t *testing.T) {
	table, v, err := One(Unit).Add(Disk, "data", 2*Unit)
	if err != nil {
		t.Fatal(err)
	}
	if w, ok := table.Find("data"); !ok || w.ID != v.ID || w.Called() != "data" {
		t.Errorf("%+v", w)
	}
	gone, err := table.Remove(v.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := gone.Find("data"); ok || len(gone.Of(Disk)) != 1 || gone.Space() != table.Space() {
		t.Errorf("%+v", gone)
	}
	again, w, err := gone.Add(Disk, "data", Unit)
	if err != nil || w.ID == v.ID || w.Extents[0].At != 3*Unit {
		t.Errorf("%+v, %v", again, err)
	}
	if table.Extends(gone) || !again.Extends(table) {
		t.Error("a removed volume came back, or is forgotten")
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte(`{"version":1,"volumes":[{"id":"d","kind":"disk","extents":[{"at":0,"bytes":4096}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var table Table
		if json.Unmarshal(b, &table) != nil || table.Check() != nil {
			return
		}
		for _, v := range table.Volumes {
			if v.Bytes() <= 0 || v.Bytes() > MaxSpace {
				t.Fatalf("%+v", v)
			}
		}
		if next, _, err := table.Add(Disk, "", Unit); err == nil && (next.Check() != nil || !next.Extends(table)) {
			t.Fatalf("%+v", next)
		}
	})
}
