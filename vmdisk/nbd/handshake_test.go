package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

func TestHandshakeOptions(t *testing.T) {
	disk := newMemDisk(1 << 20)
	s := serve(t, &Server{
		List: func() []string { return []string{"Work", "Play"} },
		Lookup: func(name string) (Backend, error) {
			switch name {
			case "", "Work":
				return disk, nil
			case "plain":
				return plainDisk{disk}, nil
			case "busy":
				return nil, errors.New("no")
			case "nil":
				return nil, nil
			case "odd":
				return uncomparable{disk, nil}, nil
			default:
				return nil, ErrUnknownExport
			}
		},
	})
	long := make([]byte, maxOption+1)
	tests := []struct {
		name string
		opt  uint32
		data []byte
		want uint32
	}{
		{"list with data", optList, []byte{1}, repErrInvalid},
		{"starttls", 5, nil, repErrUnsup},
		{"peek", 4, nil, repErrUnsup},
		{"extended headers", 11, nil, repErrUnsup},
		{"unknown", 0xffffffff, []byte("x"), repErrUnsup},
		{"too big", optGo, long, repErrTooBig},
		{"too big and unknown", 77, long, repErrTooBig},
		{"info", optInfo, nameInfo("Work", infoName, infoBlockSize, 99), repAck},
		{"info unknown export", optInfo, nameInfo("none"), repErrUnknown},
		{"info failing export", optInfo, nameInfo("busy"), repErrUnknown},
		{"info nil export", optInfo, nameInfo("nil"), repErrUnknown},
		{"go unknown export", optGo, nameInfo("none"), repErrUnknown},
		{"go uncomparable export", optGo, nameInfo("odd"), repErrUnknown},
		{"go empty", optGo, nil, repErrInvalid},
		{"go short name", optGo, []byte{0, 0, 0, 9, 'W'}, repErrInvalid},
		{"go long name", optGo, nameInfo(string(make([]byte, maxString+1))), repErrInvalid},
		{"go missing info", optGo, []byte{0, 0, 0, 0, 0, 2, 0, 0}, repErrInvalid},
		{"go trailing bytes", optGo, append(nameInfo("Work"), 0), repErrInvalid},
		{"go name length overflow", optGo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, repErrInvalid},
		{"meta before structured", optSetMetaContext, metaQuery("Work", contextName), repErrInvalid},
		{"list meta before structured", optListMetaContext, metaQuery("Work"), repErrInvalid},
		{"structured with data", optStructuredReply, []byte{0}, repErrInvalid},
		{"structured", optStructuredReply, nil, repAck},
		{"meta count lies", optSetMetaContext, append(binary.BigEndian.AppendUint32(nil, 0), 0xff, 0xff, 0xff, 0xff), repErrInvalid},
		{"meta unknown export", optSetMetaContext, metaQuery("none", contextName), repErrUnknown},
		{"meta trailing bytes", optSetMetaContext, append(metaQuery("Work", contextName), 1), repErrInvalid},
	}
	c := dial(t, s.path, 3)
	for _, test := range tests {
		if got := outcome(c.option(test.opt, test.data)); got != test.want {
			t.Errorf("%s: reply %#x, want %#x", test.name, got, test.want)
		}
	}
	contexts := []struct {
		opt     uint32
		export  string
		queries []string
		want    int
	}{
		{optListMetaContext, "Work", nil, 1},
		{optListMetaContext, "Work", []string{"base:"}, 1},
		{optListMetaContext, "Work", []string{"qemu:", "x"}, 0},
		{optListMetaContext, "plain", nil, 0},
		{optSetMetaContext, "Work", nil, 0},
		{optSetMetaContext, "Work", []string{"base:"}, 0},
		{optSetMetaContext, "plain", []string{contextName}, 0},
		{optSetMetaContext, "Work", []string{"x:y", contextName, contextName}, 1},
	}
	for _, test := range contexts {
		list := c.option(test.opt, metaQuery(test.export, test.queries...))
		if len(list) != test.want+1 || outcome(list) != repAck {
			t.Errorf("%+v: %d replies", test, len(list))
		}
	}
	var names []string
	for _, r := range c.option(optList, nil) {
		if r.kind == repServer {
			names = append(names, string(r.data[4:]))
		}
	}
	if !slices.Equal(names, []string{"Work", "Play"}) {
		t.Errorf("exports %q", names)
	}
	if outcome(c.option(optAbort, nil)) != repAck {
		t.Error("abort is not acknowledged")
	}
	c.hungUp()
}

// uncomparable is a Backend that cannot be a map's key.
type uncomparable struct {
	*memDisk
	_ []int
}

