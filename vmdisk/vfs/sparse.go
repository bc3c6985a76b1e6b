package vfs

import (
	"io"
	"maps"
)

// memPage is the grain of Mem's files: a page that was never written, or was punched, is a hole.
const memPage = 4096

// sparse is what a file of Mem holds. Pages never change once they are in the map, so that copies share them; copies even
// share the map until one of them is changed.
type sparse struct {
	size   int64
	pages  map[int64]*[memPage]byte
	shared bool
}

// copy is one of its own, cheap however big the file is.
func (c *sparse) copy() sparse {
	c.shared = true
	return *c
}

func (c *sparse) own() {
	if c.shared || c.pages == nil {
		c.pages = maps.Clone(c.pages)
		if c.pages == nil {
			c.pages = map[int64]*[memPage]byte{}
		}
		c.shared = false
	}
}

func (c *sparse) readAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= c.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.size-off))
	for at := 0; at < n; {
		in := int((off + int64(at)) % memPage)
		to := min(n, at+memPage-in)
		if page := c.pages[(off+int64(at))/memPage]; page != nil {
			copy(p[at:to], page[in:])
		} else {
			clear(p[at:to])
		}
		at = to
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (c *sparse) writeAt(p []byte, off int64) {
	c.own()
	c.size = max(c.size, off+int64(len(p)))
	for len(p) > 0 {
		i, in := off/memPage, off%memPage
		page := new([memPage]byte)
		if old := c.pages[i]; old != nil && (in > 0 || len(p) < memPage) {
			*page = *old
		}
		n := copy(page[in:], p)
		c.pages[i] = page
		p, off = p[n:], off+int64(n)
	}
}

// within says how many of n bytes at off are in pages that are there, up to the first that isn't.
func (c *sparse) within(off, n int64) int64 {
	for at := off; at < off+n; at = (at/memPage + 1) * memPage {
		if c.pages[at/memPage] == nil {
			return at - off
		}
	}
	return n
}

// zero makes n bytes at off zeros, as far as the file reaches.
func (c *sparse) zero(off, n int64) {
	end := min(off+n, c.size)
	if off >= end {
		return
	}
	c.own()
	first, last := (off+memPage-1)/memPage, end/memPage
	if end == c.size {
		last = (end + memPage - 1) / memPage // what is after the end is zeros anyway
	}
	if last-first > int64(len(c.pages)) {
		maps.DeleteFunc(c.pages, func(i int64, _ *[memPage]byte) bool { return i >= first && i < last })
	} else {
		for i := first; i < last; i++ {
			delete(c.pages, i)
		}
	}
	c.zeroIn(off, min(end, first*memPage))
	if last >= first {
		c.zeroIn(max(off, last*memPage), end)
	}
}

// zeroIn zeros a part of one page.
func (c *sparse) zeroIn(off, end int64) {
	old := c.pages[off/memPage]
	if off >= end || old == nil {
		return
	}
	page := *old
	clear(page[off%memPage : off%memPage+end-off])
	c.pages[off/memPage] = &page
}

func (c *sparse) truncate(size int64) {
	if size < c.size {
		c.zero(size, c.size-size)
	}
	c.size = size
}

// next finds the first offset from off on that is in a page (or in a hole), or the size.
func (c *sparse) next(off int64, hole bool) int64 {
	last := (c.size + memPage - 1) / memPage
	for i, tries := max(off, 0)/memPage, 0; i < last; i, tries = i+1, tries+1 {
		if !hole && tries > len(c.pages) {
			return min(c.size, max(off, c.nextPage(i, last)*memPage))
		}
		if (c.pages[i] == nil) == hole {
			return min(c.size, max(off, i*memPage))
		}
	}
	return c.size
}

// nextPage is the first page from i on, or last.
func (c *sparse) nextPage(i, last int64) int64 {
	for at := range c.pages {
		if at >= i {
			last = min(last, at)
		}
	}
	return last
}
