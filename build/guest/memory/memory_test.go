package memory

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestCheckFindsEveryChangedStamp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pages := rapid.IntRange(1, 16).Draw(t, "pages")
		mem := make([]byte, pages*PageSize+rapid.IntRange(0, PageSize-1).Draw(t, "rest"))
		s := New(mem, rapid.Uint64().Draw(t, "seed"))
		if s.Pages() != pages {
			t.Fatalf("%d pages, want %d", s.Pages(), pages)
		}
		s.Noise = rapid.Bool().Draw(t, "noise")
		before := slices.Clone(mem)
		s.Dirty(rapid.IntRange(0, 40).Draw(t, "dirtied"))
		if bad := s.Check(pages); len(bad) != 0 {
			t.Fatalf("intact pages reported: %v", bad)
		}

		victim := rapid.IntRange(0, pages-1).Draw(t, "victim")
		page := mem[victim*PageSize:][:PageSize]
		off := rapid.IntRange(0, 3).Draw(t, "stamp")*stampEvery + rapid.IntRange(0, stampSize-1).Draw(t, "byte")
		page[off] ^= 1
		if bad := s.Check(pages); !slices.Equal(bad, []int{victim}) {
			t.Fatalf("page %d changed at %d: found %v", victim, off, bad)
		}
		if bad := s.Check(pages); len(bad) != 0 {
			t.Fatalf("reported twice: %v", bad)
		}

		// An older state of the page is valid by itself and yet wrong.
		s.stamp(victim)
		copy(page, before[victim*PageSize:])
		if bad := s.Check(pages); !slices.Equal(bad, []int{victim}) {
			t.Fatalf("page %d is old: found %v", victim, bad)
		}
	})
}

func TestAnEmptySetIsNoTrouble(t *testing.T) {
	s := New(make([]byte, PageSize-1), 1)
	s.Dirty(3)
	if bad := s.Check(3); s.Pages() != 0 || bad != nil {
		t.Errorf("%d pages, %v bad", s.Pages(), bad)
	}
}
