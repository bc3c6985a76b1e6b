package discovery

import (
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	"github.com/zeebo/blake3"
)

const (
	tagContext = "tagalong discovery tag v1"
	tagBytes   = 16
)

// Tag returns what the device id advertises during the UTC hour of t: 32 hexadecimal digits. Somebody who doesn't know
// id can neither tell whose tag it is nor link it with the tag of another hour.
func Tag(id string, t time.Time) string {
	// The decimal hour and the separator keep (id, hour) unambiguous: an id holds no colon.
	material := strconv.FormatInt(hourOf(t), 10) + ":" + id
	sum := make([]byte, tagBytes)
	blake3.DeriveKey(tagContext, []byte(material), sum)
	return hex.EncodeToString(sum)
}

func hourOf(t time.Time) int64 { return t.Unix() / 3600 }

// tagTable maps the tags that members may show now to their ids. It is rebuilt only when its inputs change.
type tagTable struct {
	hour    int64
	members []string
	ids     map[string]string
}

// at returns the table for members at now; the hours before and after are included, so that clocks may be an hour off.
func (t *tagTable) at(now time.Time, members []string) map[string]string {
	if t.ids != nil && t.hour == hourOf(now) && slices.Equal(t.members, members) {
		return t.ids
	}
	t.hour, t.members = hourOf(now), append([]string(nil), members...)
	t.ids = make(map[string]string, 3*len(members))
	for _, id := range members {
		for _, shift := range []time.Duration{-time.Hour, 0, time.Hour} {
			t.ids[Tag(id, now.Add(shift))] = id
		}
	}
	return t.ids
}
