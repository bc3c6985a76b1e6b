//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// entered marks a process that Enter has started anew.
const entered = "TAGALONG_LAB_ENTERED"

// Enter lets a test make hosts without root: it starts the program anew, with
// the same arguments, as root of a user namespace of its own, where /run is
// empty and the outer network out of reach. Call it first thing in main or TestMain. As
// root it does nothing; otherwise it returns only if it fails: ErrPrivilege.
func Enter() error {
	if os.Geteuid() == 0 {
		return nil
	}
	if os.Getenv(entered) != "" {
		return fmt.Errorf("enter user namespace: still not root: %w", ErrPrivilege)
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return fmt.Errorf("enter user namespace: %w: %w", ErrPrivilege, err)
	}
	if out, err := exec.Command(unshare, "-Urnm", "true").CombinedOutput(); err != nil {
		return fmt.Errorf("enter user namespace: %w: %w: %s", ErrPrivilege, err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("enter user namespace: %w", err)
	}
	const script = `mount -t tmpfs -o mode=755 tmpfs /run && exec "$0" "$@"`
	args := append([]string{unshare, "-Urnm", "sh", "-c", script, self}, os.Args[1:]...)
	if err := unix.Exec(unshare, args, append(os.Environ(), entered+"=1")); err != nil {
		return fmt.Errorf("enter user namespace: %w: %w", ErrPrivilege, err)
	}
	return nil
}
