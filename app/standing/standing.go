// Package standing is how an owner tells the fleet how a device's copy gets on: what a face of a third device shows of it. It travels
// in the directory's record of the replica, which only carries it, whenever that is written anyway: it is as old as the record.
//
// It guarantees that what it reads is sane, whoever wrote it, and that nothing is made up: a record without it, or of a newer program,
// reads as unknown. It holds no state and is safe for concurrent use. Test it with: go test ./app/standing
package standing

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// version of the form.
const version = 1

// ErrVersion says that a newer program wrote it.
var ErrVersion = errors.New("written by a newer program")

// Standing is how a copy gets on, at the time of the record that it is in.
type Standing struct {
	// State is how the owner names it, one of api's ReplicaState.
	State string
	// Rate is in bytes a second; 0 if nothing moves, or if that isn't known.
	Rate int64
	// Since bounds how old what it lacks is, Overrun is when it couldn't keep up, both by the owner's clock; zero if they don't apply.
	Since, Overrun time.Time
}

// form is what is written.
type form struct {
	V       int       `json:"v"`
	State   string    `json:"state,omitempty"`
	Rate    int64     `json:"rate,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Overrun time.Time `json:"overrun,omitzero"`
}

const (
	maxState = 32      // bytes of a state's name
	maxRate  = 1 << 40 // bytes a second
)

// Encode returns what Decode reads, under 300 bytes.
func Encode(s Standing) string {
	// Times with nothing but numbers in them always marshal.
	b, _ := json.Marshal(form{V: version, State: s.State, Rate: s.Rate, Since: whole(s.Since), Overrun: whole(s.Overrun)})
	return string(b)
}

// whole has no more of a time than is worth telling, and no clock of this process.
func whole(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// Decode reads it. told is false of nothing: a program wrote that record which doesn't tell this. Errors: ErrVersion, or that it makes no
// sense; in either case nothing is known.
func Decode(raw string) (s Standing, told bool, err error) {
	if len(raw) == 0 {
		return s, false, nil
	}
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal([]byte(raw), &head); err != nil {
		return s, false, fmt.Errorf("how a copy gets on: %w", err)
	}
	if head.V != version {
		return s, false, fmt.Errorf("how a copy gets on, form %d: %w", head.V, ErrVersion)
	}
	var f form
	if err := json.Unmarshal([]byte(raw), &f); err != nil {
		return s, false, fmt.Errorf("how a copy gets on: %w", err)
	}
	if len(f.State) > maxState || f.Rate < 0 || f.Rate > maxRate {
		return s, false, fmt.Errorf("how a copy gets on: state of %d bytes, rate %d", len(f.State), f.Rate)
	}
	return Standing{State: f.State, Rate: f.Rate, Since: f.Since, Overrun: f.Overrun}, true, nil
}
