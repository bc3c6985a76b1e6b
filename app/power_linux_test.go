package app

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOnBattery(t *testing.T) {
	type supply map[string]string
	mains := func(online string) supply { return supply{"type": "Mains", "online": online + "\n"} }
	battery := func(status string) supply { return supply{"type": "Battery", "status": status + "\n"} }
	mouse := supply{"type": "Battery", "status": "Discharging", "scope": "Device"}
	for what, c := range map[string]struct {
		supplies []supply
		want     bool
	}{
		"a desktop":                   {nil, false},
		"a laptop on its battery":     {[]supply{mains("0"), battery("Discharging")}, true},
		"a laptop that charges":       {[]supply{battery("Charging"), mains("1")}, false},
		"a laptop on USB power":       {[]supply{mains("0"), {"type": "USB", "online": "1"}, battery("Discharging")}, false},
		"a desktop with a mouse":      {[]supply{mouse}, false},
		"a laptop that is full":       {[]supply{mains("1"), battery("Full")}, false},
		"one of two batteries in use": {[]supply{battery("Full"), battery("Discharging"), mouse}, true},
	} {
		dir := t.TempDir()
		for i, s := range c.supplies {
			at := filepath.Join(dir, string(rune('a'+i)))
			if err := os.Mkdir(at, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range s {
				if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := discharging(dir); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if discharging(filepath.Join(t.TempDir(), "none")) {
		t.Error("without power supplies")
	}
}
