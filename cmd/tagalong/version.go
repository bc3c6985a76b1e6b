package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// version is set by the release build: -ldflags "-X main.version=1.2.3".
var version = ""

// versionInfo is what version --json prints.
type versionInfo struct {
	Version string `json:"version"`
	API     int    `json:"api"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	System  string `json:"system"`
}

// ownVersion describes this binary.
func ownVersion() versionInfo {
	v := versionInfo{Version: version, API: api.Version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	if v.Version == "" {
		v.Version = "devel"
	}
	return v
}

func newVersion(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Say which version this is",
		Example: "  tagalong version",
		Args:    between(0, 0),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		v := ownVersion()
		if *asJSON {
			return c.out.json(v)
		}
		c.out.say("tagalong %s (API %d, %s, %s)", v.Version, v.API, v.Go, v.System)
		return nil
	}
	return cmd
}
