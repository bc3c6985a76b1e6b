package ui

import (
	"time"

	"tagalong.org/tagalong/app/api"
)

// copyOf says how far a replica is. "Up to date" is said only of a device that said so itself lately.
func copyOf(r *api.Replica, connected bool, now time.Time) copyRow {
	c := copyRow{Part: -1, Mood: moodIdle}
	state := r.State
	if !connected && state != api.ReplicaOwner {
		state = api.ReplicaAway
	}
	if r.Silent && r.State != api.ReplicaOwner {
		return copyRow{Part: -1, Mood: moodOff, Text: silentCopy(r, now)}
	}
	switch state {
	case api.ReplicaOwner:
		c.Text = t("copy.owner")
	case api.ReplicaLive, api.ReplicaWaiting:
		switch {
		case r.Remaining > 0 && state == api.ReplicaWaiting:
			c.Text = t("copy.waiting", "Size", lacks(r)) + lackAge(r, now)
		case r.Remaining > 0:
			c.Text = t("copy.behind", "Size", lacks(r)) + lackAge(r, now)
		case r.Heard.IsZero():
			c.Text = t("copy.unknown")
			c.Mood = moodOff
		case now.Sub(r.Heard) > api.SilentAfter:
			c.Text = t("copy.live-old", "Ago", ago(r.Heard, now))
			c.Mood = moodOff
		default:
			c.Text = t("copy.live")
		}
	case api.ReplicaCopying:
		c.Mood = moodBusy
		c.Part, c.Text = copyFlow(r, "copy.copying", now)
	case api.ReplicaBehind:
		c.Mood = moodBusy
		if r.Overrun.IsZero() {
			c.Part, c.Text = copyFlow(r, "copy.catching", now)
		} else {
			c.Part, c.Text = copyFlow(r, "copy.overrun", now)
		}
	case api.ReplicaPushing:
		c.Mood = moodBusy
		c.Part, c.Text = copyFlow(r, "copy.pushing", now)
	default:
		c.Mood = moodOff
		if r.Remaining > 0 {
			c.Text = t("copy.away-behind", "Size", lacks(r)) + lackAge(r, now)
		} else {
			c.Text = t("copy.away", "Ago", ago(r.Heard, now))
		}
	}
	return c
}

// silentCopy says how a replica last stood of which nobody knows how it stands now.
func silentCopy(r *api.Replica, now time.Time) string {
	switch {
	case r.Remaining > 0:
		return t("copy.unknown-behind", "Ago", ago(r.At, now), "Size", size(r.Remaining))
	case r.State == api.ReplicaCopying || r.Heard.IsZero():
		return t("copy.unknown")
	}
	return t("copy.live-old", "Ago", ago(r.Heard, now))
}

// lacks is how much a replica lacks: bytes, and blocks if they are known.
func lacks(r *api.Replica) string {
	if r.Blocks == 0 {
		return size(r.Remaining)
	}
	return tn("copy.blocks", int(r.Blocks), "Size", size(r.Remaining))
}

// lackAge is how old what a replica lacks is, after a text about that; nothing if that isn't known.
func lackAge(r *api.Replica, now time.Time) string {
	if r.Since.IsZero() {
		return ""
	}
	return " · " + t("copy.age", "Span", span(max(time.Second, now.Sub(r.Since)))) // less would only flicker
}

func copyFlow(r *api.Replica, key string, now time.Time) (float64, string) {
	part := -1.0
	if done, left := float64(max(0, r.Copied)), float64(max(0, r.Remaining)); done+left > 0 {
		part = done / (done + left)
	}
	text := t(key, "Size", lacks(r)) + lackAge(r, now)
	if r.Rate > 0 {
		text += " · " + rate(r.Rate)
	}
	if r.ETA > 0 {
		text += " · " + t("flow.left", "Span", span(r.ETA))
	}
	return part, text
}
