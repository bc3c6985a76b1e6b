// Package ui is Tagalong's face on the desktop: a tray menu and one window.
//
// It is one more client of the engine's local API and knows nothing else of the engine. It holds no
// state of its own that matters: it reads a whole api.Status, turns it into a view (a pure function,
// see viewOf), and draws what changed. So it may die and come back at any time, and so may the
// engine.
//
// What it guarantees: widgets are touched on Fyne's own goroutine only, and redrawn only when what
// they show has changed, at most twice a second; every failure is shown as a sentence with a next
// step; a closed window can always be found again (by the tray, by a second launch, or because the
// program ended with it when there is no tray); what gives something up (a takeover, a choice between two versions, a removal) is only done
// from a dialog that says what that is, and whose highlighted button is the harmless one.
//
// What it doesn't: keep VMs alive (the engine does), or work without a display and OpenGL.
//
// Test it headless with: go test -race -tags ci,migrated_fynedo ./ui/
// and for real, with a private X server and D-Bus session, with: go test -tags migrated_fynedo ./ui/
package ui
