// Package viewer shows a VM's screen on the PC that runs it, in a window of the program remote-viewer (virt-viewer), until the person
// closes it or the VM leaves. The command line and the tray start it: the engine lives without a display.
//
// It guarantees: the screen is opened with a ticket that the engine issues for this viewer and that holds for a minute; the ticket is on
// no command line, in no environment and in no log, but in a file of mode 0600 in a directory of mode 0700, which remote-viewer deletes
// as soon as it has read it; and when [Session.Run] returns, the viewer's process, its file and its sockets are gone.
//
// SPICE goes straight to QEMU's private Unix socket, with clipboard, sound and a resolution that follows the window, as far as the
// guest has spice-vdagent. VNC does so too where the viewer can; remote-viewer can't, so for it a [bridge] listens on a port of the
// loopback, for one connection that knows a password of its own: another user of this PC who finds the port first gets nothing.
// VNC has no sound, and the resolution is the guest's.
//
// What was tried, with remote-viewer 11 and QEMU 7.2: the viewer opens all six channels that SPICE has for a VM (main with the agent's port, picture,
// keys and mouse, the pointer's picture, sound, microphone), before and after a switch. What a clipboard has, and the window's size, reach the guest by
// the first of them; that a guest's spice-vdagent does as it is told wasn't tried.
//
// QEMU's own window isn't used: it has one only if it was started with it, on the display that was there then, and it would end with
// that display.
//
// To test: go test ./app/viewer ; the tests with real windows need remote-viewer, Xvfb, ImageMagick and QEMU (build/deps.sh test).
package viewer
