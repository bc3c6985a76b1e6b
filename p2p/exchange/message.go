package exchange

// The types of messages.
const (
	typeDigest  = "digest"
	typeRecords = "records"
	typeWant    = "want"   // since version 2, as all below
	typeChunks  = "chunks" // a blob follows
	typeHave    = "have"
)

// message is what goes over the wire.
type message struct {
	Type     string            `json:"type"`
	Versions map[string]uint64 `json:"versions,omitempty"`
	More     bool              `json:"more,omitempty"`
	Records  []Record          `json:"records,omitempty"`
	Hashes   []string          `json:"hashes,omitempty"`
	Sizes    []int             `json:"sizes,omitempty"`
}

// pieceCost is how large a message may become by its parts' worst-case costs,
// in bytes, before the next one is begun. One record may come on top, and the
// whole stays under wire.MaxMessage.
const pieceCost = 256 << 10

// keyCost is what a key and its version may take in JSON, where one byte may
// become six.
func keyCost(k string) int { return 6*len(k) + 32 }

// recordCost is what a record may take in JSON.
func recordCost(r *Record) int {
	return keyCost(r.Key) + 6*len(r.Writer) + (len(r.Value)+len(r.Sig))*4/3 + 64
}
