package locale

import (
	"os"
	"testing"
)

func TestGive(t *testing.T) {
	for _, c := range []struct {
		all, messages, lang string
		name, during        string
	}{
		{"", "", "C.UTF-8", "LANG", language},
		{"", "C.utf8", "de_DE.UTF-8", "LC_MESSAGES", language},
		{"C.UTF-8", "de_DE.UTF-8", "de_DE.UTF-8", "LC_ALL", language},
		{"", "", "de_DE.UTF-8", "LANG", "de_DE.UTF-8"},
		{"", "de_DE.UTF-8", "C.UTF-8", "LANG", "C.UTF-8"},
		{"", "", "", "LANG", ""},
		{"C", "", "C.UTF-8", "LANG", "C.UTF-8"},
	} {
		t.Setenv("LC_ALL", c.all)
		t.Setenv("LC_MESSAGES", c.messages)
		t.Setenv("LANG", c.lang)
		before := os.Getenv(c.name)
		back := Give()
		if got := os.Getenv(c.name); got != c.during {
			t.Errorf("%+v: %s is %q meanwhile", c, c.name, got)
		}
		back()
		if got := os.Getenv(c.name); got != before {
			t.Errorf("%+v: %s is %q afterwards", c, c.name, got)
		}
	}
}
