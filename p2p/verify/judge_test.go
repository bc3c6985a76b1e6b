package verify

import "testing"

// A copy that is right is never made what a damaged disk is, as far as that can be known.
func TestJudge(t *testing.T) {
	good, bad, other := Sum{1}, Sum{2}, Sum{3}
	of := func(s Sum, r Record) side { return side{record: r, sum: s} }
	for name, x := range map[string]struct {
		own       side
		copies    map[string]side
		overwrite bool
		want      map[string]verdict
	}{
		"all are alike":                   {own: of(good, NoRecord), copies: map[string]side{"a": of(good, NoRecord), "b": of(good, NotAsRecorded)}, want: map[string]verdict{"a": equal, "b": equal}},
		"two without records":             {own: of(good, NoRecord), copies: map[string]side{"a": of(bad, NoRecord)}, want: map[string]verdict{"a": undecided}},
		"the same, by the person's word":  {own: of(good, NoRecord), copies: map[string]side{"a": of(bad, AsRecorded)}, overwrite: true, want: map[string]verdict{"a": send}},
		"the copy's record says it":       {own: of(good, NoRecord), copies: map[string]side{"a": of(bad, NotAsRecorded)}, want: map[string]verdict{"a": send}},
		"the copy can't be read":          {own: of(good, NoRecord), copies: map[string]side{"a": of(Sum{}, Unreadable)}, want: map[string]verdict{"a": send}},
		"the owner's record says it":      {own: of(good, AsRecorded), copies: map[string]side{"a": of(bad, NoRecord)}, want: map[string]verdict{"a": send}},
		"the owner's disk is damaged":     {own: of(bad, NoRecord), copies: map[string]side{"a": of(good, AsRecorded)}, want: map[string]verdict{"a": better}},
		"a third decides":                 {own: of(good, NoRecord), copies: map[string]side{"a": of(bad, NoRecord), "b": of(good, NoRecord)}, want: map[string]verdict{"a": send, "b": equal}},
		"a third is against the owner":    {own: of(bad, NoRecord), copies: map[string]side{"a": of(good, NoRecord), "b": of(good, NoRecord)}, want: map[string]verdict{"a": undecided, "b": undecided}},
		"three are three":                 {own: of(good, NoRecord), copies: map[string]side{"a": of(bad, NoRecord), "b": of(other, NoRecord)}, want: map[string]verdict{"a": undecided, "b": undecided}},
		"a third's record speaks":         {own: of(good, NoRecord), copies: map[string]side{"a": of(bad, NoRecord), "b": of(good, AsRecorded)}, want: map[string]verdict{"a": send, "b": equal}},
		"damage was copied, unrecorded":   {own: of(bad, NoRecord), copies: map[string]side{"a": of(good, AsRecorded), "b": of(bad, NoRecord)}, want: map[string]verdict{"a": better, "b": equal}},
		"damage was copied, and recorded": {own: of(bad, NoRecord), copies: map[string]side{"a": of(good, AsRecorded), "b": of(bad, AsRecorded)}, want: map[string]verdict{"a": undecided, "b": equal}},
		"both are recorded, a third too":  {own: of(good, AsRecorded), copies: map[string]side{"a": of(bad, AsRecorded), "b": of(good, AsRecorded)}, want: map[string]verdict{"a": send, "b": equal}},
		"both are recorded":               {own: of(good, AsRecorded), copies: map[string]side{"a": of(bad, AsRecorded)}, want: map[string]verdict{"a": undecided}},
	} {
		for device, c := range x.copies {
			c.own = x.own.sum
			x.copies[device] = c
		}
		got := judge(x.own, x.copies, x.overwrite)
		for device, want := range x.want {
			if got[device] != want {
				t.Errorf("%s: %s is %d, not %d", name, device, got[device], want)
			}
		}
	}
}
