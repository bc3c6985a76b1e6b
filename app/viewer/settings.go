package viewer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"tagalong.org/tagalong/app/durable"
)

// Settings are what the person has set about viewers on this device.
type Settings struct {
	// Auto opens a VM's screen when the VM starts on, or comes to, this device.
	Auto bool
}

// settingsVersion is the format of the file.
const settingsVersion = 1

// maxSettings bounds the file, in bytes.
const maxSettings = 4 << 10

// ErrSettings says that the file of settings can't be read.
var ErrSettings = errors.New("viewer: the settings can't be read")

type settingsFile struct {
	Version int  `json:"version"`
	Auto    bool `json:"auto"`
}

func settingsPath(dataDir string) string { return filepath.Join(dataDir, "viewer.json") }

// Load reads the settings; where nothing was ever set, a screen opens by itself.
func Load(dataDir string) (Settings, error) {
	b, err := os.ReadFile(settingsPath(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{Auto: true}, nil
	}
	var f settingsFile
	switch {
	case err != nil:
		return Settings{}, fmt.Errorf("%w: %w", ErrSettings, err)
	case len(b) > maxSettings:
		return Settings{}, fmt.Errorf("%w: %d bytes", ErrSettings, len(b))
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return Settings{}, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	if f.Version != settingsVersion {
		return Settings{}, fmt.Errorf("%w: version %d", ErrSettings, f.Version)
	}
	return Settings{Auto: f.Auto}, nil
}

// Save keeps the settings durably.
func (s Settings) Save(dataDir string) error {
	b, err := json.Marshal(settingsFile{Version: settingsVersion, Auto: s.Auto})
	if err != nil {
		return err
	}
	if err := durable.Write(settingsPath(dataDir), b); err != nil {
		return fmt.Errorf("viewer: keep the settings: %w", err)
	}
	return nil
}
