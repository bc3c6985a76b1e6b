package admission

import "testing"

func TestLeft(t *testing.T) {
	for _, c := range []struct {
		name   string
		others []Claim
		want   int64
	}{
		{"alone", nil, 100},
		{"one that has just begun", []Claim{{Promised: 60}}, 40},
		{"one that has all it may", []Claim{{Promised: 60, Taken: 60}}, 100},
		{"one with more than its own memory, for QEMU itself", []Claim{{Promised: 60, Taken: 70}}, 100},
		{"several", []Claim{{Promised: 60, Taken: 30}, {Promised: 40, Taken: 10}}, 40},
		{"too many", []Claim{{Promised: 60}, {Promised: 60}}, 0},
		{"nonsense from the system", []Claim{{Promised: 60, Taken: -5}}, 40},
	} {
		if got := Left(100, c.others); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
