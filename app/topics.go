package app

import (
	"strings"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/preflight"
	"tagalong.org/tagalong/directory/baton"
)

// endTopics are what the reasons for which a switch ends are called in the API. That it was cancelled, has two versions or is too busy, faces know.
var endTopics = map[string]api.Topic{
	baton.ReasonBusy:      api.TopicSwitchBusy,
	baton.ReasonNotOwner:  api.TopicSwitchNotOwner,
	baton.ReasonTimeout:   api.TopicSwitchTimeout,
	baton.ReasonLinkLost:  api.TopicSwitchLinkLost,
	baton.ReasonDied:      api.TopicSwitchDied,
	baton.ReasonRestarted: api.TopicSwitchRestarted,
	baton.ReasonOusted:    api.TopicSwitchOusted,
	baton.ReasonNotStored: api.TopicSwitchNotStored,
	reasonSuspended:       api.TopicSwitchOldMemory,
	reasonNotWhole:        api.TopicSwitchNotWhole,
	reasonLeaving:         api.TopicSwitchLeaving,
	reasonNotReady:        api.TopicSwitchNotReady,
	reasonSeesPoint:       api.TopicSwitchSeesPoint,
	reasonNoPostCopy:      api.TopicSwitchNoPostCopy,
	reasonNotComparedYet:  api.TopicSwitchNotCompared,
	reasonCameBack:        api.TopicSwitchCameBack,
	reasonNoRoom:          api.TopicSwitchNoRoom,
	reasonMemory:          api.TopicSwitchMemory,
	reasonNoHypervisor:    api.TopicSwitchHypervisor,
	reasonAccel:           api.TopicSwitchAccelerator,

	reasonPreflight + string(preflight.LackingCPU): api.TopicSwitchCPU,

	baton.ReasonCancelled: "",
	reasonConflict:        "",
	reasonTooBusy:         "",
}

// endTopic is what a switch that ended for the reason is called.
func endTopic(reason string) api.Topic {
	topic, known := endTopics[reason]
	switch {
	case known:
		return topic
	case strings.HasPrefix(reason, reasonPreflight):
		return api.TopicSwitchUnfit
	}
	return api.TopicSwitchFailed
}
