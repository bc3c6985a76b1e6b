package export

import (
	"encoding/binary"
	"sync"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// qcow2 is QEMU's format (docs/interop/qcow2.rst of QEMU), version 3. The file is clusters without gaps, each used once:
//
//	header | L1 table | clusters with data, and L2 tables, as they come | refcount table | refcount blocks
//
// What is nowhere in the tables reads as zeros.
type qcow2 struct {
	f    vfs.File
	size int64
	l1   []byte // for each window, where its L2 table is

	mu    sync.Mutex
	next  int64  // the first cluster that isn't used
	l2    []byte // of the present window: for each cluster of the disk, where it is
	dirty bool   // l2 isn't empty
}

const (
	qcowMagic   = 0x514649fb // "QFI\xfb"
	qcowVersion = 3
	qcowHeader  = 104 // its length in bytes
	// copied marks, in L1 and L2 tables, that there is one reference: always so here.
	copied        = uint64(1) << 63
	refcountOrder = 4           // 2 bytes for each
	refcounts     = cluster / 2 // in a refcount block
)

func newQcow2(f vfs.File, size int64) *qcow2 {
	l1 := make([]byte, clusters(clusters(size)*8)*8)
	return &qcow2{f: f, size: size, l1: l1, next: 1 + clusters(int64(len(l1))), l2: make([]byte, cluster)}
}

// clusters that n bytes take.
func clusters(n int64) int64 { return (n + cluster - 1) / cluster }

func (q *qcow2) begin() error { return nil }

func (q *qcow2) put(p []byte, off int64) error {
	return runs(p, cluster, func(from, to int) error {
		n := clusters(int64(to - from))
		q.mu.Lock()
		at := q.next
		q.next += n
		first := (off + int64(from)) % window / cluster
		for i := range n {
			binary.BigEndian.PutUint64(q.l2[(first+i)*8:], uint64((at+i)*cluster)|copied)
		}
		q.dirty = true
		q.mu.Unlock()
		// The disk may end within a cluster; the rest of the file's is a hole, or zeros.
		_, err := q.f.WriteAt(p[from:to], at*cluster)
		return err
	})
}

func (q *qcow2) close(off int64) error {
	if !q.dirty {
		return nil
	}
	at := q.next * cluster
	q.next++
	binary.BigEndian.PutUint64(q.l1[off/window*8:], uint64(at)|copied)
	_, err := q.f.WriteAt(q.l2, at)
	clear(q.l2)
	q.dirty = false
	return err
}

func (q *qcow2) finish() error {
	table, blocks := refcountSize(q.next)
	at := q.next
	total := at + table + blocks
	b := make([]byte, table*cluster)
	for i := range blocks {
		binary.BigEndian.PutUint64(b[i*8:], uint64((at+table+i)*cluster))
	}
	if _, err := q.f.WriteAt(b, at*cluster); err != nil {
		return err
	}
	ones := make([]byte, cluster)
	for i := 1; i < len(ones); i += 2 {
		ones[i] = 1
	}
	for i := range blocks {
		if rest := total - i*refcounts; rest < refcounts {
			clear(ones[rest*2:])
		}
		if _, err := q.f.WriteAt(ones, (at+table+i)*cluster); err != nil {
			return err
		}
	}
	if _, err := q.f.WriteAt(q.l1, cluster); err != nil {
		return err
	}
	_, err := q.f.WriteAt(q.header(at*cluster, table), 0)
	return err
}

// refcountSize is how many clusters the refcount table and the refcount blocks take that count used clusters and themselves.
func refcountSize(used int64) (table, blocks int64) {
	for {
		t, b := clusters(blocks*8), (used+table+blocks+refcounts-1)/refcounts
		if t == table && b == blocks {
			return table, blocks
		}
		table, blocks = t, b
	}
}

func (q *qcow2) header(refcountTable, tableClusters int64) []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, qcowMagic)
	b = be.AppendUint32(b, qcowVersion)
	b = append(b, make([]byte, 12)...) // no backing file
	b = be.AppendUint32(b, 16)         // bits of a cluster
	b = be.AppendUint64(b, uint64(q.size))
	b = be.AppendUint32(b, 0) // not encrypted
	b = be.AppendUint32(b, uint32(len(q.l1)/8))
	b = be.AppendUint64(b, cluster) // where the L1 table is
	b = be.AppendUint64(b, uint64(refcountTable))
	b = be.AppendUint32(b, uint32(tableClusters))
	b = append(b, make([]byte, 12+24)...) // no snapshots, no features
	b = be.AppendUint32(b, refcountOrder)
	b = be.AppendUint32(b, qcowHeader)
	return append(b, make([]byte, 8)...) // no extensions
}
