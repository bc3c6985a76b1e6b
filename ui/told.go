package ui

import (
	"slices"

	"tagalong.org/tagalong/app/api"
)

// What the engine says is English, and names commands. Of what it gives a topic, the window has words of its own.

// switchTold says why a switch came to nothing.
func switchTold(sw *api.Switch) *message {
	e := sw.Error
	if e.Topic == api.TopicSwitchMemory && !slices.Contains(sw.Offers, api.WaySuspend) {
		return told(e, api.TopicSwitchTooLarge, sw.VMName, sw.FromName, sw.ToName)
	}
	return told(e, e.Topic, sw.VMName, sw.FromName, sw.ToName)
}

// told is what is read of an error: in the window's words for the topic, or in the engine's. from and to are the devices of a switch.
func told(e *api.Error, topic api.Topic, vm, from, to string) *message {
	if topic == "" {
		return errorMessage(e)
	}
	title := "told." + string(topic)
	next := title + ".next"
	args := []any{"VM", vm, "From", from, "To", to, "Other", e.Other, "Sentence", e.Sentence, "Next", e.Next,
		"Resume", t("button.resume"), "Force", t("button.force"), "Take", t("button.take"),
		"Points", t("button.points")}
	m := &message{Title: t(title, args...), Text: t(next, args...), Trouble: true}
	if m.Title == title || m.Text == next { // a newer engine's
		return errorMessage(e)
	}
	return m
}
