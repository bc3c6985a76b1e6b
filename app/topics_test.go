package app

import (
	"os"
	"regexp"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/preflight"
	"tagalong.org/tagalong/directory/baton"
)

// Every reason that has a sentence of its own has a topic of its own, or needs none.
func TestReasonsHaveTopics(t *testing.T) {
	src, err := os.ReadFile("switchrun.go")
	if err != nil {
		t.Fatal(err)
	}
	told := regexp.MustCompile(`(?m)^\tcase (?:baton\.)?([rR]eason\w+):$`).FindAllSubmatch(src, -1)
	if want := len(endTopics) - 1; len(told) != want { // a finding of the preflight has its sentence from there
		t.Errorf("%d reasons have a sentence of their own, %d a topic: %s", len(told), want, told)
	}
	for reason, want := range map[string]api.Topic{
		baton.ReasonLinkLost: api.TopicSwitchLinkLost,
		reasonMemory:         api.TopicSwitchMemory,
		reasonTooBusy:        "",
		reasonPreflight + string(preflight.LackingCPU): api.TopicSwitchCPU,
		reasonPreflight + string(preflight.NoMachine):  api.TopicSwitchUnfit,
		"something that an older program says":         api.TopicSwitchFailed,
	} {
		if got := endTopic(reason); got != want {
			t.Errorf("%q is called %q, not %q", reason, got, want)
		}
	}
}
