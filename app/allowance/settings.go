package allowance

import (
	"errors"
	"fmt"
	"slices"
)

// ErrSettings: what was set makes no sense.
var ErrSettings = errors.New("allowance: bad settings")

const (
	// MinRate is the slowest limit, in bytes a second. Below it a device at the other end would take this one for gone.
	MinRate = 1 << 10
	// MaxRate is the fastest limit; who wants more wants none.
	MaxRate = 1 << 40
	// maxWindows is how many times of the week can be set.
	maxWindows = 64
)

// Settings are what a person can set. Rates are in bytes a second, 0 is without limit.
type Settings struct {
	Up, Down int64
	Schedule []Window
	// Metered says what to do on a connection that costs by the byte.
	Metered Metered
	Battery Battery
}

// Metered says whether connections that cost by the byte are used.
type Metered string

const (
	AvoidMetered Metered = "avoid"
	AllowMetered Metered = "allow"
)

// Battery says what to do while this device runs on its battery.
type Battery struct {
	// Ignore says that it is all the same. The rest is kept for the time after.
	Ignore bool
	// Below is the charge, in percent, under which nothing is pushed; 0 is none.
	Below int
	// Rate bounds both directions above that.
	Rate int64
}

// Action is what a Window does.
type Action string

const (
	Off   Action = "off"   // nothing is pushed in these times
	Only  Action = "only"  // something is pushed in these times and in other Only ones, and not in any other
	Limit Action = "limit" // the window's rates apply in these times
)

// Window is times of the week and what is to be then. Their order doesn't matter.
type Window struct {
	Times
	Do Action
	// Up and Down are for Limit: bytes a second, 0 is without limit.
	Up, Down int64
}

// Default is what applies until a person sets something: no limits, no metered connections, on battery slowly, and below 30 % not at all.
func Default() Settings {
	return Settings{Metered: AvoidMetered, Battery: Battery{Below: 30, Rate: 1 << 20}}
}

// Clone is a copy that shares nothing.
func (s Settings) Clone() Settings {
	s.Schedule = slices.Clone(s.Schedule)
	return s
}

// Check returns ErrSettings, and what is wrong, if they make no sense.
func (s Settings) Check() error {
	for _, r := range []int64{s.Up, s.Down, s.Battery.Rate} {
		if err := CheckRate(r); err != nil {
			return err
		}
	}
	if s.Metered != AvoidMetered && s.Metered != AllowMetered {
		return fmt.Errorf("metered connections %q: %w", s.Metered, ErrSettings)
	}
	if s.Battery.Below < 0 || s.Battery.Below > 100 {
		return fmt.Errorf("battery below %d %%: %w", s.Battery.Below, ErrSettings)
	}
	if len(s.Schedule) > maxWindows {
		return fmt.Errorf("%d times of the week, %d at most: %w", len(s.Schedule), maxWindows, ErrSettings)
	}
	for _, w := range s.Schedule {
		if err := w.check(); err != nil {
			return err
		}
	}
	return nil
}

// CheckRate refuses what can't be kept.
func CheckRate(r int64) error {
	if r != 0 && (r < MinRate || r > MaxRate) {
		return fmt.Errorf("rate of %d B/s: %w", r, ErrSettings)
	}
	return nil
}

func (w Window) check() error {
	if err := w.Times.check(); err != nil {
		return err
	}
	switch {
	case w.Do != Off && w.Do != Only && w.Do != Limit:
		return fmt.Errorf("times to %q: %w", w.Do, ErrSettings)
	case w.Do == Limit && w.Up == 0 && w.Down == 0, w.Do != Limit && (w.Up != 0 || w.Down != 0):
		return fmt.Errorf("%s with rates %d and %d B/s: %w", w.Do, w.Up, w.Down, ErrSettings)
	}
	return errors.Join(CheckRate(w.Up), CheckRate(w.Down))
}
