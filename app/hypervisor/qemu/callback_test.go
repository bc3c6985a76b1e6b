package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"tagalong.org/tagalong/app/hypervisor"
)

// giverAsks is a stream of a giver's QEMU, and what it is answered.
type giverAsks struct {
	io.Reader
	answers bytes.Buffer
}

func (g *giverAsks) Write(p []byte) (int, error) { return g.answers.Write(p) }

func ask(n uint16, said string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{command}, n)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(said))), said...)
}

// TestTheStandInHasEveryPage: a bitmap is as many words of 64 pages as the block takes, and what follows the last command stays where it is.
func TestTheStandInHasEveryPage(t *testing.T) {
	blocks := map[string]uint64{"pc.ram": 65 * pageSize, "rom": pageSize}
	stream := bytes.NewReader(append(append(append(ask(commandBitmap, "\x06pc.ram"), ask(commandBitmap, "\x03rom")...), ask(commandResume, "")...), "pages"...))
	line := &giverAsks{Reader: stream}
	if err := standIn(line, blocks); err != nil {
		t.Fatal(err)
	}
	if stream.Len() != len("pages") {
		t.Errorf("%d bytes are left", stream.Len())
	}
	full := bytes.Repeat([]byte{0xff}, 16)
	end := []byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}
	want := bytes.Join([][]byte{
		{0, 5, 0, 7, 6}, []byte("pc.ram"), {0, 0, 0, 0, 0, 0, 0, 16}, full, end,
		{0, 5, 0, 4, 3}, []byte("rom"), {0, 0, 0, 0, 0, 0, 0, 8}, full[:8], end,
		{0, 6, 0, 4, 0, 0, 0, 1},
	}, nil)
	if !bytes.Equal(line.answers.Bytes(), want) {
		t.Errorf("it answers %x, want %x", line.answers.Bytes(), want)
	}
}

func TestTheStandInRefusesWhatItDoesNotKnow(t *testing.T) {
	blocks := map[string]uint64{"pc.ram": pageSize, "huge": maxBlock + pageSize}
	for name, stream := range map[string][]byte{
		"a page":           {0x01, 0, 0, 0, 0},
		"an unknown block": ask(commandBitmap, "\x03vga"),
		"a huge block":     ask(commandBitmap, "\x04huge"),
		"a wrong length":   ask(commandBitmap, "\x09pc.ram"),
		"no name":          ask(commandBitmap, ""),
		"another command":  ask(3, ""),
	} {
		if err := standIn(&giverAsks{Reader: bytes.NewReader(stream)}, blocks); !errors.Is(err, hypervisor.ErrApart) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := standIn(&giverAsks{Reader: bytes.NewReader(ask(commandBitmap, "\x06pc.ram")[:8])}, blocks); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a broken line: %v", err)
	}
}

func TestBlocksOfMemoryAreRead(t *testing.T) {
	blocks, err := parseBlocks("              Block Name    PSize              Offset               Used              Total                HVA  RO\r\n" +
		"                  pc.ram    4 KiB  0x0000000000000000 0x000000000fff0000 0x0000000010000000 0x00007f0000000000  rw\r\n" +
		"    /rom@etc/acpi/tables    4 KiB  0x0000000010000000 0x0000000000020000 0x0000000000200000\r\n")
	if err != nil || len(blocks) != 2 || blocks["pc.ram"] != 0xfff0000 || blocks["/rom@etc/acpi/tables"] != 0x20000 {
		t.Errorf("%v, %v", blocks, err)
	}
	for _, text := range []string{"", "Block Name\n", "pc.ram 4 KiB 0x0 much 0x1\n"} {
		if _, err := parseBlocks(text); !errors.Is(err, errBlocks) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
