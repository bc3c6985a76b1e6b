package qemu

import "testing"

// TestTrialTells runs the trial's guest under emulation, where it must succeed: so its failure under KVM means something.
func TestTrialTells(t *testing.T) {
	if err := runTrial(testContext(t), Binary, "tcg"); err != nil {
		t.Error(err)
	}
	if err := runTrial(testContext(t), Binary, "no-such-accelerator"); err == nil {
		t.Error("a QEMU that can't start passed the trial")
	}
}

func TestHasFlag(t *testing.T) {
	info := []byte("processor : 0\nflags\t\t: fpu svm sse\n")
	if !hasFlag(info, "svm") || hasFlag(info, "sv") || hasFlag(info, "vmx") || hasFlag(nil, "svm") {
		t.Error("the flags were misread")
	}
}
