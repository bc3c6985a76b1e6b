package directory

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// writeForever is the process that is killed: it says every number that it has
// stored, as a local value, a record and a transfer with its baton.
func writeForever(dir string) int {
	d, err := Open(opts("a", dir))
	if err == nil {
		err = writeOn(d)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func writeOn(d *Directory) error {
	for n := 0; ; n++ {
		vm := fmt.Sprintf("vm-%d-%d", os.Getpid(), n)
		if err := d.SetLocal("n", []byte(vm)); err != nil {
			return err
		}
		if err := d.PutDevice(Device{Name: vm}); err != nil {
			return err
		}
		c, err := d.NewCreated(vm)
		if err != nil {
			return err
		}
		if err := d.AppendTransfer(c, BatonEntry(vm, []byte(vm))); err != nil {
			return err
		}
		fmt.Println(vm)
	}
}

// TestKill9 kills a writing process again and again: what it said is there.
func TestKill9(t *testing.T) {
	dir := t.TempDir()
	var said []string
	for range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TAGALONG_TEST_WRITE="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		stop, n := 1+rand.IntN(60), 0
		for lines.Scan() {
			said = append(said, lines.Text())
			if n++; n == stop {
				must(t, cmd.Process.Kill())
			}
		}
		if n < stop {
			t.Fatalf("the process ended by itself after %d", n)
		}
		_ = cmd.Wait() // killed
	}

	d, err := Open(opts("a", dir))
	must(t, err)
	defer func() { must(t, d.Close()) }()
	for _, vm := range said {
		b, err := d.LoadBaton(vm)
		if err != nil || string(b) != vm || len(d.Chain(vm)) != 1 {
			t.Fatalf("%s was stored and is lost: %q, %v, %v", vm, b, err, d.Chain(vm))
		}
	}
	last := said[len(said)-1]
	for what, got := range map[string]string{"local": local(t, d, "n"), "device": d.Devices()[0].Name} {
		if number(t, got) < number(t, last) {
			t.Errorf("%s is %s, but %s was stored", what, got, last)
		}
	}
	// A commit is whole or not at all.
	for vm := range d.trees {
		if _, err := d.LoadBaton(vm); err != nil {
			t.Errorf("%s without its baton: %v", vm, err)
		}
	}
	t.Logf("%d commits of five processes survived", len(said))
}

func local(t *testing.T, d *Directory, key string) string {
	t.Helper()
	b, err := d.Local(key)
	must(t, err)
	return string(b)
}

func number(t *testing.T, vm string) int {
	t.Helper()
	n, err := strconv.Atoi(vm[strings.LastIndexByte(vm, '-')+1:])
	must(t, err)
	return n
}
