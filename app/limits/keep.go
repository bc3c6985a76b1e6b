package limits

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"tagalong.org/tagalong/app/allowance"
	"tagalong.org/tagalong/app/durable"
)

var (
	// ErrUnreadable: the file with what was set is there and can't be read. Reset puts it aside.
	ErrUnreadable = errors.New("limits: unreadable settings")
	// ErrVersion, with ErrUnreadable: a newer program has written it.
	ErrVersion = errors.New("limits: settings of a newer version")
)

const (
	fileVersion = 1
	maxFile     = 64 << 10
	// aside is added to the name of a file that Reset puts aside.
	aside = ".unreadable"
)

// kept is the file.
type kept struct {
	Version  int          `json:"version"`
	Up       int64        `json:"up"`
	Down     int64        `json:"down"`
	Schedule []keptWindow `json:"schedule,omitempty"`
	Metered  string       `json:"metered"`
	Battery  keptBattery  `json:"battery"`
	Paused   bool         `json:"paused,omitempty"`
	Until    time.Time    `json:"paused_until,omitzero"`
}

type keptWindow struct {
	When string `json:"when"`
	Do   string `json:"do"`
	Up   int64  `json:"up,omitempty"`
	Down int64  `json:"down,omitempty"`
}

type keptBattery struct {
	Ignore bool  `json:"ignore,omitempty"`
	Below  int   `json:"below"`
	Rate   int64 `json:"rate"`
}

// will is what a person decided and what outlives the engine.
type will struct {
	settings allowance.Settings
	paused   bool
	until    time.Time
}

// load reads the file; without one it is the default.
func load(file string) (will, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return will{settings: allowance.Default()}, nil
	}
	if err != nil {
		return will{}, fmt.Errorf("open: %w: %w", ErrUnreadable, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	if err != nil {
		return will{}, fmt.Errorf("read: %w: %w", ErrUnreadable, err)
	}
	w, err := decode(b)
	if err != nil {
		return will{}, fmt.Errorf("decode: %w: %w", ErrUnreadable, err)
	}
	return w, nil
}

func decode(b []byte) (will, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return will{}, err
	}
	if version.Version > fileVersion {
		return will{}, fmt.Errorf("version %d: %w", version.Version, ErrVersion)
	}
	var k kept
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&k); err != nil {
		return will{}, err
	}
	if k.Version != fileVersion {
		return will{}, fmt.Errorf("version %d", k.Version)
	}
	s := allowance.Settings{
		Up: k.Up, Down: k.Down, Metered: allowance.Metered(k.Metered),
		Battery: allowance.Battery{Ignore: k.Battery.Ignore, Below: k.Battery.Below, Rate: k.Battery.Rate},
	}
	for _, w := range k.Schedule {
		t, err := allowance.ParseTimes(w.When)
		if err != nil {
			return will{}, err
		}
		s.Schedule = append(s.Schedule, allowance.Window{Times: t, Do: allowance.Action(w.Do), Up: w.Up, Down: w.Down})
	}
	if err := s.Check(); err != nil {
		return will{}, err
	}
	return will{s, k.Paused, k.Until}, nil
}

func (w will) encode() ([]byte, error) {
	s := w.settings
	k := kept{
		Version: fileVersion, Up: s.Up, Down: s.Down, Metered: string(s.Metered),
		Battery: keptBattery{s.Battery.Ignore, s.Battery.Below, s.Battery.Rate}, Paused: w.paused, Until: w.until,
	}
	for _, x := range s.Schedule {
		k.Schedule = append(k.Schedule, keptWindow{x.Times.String(), string(x.Do), x.Up, x.Down})
	}
	b, err := json.MarshalIndent(k, "", "  ")
	return append(b, '\n'), err
}

func (w will) save(file string) error {
	b, err := w.encode()
	if err == nil {
		err = durable.Write(file, b)
	}
	if err != nil {
		return fmt.Errorf("limits: keep settings: %w", err)
	}
	return nil
}
