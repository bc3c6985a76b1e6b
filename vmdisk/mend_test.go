package vmdisk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeebo/blake3"
)

func TestMendPutsBackWhatWasRecorded(t *testing.T) {
	dir := t.TempDir()
	const size = regionSize + 3*Block
	d, err := Create(dir, NewID(), size, Options{BarrierEvery: -1, SaveEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Activate(1); err != nil {
		t.Fatal(err)
	}
	right := bytes.Repeat([]byte("right..."), MendUnit/8)
	last := bytes.Repeat([]byte("last...."), 3*Block/8)
	if err := errors.Join(d.WriteAt(right, 2*MendUnit, true), d.WriteAt(last, regionSize, true)); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := d.Recorded(2 * MendUnit); ok || err != nil {
		t.Errorf("recorded of what is being written: %v, %v", ok, err)
	}
	// Closed and opened, nothing of it is being written any more.
	if err := errors.Join(d.Fence(), d.Give(1), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(dir, Options{BarrierEvery: -1, SaveEvery: -1}); err != nil {
		t.Fatal(err)
	}
	defer func() { d.Close() }()
	if err := d.Activate(2); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Scrub(t.Context(), ScrubOptions{Record: true}); err != nil || s.Recorded == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	base, err := os.OpenFile(filepath.Join(dir, "base.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	for _, off := range []int64{2*MendUnit + 5, regionSize} {
		if _, err := base.WriteAt([]byte("WRONG"), off); err != nil {
			t.Fatal(err)
		}
	}
	s, err := d.Scrub(t.Context(), ScrubOptions{})
	if err != nil || len(s.Damaged) != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	sum := blake3.Sum256(right)
	if got, ok, err := d.Recorded(2 * MendUnit); err != nil || !ok || got != [16]byte(sum[:16]) {
		t.Errorf("recorded %x, %v, %v", got, ok, err)
	}
	zeros := blake3.Sum256(make([]byte, MendUnit))
	if got, ok, err := d.Recorded(0); err != nil || !ok || got != [16]byte(zeros[:16]) {
		t.Errorf("recorded of zeros %x, %v, %v", got, ok, err)
	}
	wrong := bytes.Clone(right)
	wrong[0] ^= 1
	for what, err := range map[string]error{
		"something else":   d.Mend(wrong, 2*MendUnit),
		"the wrong place":  d.Mend(right, 3*MendUnit),
		"another region's": d.Mend(last, 2*MendUnit),
	} {
		if err == nil {
			t.Errorf("mended with %s", what)
		}
	}
	if err := d.Mend(right, 5); !errors.Is(err, ErrRange) {
		t.Errorf("between units: %v", err)
	}
	if err := errors.Join(d.Mend(right, 2*MendUnit), d.Mend(last, regionSize)); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Scrub(t.Context(), ScrubOptions{}); err != nil || len(s.Damaged) != 0 || s.Verified == 0 {
		t.Errorf("after it was mended: %+v, %v", s, err)
	}
	// What the guest has written since goes before what was recorded.
	if err := d.WriteAt([]byte("newer"), 2*MendUnit, true); err != nil {
		t.Fatal(err)
	}
	if err := d.Mend(right, 2*MendUnit); !errors.Is(err, ErrNotRecorded) {
		t.Errorf("over the guest's write: %v", err)
	}
	got := make([]byte, 5)
	if err := d.ReadAt(got, 2*MendUnit); err != nil || string(got) != "newer" {
		t.Errorf("the guest reads %q, %v", got, err)
	}
}
