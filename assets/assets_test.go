package assets

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image"
	"image/png"
	"io"
	"os"
	"testing"
)

func TestTrayIcons(t *testing.T) {
	seen := map[string]string{}
	for name, data := range map[string][]byte{"idle": TrayIdle, "busy": TrayBusy, "trouble": TrayTrouble, "choice": TrayChoice, "offline": TrayOffline} {
		img, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b := img.Bounds(); b != image.Rect(0, 0, 64, 64) {
			t.Errorf("%s is %v", name, b)
		}
		if _, _, _, a := img.At(0, 0).RGBA(); a != 0 {
			t.Errorf("%s has no transparent corner", name)
		}
		if other, ok := seen[string(data)]; ok {
			t.Errorf("%s looks like %s", name, other)
		}
		seen[string(data)] = name
	}
}

// Every picture has its source beside it, and the sources are well-formed.
func TestSources(t *testing.T) {
	for _, name := range []string{"app", "tray-idle", "tray-busy", "tray-trouble", "tray-choice", "tray-offline"} {
		data, err := os.ReadFile("icons/" + name + ".svg")
		if err != nil {
			t.Error(err)
			continue
		}
		for d := xml.NewDecoder(bytes.NewReader(data)); ; {
			if _, err = d.Token(); err != nil {
				break
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(AppIcon) == 0 {
		t.Error("no icon of the program's own")
	}
}
