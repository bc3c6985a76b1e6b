package pairing_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"tagalong.org/tagalong/p2p/pairing"
)

func TestNewCode(t *testing.T) {
	form := regexp.MustCompile(`^[0-9]{4}-[0-9]{4}$`)
	seen := map[string]bool{}
	for range 100 {
		c, err := pairing.NewCode()
		if err != nil || !form.MatchString(c) {
			t.Fatalf("%q, %v", c, err)
		}
		n, err := pairing.Normalise(c)
		if err != nil || n != strings.ReplaceAll(c, "-", "") {
			t.Errorf("%q became %q, %v", c, n, err)
		}
		seen[c] = true
	}
	if len(seen) < 95 {
		t.Errorf("%d codes of 100 differ", len(seen))
	}
}

func TestNormalise(t *testing.T) {
	for _, in := range []string{"48210937", "4821-0937", " 4821 0937\n", "48 21–09—37", "4-8-2-1-0-9-3-7", "4821\u00a00937"} {
		if got, err := pairing.Normalise(in); err != nil || got != "48210937" {
			t.Errorf("%q became %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "4821-093", "4821-09370", "4821-093x", "４８２１-0937", "4821_0937", strings.Repeat(" ", 100) + "48210937", "\xff48210937"} {
		if got, err := pairing.Normalise(in); !errors.Is(err, pairing.ErrBadCode) {
			t.Errorf("%q became %q, %v", in, got, err)
		}
	}
}
