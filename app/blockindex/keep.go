package blockindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/durable"
)

// The file: "TgBI", u32 version, u32 disks, of each u16 length and its name, then Slots entries of 12 bytes (u32 tag, u16 disk, u16 and u32 block), and 32 bytes
// of BLAKE3 of all before. All little-endian.
const (
	magic    = "TgBI"
	version  = 1
	slotSize = 12
	maxName  = 1 << 10
	maxFile  = 64 << 20
)

// ErrFile: the file isn't one, was damaged, or is of another version.
var ErrFile = errors.New("block index: unreadable file")

// Load takes up what Save has kept. A file that isn't there is no error. With ErrFile and others the index knows nothing.
func (x *Index) Load(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > maxFile {
		err = ErrFile
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return fmt.Errorf("load block index: %w", err)
	}
	disks, slots, ok := decode(b)
	if !ok {
		return fmt.Errorf("load block index: %s: %w", path, ErrFile)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.disks, x.slots = disks, slots
	return nil
}

func decode(b []byte) (disks []string, slots []slot, ok bool) {
	le := binary.LittleEndian
	if len(b) < 12+32 || string(b[:4]) != magic || le.Uint32(b[4:]) != version {
		return nil, nil, false
	}
	body, sum := b[:len(b)-32], b[len(b)-32:]
	if want := blake3.Sum256(body); string(want[:]) != string(sum) {
		return nil, nil, false
	}
	count := le.Uint32(body[8:])
	rest := body[12:]
	for range count {
		if len(rest) < 2 {
			return nil, nil, false
		}
		n := int(le.Uint16(rest))
		if rest = rest[2:]; n > maxName || len(rest) < n || len(disks) == maxDisks {
			return nil, nil, false
		}
		disks, rest = append(disks, string(rest[:n])), rest[n:]
	}
	if len(rest) != Slots*slotSize {
		return nil, nil, false
	}
	slots = make([]slot, Slots)
	for i := range slots {
		p := rest[i*slotSize:]
		slots[i] = slot{le.Uint32(p), le.Uint16(p[4:]), le.Uint16(p[6:]), le.Uint32(p[8:])}
		if int(slots[i].disk) > len(disks) {
			return nil, nil, false
		}
	}
	return disks, slots, true
}

// Save keeps what is known for the next Load, if anything was learned since.
func (x *Index) Save(path string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.newer {
		return nil
	}
	le := binary.LittleEndian
	b := make([]byte, 0, 12+len(x.disks)*64+Slots*slotSize+32)
	b = le.AppendUint32(append(b, magic...), version)
	b = le.AppendUint32(b, uint32(len(x.disks)))
	for _, d := range x.disks {
		b = append(le.AppendUint16(b, uint16(len(d))), d...)
	}
	for _, s := range x.slots {
		b = le.AppendUint32(b, s.tag)
		b = le.AppendUint16(le.AppendUint16(b, s.disk), s.hi)
		b = le.AppendUint32(b, s.lo)
	}
	sum := blake3.Sum256(b)
	if err := durable.Write(path, append(b, sum[:]...)); err != nil {
		return fmt.Errorf("save block index: %w", err)
	}
	x.newer = false
	return nil
}
