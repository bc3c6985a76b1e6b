package qemu

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// asEngine, in a process's environment, has it be an engine that asks the program that is named there what it can do.
const asEngine = "TAGALONG_TEST_SURVEY"

// TestASurveyEndsWithItsEngine: a QEMU without a guest isn't found again by anybody, so it mustn't outlive an engine that is killed.
func TestASurveyEndsWithItsEngine(t *testing.T) {
	if program := os.Getenv(asEngine); program != "" {
		q := &QEMU{Accel: "tcg", Path: program}
		_, err := q.Survey(t.Context())
		t.Fatalf("the survey ended by itself: %v", err)
	}
	dir := t.TempDir()
	program, number := filepath.Join(dir, "qemu"), filepath.Join(dir, "pid")
	script := "#!/bin/sh\ncase $1 in\n--version) echo QEMU emulator version 7.2.22 ;;\n*) echo $$ >" + number + "; exec sleep 600 ;;\nesac\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	engine := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	engine.Env = append(os.Environ(), asEngine+"="+program, "TMPDIR="+dir)
	if err := engine.Start(); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	var pid int
	eventually(t, ctx, "the survey", func() bool {
		b, err := os.ReadFile(number)
		if err == nil && bytes.HasSuffix(b, []byte("\n")) {
			pid, err = strconv.Atoi(string(bytes.TrimSpace(b)))
		}
		return err == nil && pid != 0
	})
	if err := engine.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = engine.Wait() // it was killed
	eventually(t, ctx, "the end of what it has begun", func() bool {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		return err != nil || len(b) == 0
	})
}
