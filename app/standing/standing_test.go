package standing

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	at := time.Date(2026, 5, 4, 12, 0, 0, 123_456_789, time.FixedZone("here", 7200))
	want := Standing{State: "behind", Rate: 80 << 20, Since: at, Overrun: at.Add(-time.Minute)}
	raw := Encode(want)
	if len(raw) > 300 {
		t.Errorf("%d bytes", len(raw))
	}
	got, told, err := Decode(raw)
	if err != nil || !told || got.State != want.State || got.Rate != want.Rate || !got.Since.Equal(want.Since.Truncate(time.Millisecond)) || !got.Overrun.Equal(want.Overrun.Truncate(time.Millisecond)) {
		t.Errorf("%+v, %v, %v", got, told, err)
	}
	if got, told, err = Decode(Encode(Standing{})); err != nil || !told || got != (Standing{}) {
		t.Errorf("of nothing: %+v, %v, %v", got, told, err)
	}
}

func TestWhatIsNotKnownIsNotMadeUp(t *testing.T) {
	if s, told, err := Decode(""); err != nil || told || s != (Standing{}) {
		t.Errorf("of an older program: %+v, %v, %v", s, told, err)
	}
	if _, told, err := Decode(`{"v":2,"state":["new"]}`); !errors.Is(err, ErrVersion) || told {
		t.Errorf("of a newer program: %v, %v", told, err)
	}
	for _, bad := range []string{`{`, `[]`, `{"v":1,"rate":-1}`, `{"v":1,"rate":9e18}`, `{"v":1,"since":"x"}`, `{"v":1,"state":7}`,
		`{"v":1,"state":"` + strings.Repeat("x", maxState+1) + `"}`, `null`} {
		if s, told, err := Decode(bad); err == nil || told || s != (Standing{}) {
			t.Errorf("%s: %+v, %v, %v", bad, s, told, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(Standing{State: "live", Rate: 1, Since: time.Unix(1, 0)}))
	f.Fuzz(func(t *testing.T, raw string) {
		s, told, err := Decode(raw)
		if told && (err != nil || s.Rate < 0 || len(s.State) > maxState) || !told && s != (Standing{}) {
			t.Fatalf("%q: %+v, %v, %v", raw, s, told, err)
		}
	})
}
