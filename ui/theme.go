package ui

import (
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/theme"
)

// colorPanel is what cards lie on, colorInlay what lies on cards and dialogs; Fyne has no names for them.
const (
	colorPanel fyne.ThemeColorName = "tagalong-panel"
	colorInlay fyne.ThemeColorName = "tagalong-inlay"
)

// look is Fyne's own theme with our colours, light and dark as the desktop wants it.
type look struct{ fyne.Theme }

func newLook() fyne.Theme { return look{theme.DefaultTheme()} }

var lightColors = map[fyne.ThemeColorName]color.Color{
	theme.ColorNameBackground:        color.NRGBA{0xF1, 0xF4, 0xF9, 0xFF},
	theme.ColorNameForeground:        color.NRGBA{0x1B, 0x24, 0x38, 0xFF},
	theme.ColorNamePlaceHolder:       color.NRGBA{0x5E, 0x6A, 0x80, 0xFF},
	theme.ColorNameButton:            color.NRGBA{0xE4, 0xEA, 0xF5, 0xFF},
	theme.ColorNameDisabledButton:    color.NRGBA{0xEC, 0xEF, 0xF4, 0xFF},
	theme.ColorNameDisabled:          color.NRGBA{0x75, 0x7F, 0x91, 0xFF},
	theme.ColorNamePrimary:           color.NRGBA{0x2B, 0x5F, 0xD9, 0xFF},
	theme.ColorNameInputBackground:   color.NRGBA{0xE6, 0xEB, 0xF4, 0xFF},
	theme.ColorNameInputBorder:       color.NRGBA{0x8C, 0x97, 0xAA, 0xFF},
	theme.ColorNameOverlayBackground: color.NRGBA{0xFF, 0xFF, 0xFF, 0xFF},
	theme.ColorNameMenuBackground:    color.NRGBA{0xFF, 0xFF, 0xFF, 0xFF},
	theme.ColorNameSuccess:           color.NRGBA{0x17, 0x8F, 0x5F, 0xFF},
	theme.ColorNameError:             color.NRGBA{0xC6, 0x2F, 0x2F, 0xFF},
	theme.ColorNameWarning:           color.NRGBA{0xB8, 0x6E, 0x0B, 0xFF},
	colorPanel:                       color.NRGBA{0xFF, 0xFF, 0xFF, 0xFF},
	colorInlay:                       color.NRGBA{0xF3, 0xF6, 0xFB, 0xFF},
}

var darkColors = map[fyne.ThemeColorName]color.Color{
	theme.ColorNameBackground:        color.NRGBA{0x16, 0x1A, 0x22, 0xFF},
	theme.ColorNameForeground:        color.NRGBA{0xEA, 0xEE, 0xF6, 0xFF},
	theme.ColorNamePlaceHolder:       color.NRGBA{0x98, 0xA4, 0xB8, 0xFF},
	theme.ColorNameButton:            color.NRGBA{0x2D, 0x36, 0x46, 0xFF},
	theme.ColorNameDisabledButton:    color.NRGBA{0x26, 0x2D, 0x3A, 0xFF},
	theme.ColorNameDisabled:          color.NRGBA{0x90, 0x9C, 0xB0, 0xFF},
	theme.ColorNamePrimary:           color.NRGBA{0x5B, 0x8C, 0xFF, 0xFF},
	theme.ColorNameInputBackground:   color.NRGBA{0x2B, 0x33, 0x42, 0xFF},
	theme.ColorNameInputBorder:       color.NRGBA{0x78, 0x86, 0x9D, 0xFF},
	theme.ColorNameOverlayBackground: color.NRGBA{0x22, 0x29, 0x36, 0xFF},
	theme.ColorNameMenuBackground:    color.NRGBA{0x22, 0x29, 0x36, 0xFF},
	theme.ColorNameSuccess:           color.NRGBA{0x3F, 0xC0, 0x8B, 0xFF},
	theme.ColorNameError:             color.NRGBA{0xFF, 0x73, 0x6E, 0xFF},
	theme.ColorNameWarning:           color.NRGBA{0xF2, 0xB2, 0x4B, 0xFF},
	colorPanel:                       color.NRGBA{0x20, 0x26, 0x32, 0xFF},
	colorInlay:                       color.NRGBA{0x19, 0x1E, 0x28, 0xFF},
}

// Color implements fyne.Theme.
func (l look) Color(name fyne.ThemeColorName, variant fyne.ThemeVariant) color.Color {
	colors := lightColors
	if variant == theme.VariantDark {
		colors = darkColors
	}
	if c, ok := colors[name]; ok {
		return c
	}
	return l.Theme.Color(name, variant)
}

// Size implements fyne.Theme.
func (l look) Size(name fyne.ThemeSizeName) float32 {
	switch name {
	case theme.SizeNameInputRadius, theme.SizeNameSelectionRadius:
		return 6
	case theme.SizeNameSubHeadingText:
		return 17
	}
	return l.Theme.Size(name)
}

// moodColor is the colour that stands for a mood.
func moodColor(m mood) fyne.ThemeColorName {
	switch m {
	case moodIdle:
		return theme.ColorNameSuccess
	case moodBusy:
		return theme.ColorNamePrimary
	case moodTrouble:
		return theme.ColorNameError
	case moodChoice:
		return theme.ColorNameWarning
	}
	return theme.ColorNameDisabled
}
