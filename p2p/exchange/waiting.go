package exchange

import (
	"log/slog"
	"slices"
	"sync"
)

// Limits of what waits to be accepted.
const (
	maxWaiting      = 1024    // records
	maxWaitingBytes = 8 << 20 // of values
	maxLogged       = 256     // rejections of one session
)

// waiting holds the records that the store hasn't accepted yet. It may be used
// from several goroutines.
type waiting struct {
	store Store
	peer  string
	log   *slog.Logger

	mu      sync.Mutex
	records map[string]*Record
	bytes   int
	logged  map[string]uint64 // version whose rejection was logged
	lines   int               // that this took
}

func newWaiting(store Store, peer string, log *slog.Logger) *waiting {
	return &waiting{store: store, peer: peer, log: log, records: map[string]*Record{}, logged: map[string]uint64{}}
}

// add takes a record in; if there is no room, it has to find its place in the
// store at once.
func (w *waiting) add(r *Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.records[r.Key]
	if old != nil {
		if old.Version >= r.Version {
			return
		}
		w.bytes -= len(old.Value)
		delete(w.records, r.Key)
	}
	if len(w.records) >= maxWaiting || w.bytes+len(r.Value) > maxWaitingBytes {
		if err := w.store.Apply(w.peer, *r); err != nil {
			w.rejected(r, err)
		}
		return
	}
	w.records[r.Key] = r
	w.bytes += len(r.Value)
}

// settle offers the records to the store, in the order of their keys, again and
// again as long as any is accepted.
func (w *waiting) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for progress := true; progress && len(w.records) > 0; {
		progress = false
		keys := make([]string, 0, len(w.records))
		for k := range w.records {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, compareKeys)
		errs := make(map[string]error, len(keys))
		for _, k := range keys {
			r := w.records[k]
			if err := w.store.Apply(w.peer, *r); err != nil {
				errs[k] = err
				continue
			}
			progress = true
			w.bytes -= len(r.Value)
			delete(w.records, k)
		}
		if !progress {
			for _, k := range keys {
				w.rejected(w.records[k], errs[k])
			}
		}
	}
}

// rejected logs a rejection, once for each version, until there are too many.
func (w *waiting) rejected(r *Record, err error) {
	if w.logged[r.Key] == r.Version || w.lines > maxLogged {
		return
	}
	if w.lines++; w.lines > maxLogged {
		w.log.Warn("More rejected records of this peer are not logged", "peer", w.peer, "count", maxLogged)
		return
	}
	w.logged[r.Key] = r.Version
	w.log.Warn("Record rejected", "peer", w.peer, "key", r.Key, "version", r.Version, "writer", r.Writer, "error", err)
}
