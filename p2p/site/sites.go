package site

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Site is some devices that are together.
type Site struct {
	// ID is the lowest of Members: it tells the sites of one view apart, and changes with who is there.
	ID string
	// Name is what the person called it; "": nothing.
	Name string
	// Members in the order of their IDs; at least one.
	Members []string
	// Postmaster is one of Members; "" while there is none.
	Postmaster string
}

// Sites works out of all devices' records who is together and who is postmaster, in the order of site IDs. Each key of records is in
// one site. It depends on nothing but its argument, which it doesn't keep.
func Sites(records map[string]Record) []Site {
	pins := Pinned(records)
	ids := slices.Sorted(maps.Keys(records))
	seen := make(map[string]bool, len(ids))
	var out []Site
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		s := Site{ID: id, Name: pins[id], Members: []string{id}}
		for i := 0; i < len(s.Members); i++ {
			here := records[s.Members[i]]
			for _, other := range here.Sees {
				r, known := records[other.ID]
				if !known || seen[other.ID] || pins[other.ID] != s.Name {
					continue
				}
				if _, mutual := r.sees(s.Members[i]); mutual {
					seen[other.ID] = true
					s.Members = append(s.Members, other.ID)
				}
			}
		}
		slices.Sort(s.Members)
		s.Postmaster = postmaster(records, s.Members)
		out = append(out, s)
	}
	return out
}

// Pinned returns to which site the person has pinned each device that is pinned to one.
func Pinned(records map[string]Record) map[string]string {
	best := map[string]Pin{}
	// In the order of writers: between equal numbers the last counts.
	for _, by := range slices.Sorted(maps.Keys(records)) {
		for _, p := range records[by].Pins {
			if p.Number >= best[p.Device].Number {
				best[p.Device] = p
			}
		}
	}
	out := map[string]string{}
	for id, p := range best {
		if p.Site != "" {
			out[id] = p.Site
		}
	}
	return out
}

// postmaster is the member with the highest claim, or the only one.
func postmaster(records map[string]Record, members []string) string {
	if len(members) == 1 {
		return members[0]
	}
	var who string
	var claim uint64
	for _, id := range members {
		if c := records[id].Claim; c > claim {
			who, claim = id, c
		}
	}
	return who
}

// candidates returns members, the best postmaster first.
func candidates(records map[string]Record, members []string) []string {
	out := slices.Clone(members)
	slices.SortFunc(out, func(a, b string) int {
		x, y := records[a], records[b]
		return cmp.Or(compareClass(x, y), compareUp(x, y), strings.Compare(a, b))
	})
	return out
}

// compareClass is negative if x runs on something better than y.
func compareClass(x, y Record) int {
	power := map[Power]int{Mains: 0, PowerUnknown: 1, Battery: 2}
	link := map[Link]int{Wired: 0, LinkUnknown: 1, Wireless: 2}
	return cmp.Or(power[x.Power]-power[y.Power], link[x.Link]-link[y.Link])
}

// compareUp is negative if x has been up longer than y.
func compareUp(x, y Record) int {
	switch {
	case x.Up.IsZero() && y.Up.IsZero():
		return 0
	case x.Up.IsZero():
		return 1
	case y.Up.IsZero():
		return -1
	}
	return x.Up.Compare(y.Up)
}
