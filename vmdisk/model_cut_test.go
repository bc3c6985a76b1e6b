package vmdisk

import (
	"bytes"
	"errors"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// modelCut is an open cut of one of the model's devices, and what the windows were at its position.
type modelCut struct {
	d    *device
	disk *Store
	c    *Cut
	want []byte
	gone [modelSize / Block]bool // released
}

// cutStep takes a cut of d, or reads, releases or closes one that is open.
func (m *model) cutStep(d *device) {
	m.t.Helper()
	// What a crash ended is gone.
	for i := 0; i < len(m.cuts); i++ {
		if h := m.cuts[i]; h.disk != h.d.disk {
			if err := h.c.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) && !errors.Is(err, ErrReleased) && !errors.Is(err, ErrCutLost) {
				m.fatal("cut of a disk that was closed: %v", err)
			}
			m.closeCut(i)
			i--
		}
	}
	if len(m.cuts) == 0 || len(m.cuts) < 4 && m.r.IntN(5) == 0 {
		m.takeCut(d)
		return
	}
	i := m.r.IntN(len(m.cuts))
	switch h := m.cuts[i]; m.r.IntN(6) {
	case 0:
		m.closeCut(i)
	case 1:
		from := m.r.IntN(len(h.gone))
		to := min(from+1+m.r.IntN(12), len(h.gone))
		for b := from; b < to; b++ {
			h.c.Release(m.place(b), Block)
			h.gone[b] = true
		}
	default:
		m.checkCut(h)
	}
}

// place is where block b of the windows is on the disk.
func (m *model) place(b int) int64 {
	at := int64(b) * Block
	return windows[at/modelWindow] + at%modelWindow
}

func (m *model) takeCut(d *device) {
	m.t.Helper()
	if !d.disk.Info().Complete {
		return
	}
	m.note("cut of %s", d.name)
	c, err := d.disk.Cut(m.t.Context())
	if !m.ok("cut", err, d) {
		return
	}
	want, ok := m.history[c.Position()]
	if d == m.own() {
		m.record()
		want = m.now
	} else if !ok {
		m.fatal("a cut of %s is at %s, which never was", d.name, c.Position())
	}
	h := &modelCut{d: d, disk: d.disk, c: c, want: bytes.Clone(want)}
	m.cuts = append(m.cuts, h)
	m.checkCut(h)
}

// checkCut compares block by block what wasn't released.
func (m *model) checkCut(h *modelCut) {
	m.t.Helper()
	p := make([]byte, Block)
	for b := range h.gone {
		if m.place(b)+Block > h.c.Size() {
			if !isZero(h.want[b*Block : (b+1)*Block]) {
				m.fatal("%s's cut at %s ends at %d, before what it must have", h.d.name, h.c.Position(), h.c.Size())
			}
			continue
		}
		err := h.c.ReadAt(p, m.place(b))
		switch {
		case h.d.broken && (errors.Is(err, vfs.ErrGone) || errors.Is(err, ErrCutLost)):
			return
		case h.gone[b] && errors.Is(err, ErrReleased):
		case err != nil || h.gone[b]:
			m.fatal("read of %s's cut at %s, released %v: %v", h.d.name, h.c.Position(), h.gone[b], err)
		case !bytes.Equal(p, h.want[b*Block:(b+1)*Block]):
			m.fatal("%s's cut at %s isn't what the disk was: block %d", h.d.name, h.c.Position(), m.place(b)/Block)
		}
	}
}

func (m *model) closeCut(i int) {
	must(m.t, m.cuts[i].c.Close())
	m.cuts = append(m.cuts[:i], m.cuts[i+1:]...)
}
