// Package assets holds what Tagalong shows but doesn't compute: icons and translations, embedded in
// the binary so that a single file is a whole installation.
//
// It guarantees that every name below is there in every build and that it never changes at run
// time: the byte slices are shared, so callers must not write to them. It knows nothing of Fyne; a
// face wraps the bytes as it needs them.
//
// The PNG files are the SVG files of the same name, rendered at 64 by 64 pixels, because tray hosts
// want pixels (for instance: rsvg-convert -w 64 -h 64 tray-idle.svg -o tray-idle.png).
//
// Test it with: go test ./assets/
package assets

import "embed"

// Translations has one file a language, translations/LANG.json, in go-i18n's message format.
//
//go:embed translations/*.json
var Translations embed.FS

// AppIcon is the program's own icon, as SVG.
//
//go:embed icons/app.svg
var AppIcon []byte

// TrayIdle, TrayBusy, TrayTrouble, TrayChoice (two histories) and TrayOffline are the tray's icons, as PNG.
var (
	//go:embed icons/tray-idle.png
	TrayIdle []byte
	//go:embed icons/tray-busy.png
	TrayBusy []byte
	//go:embed icons/tray-trouble.png
	TrayTrouble []byte
	//go:embed icons/tray-choice.png
	TrayChoice []byte
	//go:embed icons/tray-offline.png
	TrayOffline []byte
)
