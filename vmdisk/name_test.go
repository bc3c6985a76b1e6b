package vmdisk

import "testing"

func TestNameBindsContentToTheTerm(t *testing.T) {
	dir := t.TempDir()
	d, err := Create(dir, NewID(), 1<<20, Options{BarrierEvery: -1, SaveEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { d.Close() }()
	if err := d.Activate(1); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(make([]byte, 4096), 0, true); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt([]byte{1}, 0, true); err != nil {
		t.Fatal(err)
	}
	before := d.Position()
	if p, err := d.Name(); err != nil || p != before {
		t.Fatalf("of its own term: %v, %v; it was %v", p, err, before)
	}
	if err := d.Renew(7); err != nil {
		t.Fatal(err)
	}
	if p := d.Position(); p != before {
		t.Fatalf("the new term has the position %v at once", p)
	}
	named, err := d.Name()
	if err != nil || named.Term != 7 || named.Compare(before) <= 0 {
		t.Fatalf("named %v, %v", named, err)
	}
	// It stays, whatever is asked next, and through a restart.
	if p, err := d.Name(); err != nil || p != named {
		t.Errorf("named again %v, %v", p, err)
	}
	if err := d.Flush(); err != nil || d.Position() != named {
		t.Errorf("after a flush it is %v, %v", d.Position(), err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Activate(7); err != nil || d.Position() != named {
		t.Errorf("after a restart it is %v, %v", d.Position(), err)
	}
}
