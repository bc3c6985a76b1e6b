package diskimage

import "testing"

func TestParsePercent(t *testing.T) {
	for text, want := range map[string]float64{"    (12.34/100%)": 12.34, "(100.00/100%)": 100, "(0.00/100%)": 0} {
		if got, ok := parsePercent(text); !ok || got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "qemu-img: error", "(x/100%)", "(101/100%)"} {
		if _, ok := parsePercent(text); ok {
			t.Errorf("%q was taken for progress", text)
		}
	}
}
