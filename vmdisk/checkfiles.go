package vmdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"

	"tagalong.org/tagalong/vmdisk/layer"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// checkFiles reads all metadata of a closed disk into d, whose fs changes nothing. whole says that the disk can be opened. d.stack.base,
// d.hashes and d.al are there if the content can be checked.
func (d *Store) checkFiles(r *Report) (whole bool) {
	names, err := d.fs.List()
	if err != nil {
		r.wrong("", fmt.Sprintf("The directory can't be read: %v.", err), nextDrive, err)
		return false
	}
	d.formats(names, r)
	j, err := openJournal(d.fs)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNoJournal
	}
	if err != nil {
		r.unusable(journalName, err)
		return false
	}
	d.j = j
	st := j.st
	d.id, d.stack.size = j.h.id, j.h.size
	d.size.Store(j.h.size)
	d.complete, d.position = st.complete, st.position
	d.al = newActivity(j, d.Size(), st.regions)
	r.ID, r.Size, r.Position, r.NeedsCheck = d.id, d.Size(), d.position, st.check
	d.nameFiles(names, r)
	d.checkState(st, r)
	if d.stack.base, err = openBase(d.fs, d.Size(), st.growing); err != nil {
		r.unusable(baseName, err)
	}
	if d.hashes, err = openHashes(d.fs, d.id, d.Size()); errors.Is(err, ErrMalformed) {
		r.wrong(hashesName, fmt.Sprintf("The recorded hashes can't be used: %v.", err), nextNoHashes, err)
	} else if err != nil {
		r.unusable(hashesName, err)
	}
	d.checkLayers(st, r)
	d.checkEpochs(r)
	d.checkSets(names, r)
	d.checkStale(st, r)
	if !d.complete {
		r.note(baseName, "The first copy of the disk hasn't ended, so there is no content to check.", "")
	}
	// A damaged set or file of hashes keeps nobody from opening the disk.
	for _, f := range r.Findings {
		if !errors.Is(f.Err, ErrMalformed) {
			return false
		}
	}
	return true
}

// unusable is explain for who has no better use for the error.
func (r *Report) unusable(file string, err error) {
	if err := r.explain(file, err); err != nil {
		r.wrong(file, fmt.Sprintf("The system doesn't let it be read: %v.", err), "Check who owns the disk's directory and files: they must be yours.", err)
	}
}

// checkState makes sure that what the journal says can be.
func (d *Store) checkState(st *state, r *Report) {
	bad := func(text string) { r.wrong(journalName, text, nextReplace, ErrCorrupt) }
	if st.owned() && !st.complete {
		bad("The disk is owned by this device, and isn't whole.")
	}
	for i := range st.regions {
		if int64(i) >= regionsOf(d.Size()) {
			bad(fmt.Sprintf("Region %d was written, which is beyond the end of the disk.", i))
			break
		}
	}
	if st.owned() && !st.exact {
		r.note(journalName, "The disk was in use when its device or its engine ended: what was written lately counts as changed for all peers.", "")
	}
	if st.importing {
		r.note(journalName, "An import was under way, so the disk has no content yet.", "Import again.")
	}
}

// checkLayers reads the maps of all layers. What they cover may have been merged in part, so no hash of base.raw counts there.
func (d *Store) checkLayers(st *state, r *Report) {
	for _, ref := range st.layers {
		l, err := layer.Open(d.layerConfig(ref))
		switch {
		case err == nil && ref.role == roleIncoming:
			d.incoming = l
		case err == nil:
			d.stack.layers = append(d.stack.layers, l)
		case errors.Is(err, layer.ErrVersion):
			r.unusable(ref.name(), fmt.Errorf("%w: %w", ErrVersion, err))
		case ref.role == roleIncoming && (errors.Is(err, layer.ErrCorrupt) || errors.Is(err, layer.ErrForeign)):
			r.note(ref.name(), fmt.Sprintf("An unfinished catch-up is damaged: %v.", err), "It begins anew by itself.")
		default:
			r.unusable(ref.name(), fmt.Errorf("%w: %w", ErrCorrupt, err))
		}
	}
	if d.hashes != nil {
		d.touchLayers()
	}
}

