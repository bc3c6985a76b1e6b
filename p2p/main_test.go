package p2p

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// helperEnv tells the test binary to play a device in a network namespace instead of running tests.
const helperEnv = "TAGALONG_P2P_DEVICE"

// deviceMain is that play; it is there where network namespaces are.
var deviceMain func() int

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" && deviceMain != nil {
		os.Exit(deviceMain())
	}
	goleak.VerifyTestMain(m)
}
