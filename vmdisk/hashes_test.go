package vmdisk

import (
	"errors"
	"testing"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// FuzzHashes reads a file of recorded hashes that somebody else may have written, erases one slot and reads it again.
func FuzzHashes(f *testing.F) {
	const size = 3 * regionSize
	id, never := ID{4}, func(uint32) bool { return false }
	m := vfs.NewMem()
	h, err := openHashes(m, id, size)
	for r := uint32(0); r < 2 && err == nil; r++ {
		_, err = h.done(h.watch(r), never, &slot{data: 5})
	}
	if err != nil {
		f.Fatal(err)
	}
	good, err := readAll(h.f, 1<<20)
	if err = errors.Join(err, h.close()); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:hashesHeader])
	f.Add([]byte(slotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := vfs.NewMem()
		must(t, vfs.WriteNew(m, hashesName, b))
		h, err := openHashes(m, id, size)
		switch {
		case errors.Is(err, ErrVersion):
			return
		case errors.Is(err, ErrMalformed) && h != nil: // unreadable is as good as missing
		default:
			must(t, err)
		}
		for r := range uint32(3) {
			if s, torn, err := h.read(r); err != nil || s != nil && torn {
				t.Fatalf("slot %d: %v, torn %v, %v", r, s, torn, err)
			}
		}
		gone := blockset.New(3)
		gone.Add(1, 2)
		must(t, h.forget(gone))
		if s, torn, err := h.read(1); err != nil || s != nil || torn {
			t.Fatalf("erased: %v, torn %v, %v", s, torn, err)
		}
		must(t, h.close())
	})
}

// A slot that was erased stays so when a power cut leaves only a part of what was recorded in its place.
func TestErasedSlotsStayErased(t *testing.T) {
	id, never := ID{4}, func(uint32) bool { return false }
	first, second := &slot{data: 1 << 63}, &slot{data: 1 << 63}
	first.sums[63], second.sums[63] = [unitSum]byte{1}, [unitSum]byte{2}
	torn := 0
	for seed := range uint64(64) {
		m := vfs.NewMem()
		h, err := openHashes(m, id, regionSize)
		must(t, err)
		record := func(s *slot) {
			_, err := h.done(h.watch(0), never, s)
			must(t, err)
		}
		record(first)
		must(t, h.sync())
		gone := blockset.New(1)
		gone.Add(0, 1)
		must(t, h.forget(gone))
		record(second)
		h, err = openHashes(m.Crash(vfs.LoseSome, seed), id, regionSize)
		must(t, err)
		s, part, err := h.read(0)
		must(t, err)
		if s != nil && s.sums != second.sums {
			t.Fatalf("seed %d: an erased slot came back", seed)
		}
		if part {
			torn++
		}
		must(t, h.close())
	}
	if torn == 0 {
		t.Error("no power cut tore a slot")
	}
}