// checkEpochs reads the epoch log, and takes note of what it will change.
func (d *Store) checkEpochs(r *Report) {
	f, err := d.fs.Open(epochsName)
	if errors.Is(err, fs.ErrNotExist) {
		return // made when the disk is opened
	}
	if err != nil {
		r.unusable(epochsName, err)
		return
	}
	e, err := readEpochs(f)
	if err != nil {
		r.unusable(epochsName, errors.Join(err, f.Close()))
		return
	}
	d.epochs = e
	if err := e.scan(d.position, d.Size()); err != nil {
		r.unusable(epochsName, err)
		return
	}
	d.position = e.last
	r.Position = e.last
	if d.hashes == nil {
		return
	}
	_, err = e.read(e.applied, e.committed.at, true, func(fr frame, _ []byte, _ mark) error {
		if fr.kind != frameCommit {
			d.hashes.touch(int64(fr.off), int64(fr.n))
		}
		return nil
	})
	if err != nil {
		r.unusable(epochsName, err)
	}
}

// checkSets reads what is known of peers.
func (d *Store) checkSets(names []string, r *Report) {
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	for _, name := range names {
		if !strings.HasPrefix(name, dirtyPrefix) || strings.HasSuffix(name, vfs.TempSuffix) {
			continue
		}
		_, err := d.loadSet(name)
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist): // forgotten meanwhile
		case errors.Is(err, ErrMalformed) || errors.Is(err, ErrWrongDisk):
			r.wrong(name, fmt.Sprintf("What was known of a peer is damaged: %v.", err), nextNoDirty, errors.Join(err, ErrMalformed))
		default:
			r.unusable(name, err)
		}
	}
}

// checkStale says what a disk lacks that isn't whole.
func (d *Store) checkStale(st *state, r *Report) {
	if st.stale.serial == 0 {
		return
	}
	_, err := d.readStale(st.stale)
	switch {
	case d.j.snapshot().stale != st.stale: // whole, or rolled back, meanwhile
	case err == nil:
		r.note(st.stale.name(), fmt.Sprintf("The disk isn't whole: blocks of it are still on the device that had it before. Its base is what it was at %s.", st.stale.before),
			"Let both devices run and reach each other.")
	case errors.Is(err, ErrMalformed):
		r.wrong(st.stale.name(), fmt.Sprintf("Which blocks are still on the device that had the disk before isn't known any more: %v.", err),
			"Nothing is lost: all that wasn't fetched yet is fetched again. Let both devices run and reach each other.", err)
	default:
		r.unusable(st.stale.name(), err)
	}
}

// nameFiles notes the files that don't belong to the disk.
func (d *Store) nameFiles(names []string, r *Report) {
	refs := d.j.snapshot().layers
	named := func(name string) bool {
		return slices.ContainsFunc(refs, func(ref layerRef) bool { return ref.name() == name })
	}
	for _, name := range names {
		_, known := formatOf(name)
		if l, _ := layer.Files(name); isLayerFile(name) {
			if !named(l) {
				r.note(name, "The file is of a layer that the disk doesn't have any more.", "It is removed when the disk is opened.")
			}
			continue
		}
		switch {
		case strings.HasSuffix(name, vfs.TempSuffix):
			r.note(name, "A crash left the file behind, or the open disk works with it.", "It is removed when the disk is opened next.")
		case !known && name != baseName && name != lockName:
			r.note(name, "The file doesn't belong to the disk.", "Move it away if you know what it is; it does no harm.")
		}
	}
}

// formats tells the versions of all files.
func (d *Store) formats(names []string, r *Report) {
	for _, name := range names {
		want, ok := formatOf(name)
		if !ok {
			continue
		}
		f, err := d.fs.Open(name)
		if err != nil {
			continue // who reads it says so
		}
		head := make([]byte, 16)
		n, _ := f.ReadAt(head, 0) // what is missing is no header
		v, err := want.version(head[:n])
		_ = f.Close() // read only
		if err == nil {
			r.Formats = append(r.Formats, FileFormat{name, v, want.rungs[v-1]})
		}
	}
}

// equal compares two states.
func (s *state) equal(o *state) bool {
	a, b := *s, *o
	a.ends, a.regions, a.layers, b.ends, b.regions, b.layers = nil, nil, nil, nil, nil, nil
	return reflect.DeepEqual(a, b) && slices.Equal(s.layers, o.layers) && maps.Equal(s.ends, o.ends) && maps.Equal(s.regions, o.regions)
}
