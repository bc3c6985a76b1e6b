package savedmemory

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/vmdisk"
)

var (
	// ErrNone says that no memory is saved.
	ErrNone = errors.New("saved memory: there is none")
	// ErrDamaged says that the header, or the memory, isn't what was written.
	ErrDamaged = errors.New("saved memory: damaged")
	// ErrVersion says that a later version wrote it.
	ErrVersion = errors.New("saved memory: written by a later version")
	// ErrTooLarge says that the memory doesn't fit into its volume.
	ErrTooLarge = errors.New("saved memory: larger than its volume")
)

// Header says what is saved. It knows nothing of positions, terms and devices.
type Header struct {
	// Stored is how many bytes of the volume the memory takes, Raw how many the hypervisor wrote.
	Stored int64 `json:"stored"`
	Raw    int64 `json:"raw"`
	// Hash is the BLAKE3 of what is stored.
	Hash []byte `json:"blake3"`
	// Config stands for the virtual hardware that the memory belongs to, Accel and Version for what it ran on.
	Config  string    `json:"config"`
	Accel   string    `json:"accel,omitempty"`
	Version string    `json:"version,omitempty"`
	At      time.Time `json:"at"`
	// For is the device that is to let it go on by itself when it gets the VM handed over; "" is none.
	For string `json:"for,omitempty"`
}

const (
	headerSize = vmdisk.Block
	dataAt     = vmdisk.Block
	version    = 1
	hashSize   = 32
	// headerMax is how long a header may be: a power failure leaves a sector as it was or as it is to be.
	headerMax = 512
	// fixed is what comes before the JSON: magic, version, its length, its hash.
	fixed = 8 + 4 + 4 + hashSize
	// slack is how much larger than memory a stream of it may be, in bytes: the devices and the picture of the screen.
	slack = 192 << 20
)

var magic = [8]byte{'T', 'A', 'G', 'M', 'E', 'M', 'O', 'R'}

// Room is how large a volume should be for the memory of a guest that has that many bytes.
func Room(memory int64) int64 { return memory + memory/64 + slack }

func (h Header) encode() ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("saved memory: %w", err)
	}
	if len(text) > headerMax-fixed {
		return nil, fmt.Errorf("saved memory: header of %d bytes: %w", len(text), ErrTooLarge)
	}
	b := make([]byte, headerSize)
	copy(b, magic[:])
	binary.LittleEndian.PutUint32(b[8:], version)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(text)))
	sum := blake3.Sum256(text)
	copy(b[16:], sum[:])
	copy(b[fixed:], text)
	return b, nil
}

// decode reads a header. room is how many bytes the volume has.
func decode(b []byte, room int64) (h Header, err error) {
	if len(bytes.Trim(b, "\x00")) == 0 {
		return h, ErrNone
	}
	if !bytes.Equal(b[:8], magic[:]) {
		return h, fmt.Errorf("header: %w", ErrDamaged)
	}
	switch v := binary.LittleEndian.Uint32(b[8:]); {
	case v > version:
		return h, fmt.Errorf("version %d: %w", v, ErrVersion)
	case v == 0:
		return h, fmt.Errorf("version 0: %w", ErrDamaged)
	}
	n := binary.LittleEndian.Uint32(b[12:])
	if n > headerMax-fixed {
		return h, fmt.Errorf("header of %d bytes: %w", n, ErrDamaged)
	}
	text := b[fixed : fixed+n]
	if sum := blake3.Sum256(text); !bytes.Equal(b[16:16+hashSize], sum[:]) {
		return h, fmt.Errorf("checksum of the header: %w", ErrDamaged)
	}
	if err := json.Unmarshal(text, &h); err != nil || h.Stored <= 0 || h.Stored > room-dataAt || h.Raw <= 0 || len(h.Hash) != hashSize {
		return Header{}, fmt.Errorf("%d bytes in %d of %d: %w", h.Raw, h.Stored, room, ErrDamaged)
	}
	return h, nil
}

// Read reads the header. Errors: ErrNone, ErrDamaged, ErrVersion, and the volume's.
func Read(volume vmdisk.Reader) (Header, error) {
	if volume.Size() < headerSize {
		return Header{}, ErrNone
	}
	b := make([]byte, headerSize)
	if err := volume.ReadAt(b, 0); err != nil {
		return Header{}, fmt.Errorf("read the header of the saved memory: %w", err)
	}
	return decode(b, volume.Size())
}
