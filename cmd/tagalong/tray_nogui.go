//go:build nogui

package main

import "github.com/spf13/cobra"

// tray has nothing to show in this build.
func (c *cli) tray(cmd *cobra.Command) error {
	c.out.say("This build of Tagalong has no window; use the verbs below.\n")
	return cmd.Usage()
}
