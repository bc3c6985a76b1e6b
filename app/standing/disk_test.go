package standing

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestTheOwnersDiskIsRead(t *testing.T) {
	for _, want := range []Disk{{}, {Lacks: 7 << 30}, {Lacks: 4096, Needs: []string{"12D3KooWx", "12D3KooWy"}}} {
		if got, told, err := DecodeDisk(EncodeDisk(want)); err != nil || !told || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: %+v, %v, %v", want, got, told, err)
		}
	}
	many := Disk{Lacks: 1, Needs: strings.Split(strings.Repeat("x,", 99)+"x", ",")}
	if got, told, err := DecodeDisk(EncodeDisk(many)); err != nil || !told || len(got.Needs) != maxNeeds {
		t.Errorf("of a hundred: %d, %v, %v", len(got.Needs), told, err)
	}
	if d, told, err := DecodeDisk(""); err != nil || told || d.Lacks != 0 {
		t.Errorf("of an older program: %+v, %v, %v", d, told, err)
	}
	if _, told, err := DecodeDisk(`{"v":2,"lacks":"much"}`); !errors.Is(err, ErrVersion) || told {
		t.Errorf("of a newer program: %v, %v", told, err)
	}
	for _, bad := range []string{`{`, `[]`, `null`, `{"v":1,"lacks":-1}`, `{"v":1,"lacks":9e18}`, `{"v":1,"needs":[""]}`, `{"v":1,"needs":["` + strings.Repeat("x", maxName+1) + `"]}`} {
		if d, told, err := DecodeDisk(bad); err == nil || told || d.Lacks != 0 {
			t.Errorf("%s: %+v, %v, %v", bad, d, told, err)
		}
	}
}

func FuzzDecodeDisk(f *testing.F) {
	f.Add(EncodeDisk(Disk{Lacks: 1, Needs: []string{"a"}}))
	f.Fuzz(func(t *testing.T, raw string) {
		d, told, err := DecodeDisk(raw)
		if told && (err != nil || d.Lacks < 0 || len(d.Needs) > maxNeeds) || !told && (d.Lacks != 0 || d.Needs != nil) {
			t.Fatalf("%q: %+v, %v, %v", raw, d, told, err)
		}
	})
}
