package records

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestDecodeReturnsWhatEncodeWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Record{
			Seq:     rapid.Uint64().Draw(t, "seq"),
			Run:     rapid.Uint64().Draw(t, "run"),
			Durable: rapid.Uint64().Draw(t, "durable"),
			Wall:    rapid.Int64().Draw(t, "wall"),
		}
		b := make([]byte, Size)
		r.Encode(b)
		got, err := Decode(b)
		if err != nil || got != r {
			t.Fatalf("Decode = %+v, %v; want %+v", got, err, r)
		}
		i := rapid.IntRange(0, Size-1).Draw(t, "damaged byte")
		b[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "damage"))
		if got, err := Decode(b); err == nil {
			t.Fatalf("byte %d damaged: Decode = %+v", i, got)
		}
	})
}

func TestDecodeTellsWhatIsWrong(t *testing.T) {
	whole := make([]byte, Size)
	Record{Seq: 7, Run: 3}.Encode(whole)
	torn := append([]byte(nil), whole...)
	Record{Seq: 8, Run: 3}.Encode(torn)
	copy(torn[512:], whole[512:])
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", make([]byte, Size), ErrEmpty},
		{"short", whole[:Size-1], ErrForeign},
		{"none", nil, ErrForeign},
		{"foreign", append([]byte("something else"), make([]byte, Size)...), ErrForeign},
		{"torn", torn, ErrChecksum},
	} {
		if _, err := Decode(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b := make([]byte, Size)
	f.Add(append([]byte(nil), b...))
	Record{Seq: 1, Run: 2, Durable: 0, Wall: 4}.Encode(b)
	f.Add(b)
	f.Add(b[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again := make([]byte, Size)
		r.Encode(again)
		if got, err := Decode(again); err != nil || got != r {
			t.Fatalf("decoded %+v doesn't survive: %+v, %v", r, got, err)
		}
	})
}
