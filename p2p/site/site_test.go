package site

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// fleetOf makes records in which the pairs of each word see each other: "ab bc" joins a to b and b to c, "a>b" says that only a sees b.
func fleetOf(ids, pairs string) map[string]Record {
	records := map[string]Record{}
	for _, id := range ids {
		records[string(id)] = Record{}
	}
	see := func(a, b string) {
		r := records[a]
		r.Sees = append(r.Sees, Seen{b, true})
		records[a] = r
	}
	for _, p := range strings.Fields(pairs) {
		if a, b, ok := strings.Cut(p, ">"); ok {
			see(a, b)
			continue
		}
		see(p[:1], p[1:])
		see(p[1:], p[:1])
	}
	return records
}

func with(records map[string]Record, id string, change func(r *Record)) {
	r := records[id]
	change(&r)
	records[id] = r
}

func told(sites []Site) string {
	var out []string
	for _, s := range sites {
		out = append(out, s.Name+strings.Join(s.Members, "")+"/"+s.Postmaster)
	}
	return strings.Join(out, " ")
}

func TestSites(t *testing.T) {
	claim := func(id string, n uint64) func(map[string]Record) {
		return func(m map[string]Record) { with(m, id, func(r *Record) { r.Claim = n }) }
	}
	pin := func(by, device, site string, n uint64) func(map[string]Record) {
		return func(m map[string]Record) {
			with(m, by, func(r *Record) { r.Pins = append(r.Pins, Pin{device, site, n}) })
		}
	}
	for _, c := range []struct {
		name, ids, pairs, want string
		change                 []func(map[string]Record)
	}{
		{"alone", "ab", "", "a/a b/b", nil},
		{"a claim alone says nothing", "ab", "", "a/a b/b", []func(map[string]Record){claim("a", 3)}},
		{"only one says so", "ab", "a>b", "a/a b/b", nil},
		{"closure", "abcd", "ab bc", "abc/ d/d", nil},
		{"highest claim", "abc", "ab bc", "abc/c", []func(map[string]Record){claim("a", 3), claim("c", 4)}},
		{"equal claims", "abc", "ab bc", "abc/b", []func(map[string]Record){claim("b", 4), claim("c", 4)}},
		{"not of the fleet", "ab", "ax ab", "ab/", []func(map[string]Record){func(m map[string]Record) { delete(m, "x") }}},
		{"pinned apart from what it sees", "abc", "ab bc", "ab/ Homec/c", []func(map[string]Record){pin("a", "c", "Home", 1)}},
		{"pinned together", "abc", "ab bc", "a/a Homebc/", []func(map[string]Record){pin("a", "c", "Home", 1), pin("c", "b", "Home", 1)}},
		{"two halves of one name", "abcd", "ab cd", "Homeab/ Homecd/", []func(map[string]Record){
			pin("a", "a", "Home", 1), pin("a", "b", "Home", 1), pin("a", "c", "Home", 1), pin("a", "d", "Home", 1)}},
		{"the latest word", "ab", "ab", "ab/", []func(map[string]Record){pin("a", "a", "Home", 1), pin("b", "a", "", 2)}},
		{"equal words: the higher writer", "ab", "ab", "Worka/a b/b", []func(map[string]Record){pin("b", "a", "Work", 2), pin("a", "a", "Home", 2)}},
	} {
		records := fleetOf(c.ids, c.pairs)
		for _, change := range c.change {
			change(records)
		}
		if got := told(Sites(records)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestBestFirst(t *testing.T) {
	at := func(hours int) time.Time { return time.Unix(1<<30, 0).Add(time.Duration(hours) * time.Hour) }
	records := map[string]Record{
		"1": {Power: Mains, Link: Wired, Up: at(1)},
		"2": {Power: Mains, Link: Wired, Up: at(2)},
		"3": {Power: Mains, Link: Wired, Up: at(2)},
		"4": {Power: Mains, Link: Wired},
		"5": {Power: Mains, Link: LinkUnknown, Up: at(-9)},
		"6": {Power: Mains, Link: Wireless, Up: at(-9)},
		"7": {Link: Wired},
		"8": {Power: Battery, Link: Wired, Up: at(-99)},
		"9": {Power: Battery, Link: Wireless},
	}
	got := candidates(records, []string{"9", "4", "8", "1", "7", "3", "6", "2", "5"})
	if !slices.IsSorted(got) {
		t.Errorf("the order is %v", got)
	}
}

func TestRecordIsWhatWasEncoded(t *testing.T) {
	for _, r := range []Record{
		{},
		{Power: Mains, Link: Wireless, Up: time.Unix(1700000000, 0).UTC(), Claim: maxNumber,
			Sees: []Seen{{"a", true}, {"b", false}}, Pins: []Pin{{"a", "Home, sweet", 1}, {"z", "", 7}}},
		{Power: Battery, Link: Wired, Up: time.Unix(-5, 0).UTC()},
	} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, r) || !got.Equal(r) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
	if r, err := Decode(nil); err != nil || !r.Equal(Record{}) {
		t.Errorf("a record of before: %+v, %v", r, err)
	}
	if _, err := (Record{Claim: maxNumber + 1}).Encode(); !errors.Is(err, ErrInvalid) {
		t.Errorf("a claim beyond the limit: %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	long := strings.Repeat("x", 200)
	for in, want := range map[string]error{
		`{"v":2,"sees":"who knows"}`:            ErrVersion,
		`{"v":0}`:                               ErrInvalid,
		`{}`:                                    ErrInvalid,
		`[]`:                                    ErrInvalid,
		`{"v":1,"sees":{"":true}}`:              ErrInvalid,
		`{"v":1,"sees":{"a b":true}}`:           ErrInvalid,
		`{"v":1,"sees":{"` + long + `":true}}`:  ErrInvalid,
		`{"v":1,"claim":9007199254740993}`:      ErrInvalid,
		`{"v":1,"claim":-1}`:                    ErrInvalid,
		`{"v":1,"up":99999999999999}`:           ErrInvalid,
		`{"v":1,"power":"` + long + `"}`:        ErrInvalid,
		`{"v":1,"pins":[{"device":"a","n":0}]}`: ErrInvalid,
		`{"v":1,"pins":[{"device":"a","site":"auto","n":1}]}`:              ErrInvalid,
		`{"v":1,"pins":[{"device":"a","site":"a\u0007","n":1}]}`:           ErrInvalid,
		`{"v":1,"pins":[{"device":"b","n":1},{"device":"a","n":1}]}`:       ErrInvalid,
		`{"v":1,"pins":[{"device":"a","n":1},{"device":"a","n":2}]}`:       ErrInvalid,
		`{"v":1,"x":"` + strings.Repeat("x", MaxRecord) + `"}`:             ErrInvalid,
		`{"v":1,"power":"sun","link":"pigeon","something":{"new":["er"]}}`: nil,
	} {
		if _, err := Decode([]byte(in)); !errors.Is(err, want) {
			t.Errorf("%.80s: %v, want %v", in, err, want)
		}
	}
	if r, _ := Decode([]byte(`{"v":1,"power":"sun","link":"pigeon"}`)); r.Power != PowerUnknown || r.Link != LinkUnknown {
		t.Errorf("what is new here isn't unknown: %+v", r)
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range []Record{{}, {Power: Mains, Sees: []Seen{{"a", true}}, Pins: []Pin{{"b", "Home", 2}}, Claim: 4, Up: time.Unix(9, 0)}} {
		b, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{"v":1,"sees":{"a":null},"power":"sun"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrVersion) {
				t.Fatalf("undocumented error %v", err)
			}
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		if got, err := Decode(again); err != nil || !got.Equal(r) {
			t.Fatalf("%+v became %+v, %v", r, got, err)
		}
		n := New("a", r)
		n.Tick(Input{Now: time.Second, Records: map[string]Record{"a": r, "b": r}, Peers: []Peer{{ID: "b", Connected: true}}})
	})
}
