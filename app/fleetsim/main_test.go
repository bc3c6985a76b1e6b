package fleetsim

import (
	"os"
	"runtime/debug"
	"testing"
)

// TestMain lets lives produce more garbage before it is looked for: there is little else on the heap, and it was half of the time.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}
