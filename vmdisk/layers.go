package vmdisk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tagalong.org/tagalong/vmdisk/layer"
)

const layerPrefix = "layer-"

// layerRole says what a layer is to the disk. Explicit numbers: they are on disk.
type layerRole uint32

const (
	// roleIncoming: invisible; what a whole replica has of a newer state of the disk.
	roleIncoming layerRole = 1
	// rolePart: part of the disk, to be merged into base.raw.
	rolePart layerRole = 2
	// roleHydrating: part of the disk as long as it isn't whole; dropped if it never gets whole.
	roleHydrating layerRole = 3
)

// layerRef is what the journal says of a layer. The files are called by its serial number.
type layerRef struct {
	serial   uint64
	role     layerRole
	kind     layer.Kind
	copy     [16]byte // of an incoming layer: which copy it is of
	position Position // and the last checkpoint of that
}

const layerRefSize = 48

func (r layerRef) name() string { return fmt.Sprintf("%s%016x", layerPrefix, r.serial) }

func layersRecord(refs []layerRef) record {
	le := binary.LittleEndian
	var b []byte
	for _, r := range refs {
		b = le.AppendUint64(b, r.serial)
		b = le.AppendUint32(b, uint32(r.role))
		b = le.AppendUint32(b, uint32(r.kind))
		b = append(b, r.copy[:]...)
		b = appendPosition(b, r.position)
	}
	return record{recLayers, b}
}

func parseLayers(b []byte) ([]layerRef, error) {
	le := binary.LittleEndian
	if len(b)%layerRefSize != 0 || len(b) > maxLayers*layerRefSize {
		return nil, fmt.Errorf("list of layers of %d bytes: %w", len(b), ErrCorrupt)
	}
	var refs []layerRef
	for ; len(b) > 0; b = b[layerRefSize:] {
		r := layerRef{
			serial: le.Uint64(b), role: layerRole(le.Uint32(b[8:])), kind: layer.Kind(le.Uint32(b[12:])),
			copy: [16]byte(b[16:32]), position: readPosition(b[32:]),
		}
		if r.role < roleIncoming || r.role > roleHydrating {
			return nil, fmt.Errorf("layer of role %d: %w", r.role, ErrCorrupt)
		}
		refs = append(refs, r)
	}
	return refs, nil
}

// newLayerRef names a new layer.
func newLayerRef(role layerRole, kind layer.Kind) layerRef {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return layerRef{serial: binary.LittleEndian.Uint64(b[:]), role: role, kind: kind}
}

func (d *Store) layerConfig(r layerRef) layer.Config {
	return layer.Config{FS: d.fs, Name: r.name(), Disk: d.id, Blocks: d.blocks(), Kind: r.kind}
}

// openLayers opens what the journal names and deletes the files of all other layers. An incoming layer that is damaged is
// dropped: the owner sends it again. One that is part of the disk can't be missed.
func (d *Store) openLayers(names []string) error {
	var kept []layerRef
	refs := d.j.snapshot().layers
	for _, r := range refs {
		l, err := layer.Open(d.layerConfig(r))
		damaged := errors.Is(err, layer.ErrCorrupt) || errors.Is(err, layer.ErrForeign)
		switch {
		case err == nil && r.role == roleIncoming:
			d.incoming = l
		case err == nil:
			d.stack.layers = append(d.stack.layers, l)
		case damaged && r.role == roleIncoming:
			d.log.Warn("An unfinished catch-up is damaged and begins anew", "disk", d.id, "layer", r.name(), "err", err)
			continue
		case damaged:
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		case errors.Is(err, layer.ErrVersion):
			return fmt.Errorf("%w: %w", ErrVersion, err)
		default:
			return err
		}
		kept = append(kept, r)
	}
	if len(kept) < len(refs) {
		if err := d.j.commit(func(st *state) { st.layers = kept }); err != nil {
			return err
		}
	}
	d.sweep(names, kept)
	return nil
}

// touchLayers says that merging may have changed base.raw wherever a layer has something.
func (d *Store) touchLayers() {
	for _, l := range d.stack.layers {
		has := l.Blocks()
		for a := has.Next(0, true); a < has.Blocks(); {
			b := has.Next(a, false)
			d.hashes.touch(a*Block, (b-a)*Block)
			a = has.Next(b, true)
		}
	}
}

// isLayerFile says that a file is, or was, one of a layer.
func isLayerFile(n string) bool {
	name, ok := layer.Files(n)
	return ok && strings.HasPrefix(name, layerPrefix)
}

// sweep deletes the files of layers that aren't kept. What can't be deleted only takes space until the disk is opened again.
func (d *Store) sweep(names []string, kept []layerRef) {
	for _, n := range names {
		name, _ := layer.Files(n)
		if !isLayerFile(n) {
			continue
		}
		if slices.ContainsFunc(kept, func(r layerRef) bool { return r.name() == name }) {
			continue
		}
		if err := layer.Delete(d.fs, name); err != nil {
			d.log.Warn("The files of a dropped layer couldn't be deleted", "disk", d.id, "layer", name, "err", err)
		}
	}
}

// dropFiles deletes a layer that the journal doesn't name any more.
func (d *Store) dropFiles(l *layer.Layer) {
	if err := l.Remove(); err != nil {
		d.log.Warn("The files of a dropped layer couldn't be deleted", "disk", d.id, "layer", l.Name(), "err", err)
	}
}