func TestHandshakeHangUps(t *testing.T) {
	s := serve(t, &Server{
		Lookup: func(name string) (Backend, error) {
			if name == "later" {
				return nil, ErrHangUp
			}
			return nil, ErrUnknownExport
		},
	})
	tests := []struct {
		name  string
		flags uint32
		send  []byte
	}{
		{"unknown flags", 4, nil},
		{"wrong magic", 3, make([]byte, 16)},
		{"export name unknown", 3, optionBytes(optExportName, []byte("x"))},
		{"export name too long", 3, optionBytes(optExportName, make([]byte, maxString+1))},
		{"export name far too long", 3, optionBytes(optExportName, make([]byte, maxOption+1))},
		{"option without fixed newstyle", 0, optionBytes(optList, nil)},
		{"export that comes later", 3, optionBytes(optGo, nameInfo("later"))},
		{"export name that comes later", 3, optionBytes(optExportName, []byte("later"))},
		{"meta of export that comes later", 3, append(optionBytes(optStructuredReply, nil), optionBytes(optSetMetaContext, metaQuery("later"))...)},
		{"no end of options", 3, bytes.Repeat(optionBytes(optStructuredReply, nil), maxOptions)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := dial(t, s.path, test.flags)
			if _, err := c.nc.Write(test.send); err != nil {
				return // hung up already
			}
			// Acknowledgements may come first; what counts is that the end comes.
			for {
				if _, err := c.in.ReadByte(); err != nil {
					c.hungUp()
					return
				}
			}
		})
	}
}

func TestHandshakeTimeout(t *testing.T) {
	s := serve(t, &Server{Backend: newMemDisk(4096), HandshakeTimeout: 1})
	c := &client{t: t}
	c.nc, c.in = dialRaw(t, s.path)
	for {
		if _, err := c.in.ReadByte(); err != nil {
			c.hungUp()
			return
		}
	}
}

func TestExportName(t *testing.T) {
	disk := newMemDisk(12345)
	s := serve(t, &Server{Backend: disk, Name: "Work"})
	for _, flags := range []uint32{0, 1, 3} {
		for _, name := range []string{"", "Work"} {
			c := dial(t, s.path, flags)
			c.send(optionBytes(optExportName, []byte(name)))
			size := 10
			if flags&uint32(flagNoZeroes) == 0 {
				size += 124
			}
			p := c.take(size)
			if be64(p) != 12345 || !bytes.Equal(p[10:], make([]byte, size-10)) {
				t.Errorf("flags %d: reply %x", flags, p)
			}
			if got := binary.BigEndian.Uint16(p[8:]); got&flagDF != 0 || got&flagHasFlags == 0 {
				t.Errorf("transmission flags %#x", got)
			}
			if got := c.must(cmdRead, 0, 12344, 1, nil); len(got) != 1 {
				t.Errorf("read %x", got)
			}
		}
	}
}

func TestGoInfo(t *testing.T) {
	for _, test := range []struct {
		size  int64
		block uint32
	}{{0, 4096}, {1 << 20, 4096}, {1<<20 + 512, 512}, {4097, 1}} {
		s := serve(t, &Server{Backend: newMemDisk(test.size), Name: "Work"})
		c := dial(t, s.path, 3)
		c.option(optStructuredReply, nil)
		seen := map[uint16][]byte{}
		for _, r := range c.option(optGo, nameInfo("", infoName, infoBlockSize)) {
			if r.kind == repInfo {
				seen[binary.BigEndian.Uint16(r.data)] = r.data[2:]
			}
		}
		wantFlags := flagHasFlags | flagFlush | flagFUA | flagTrim | flagWriteZeroes | flagDF | flagMultiConn | flagCache
		if p := seen[infoExport]; len(p) != 10 || int64(be64(p)) != test.size || binary.BigEndian.Uint16(p[8:]) != wantFlags {
			t.Errorf("size %d: export %x", test.size, p)
		}
		if p := seen[infoBlockSize]; len(p) != 12 || be32(p) != test.block || be32(p[4:]) != 4096 || be32(p[8:]) != maxData {
			t.Errorf("size %d: block size %x", test.size, p)
		}
		if p, ok := seen[infoName]; !ok || len(p) != 0 {
			t.Errorf("name %x", p)
		}
		s.stop()
	}
}

// A choice of contexts is for one export, and a later failure takes it back.
func TestMetaContextForgotten(t *testing.T) {
	disk := newMemDisk(4096)
	s := serve(t, &Server{Backend: disk, Name: "Work"})
	for _, test := range []struct {
		name string
		then []byte
		want uint32
	}{
		{"kept", optionBytes(optList, nil), nbdOK},
		{"other export", optionBytes(optSetMetaContext, metaQuery("Work", contextName)), nbdEINVAL},
		{"failed", optionBytes(optSetMetaContext, []byte{1}), nbdEINVAL},
		{"none found", optionBytes(optSetMetaContext, metaQuery("", "a:b")), nbdEINVAL},
	} {
		c := dial(t, s.path, 3)
		c.option(optStructuredReply, nil)
		c.structured = true
		c.option(optSetMetaContext, metaQuery("", contextName))
		c.option(be32(test.then[8:]), test.then[16:])
		c.option(optGo, nameInfo(""))
		if a := c.do(cmdBlockStatus, 0, 0, 4096, nil); a.errno != test.want {
			t.Errorf("%s: error %d, want %d", test.name, a.errno, test.want)
		}
	}
}
