package standstill

import (
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory/baton"
)

func TestWhy(t *testing.T) {
	well := Facts{VM: "Work", Other: "laptop", Linked: true, Room: true}
	for name, c := range map[string]struct {
		state baton.State
		hurt  func(f *Facts)
		code  api.Code
		says  string
	}{
		"at rest":                       {baton.Owned, func(f *Facts) { f.Room, f.Linked, f.For = false, false, time.Hour }, "", ""},
		"memory flows, the guest runs":  {baton.Offering, func(f *Facts) { f.Linked, f.For = false, time.Hour }, "", ""},
		"a moment ago":                  {baton.Given, func(f *Facts) { f.For = Patience - 1 }, "", ""},
		"given, and cut off":            {baton.Given, func(f *Facts) { f.Linked = false }, api.CodeUnreachable, `have it here: tagalong switch --force "Work"`},
		"loaded, and cut off":           {baton.Loaded, func(f *Facts) { f.Linked = false }, api.CodeUnreachable, `have it here: tagalong switch --force "Work"`},
		"given, and served":             {baton.Given, func(f *Facts) { f.Serves, f.For = true, Patience }, api.CodeBusy, "Keep this device on"},
		"given, served, a moment ago":   {baton.Given, func(f *Facts) { f.Serves = true }, "", ""},
		"given, served, and cut off":    {baton.Given, func(f *Facts) { f.Serves, f.Linked = true, false }, api.CodeUnreachable, "Keep this device on"},
		"given, and nothing comes":      {baton.Given, func(f *Facts) { f.For = Patience }, api.CodeBusy, "Look what laptop says"},
		"loaded, and nothing comes":     {baton.Loaded, func(f *Facts) { f.For = Patience }, api.CodeBusy, "Look what laptop says"},
		"nothing can be written":        {baton.Loaded, func(f *Facts) { f.Room = false }, api.CodeSpace, "Free some space"},
		"given, this disk doesn't help": {baton.Given, func(f *Facts) { f.Room = false }, "", ""},
		"writing fails":                 {baton.Taking, func(f *Facts) { f.For = Patience }, api.CodeInternal, "tried again"},
		"giving can't be written":       {baton.Giving, func(f *Facts) { f.Room = false }, api.CodeSpace, "Free some space"},
	} {
		f := well
		f.State = c.state
		c.hurt(&f)
		e := Why(f)
		switch {
		case c.code == "":
			if e != nil {
				t.Errorf("%s: %v", name, e)
			}
		case e == nil || e.Code != c.code || !strings.Contains(e.Sentence, "Work") || !strings.Contains(e.Next, c.says):
			t.Errorf("%s: %v", name, e)
		}
	}
}
