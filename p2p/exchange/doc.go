// Package exchange keeps the small signed records of two devices' directories
// in step, and the chunks of data that records name by their hash: protocol Protocol, one long-lived stream a pair, opened by the
// device with the smaller ID, Serve on both ends.
//
// After the wire greeting everything is a JSON message in a wire frame:
//
//	{"type":"digest",  "versions":{key:version,…}, "more":true|false}
//	{"type":"records", "records":[{key,version,writer,value,sig},…]}
//	{"type":"want",    "hashes":[…]}
//	{"type":"chunks",  "hashes":[…], "sizes":[…]}   then the chunks, in raw frames
//	{"type":"have",    "hashes":[…]}
//
// Each end first says what it has (the digest, in pieces, the last without
// "more"), then sends what the other lacks or has older, and from then on what
// changes. Nothing is acknowledged: the digests of the next meeting tell what
// was missed. Unknown fields and unknown types are ignored.
//
// Chunks are asked for, by whoever lacks one that a record names: at most 64
// at once, each of one peer. They are answered in small pieces, between which
// records go first; a size of 0 says that the chunk isn't here, and "have" tells
// when it is. Whoever doesn't answer for a minute loses its claim: others are
// asked. Peers that speak version 1 exchange no chunks.
//
// A record that the store rejects is kept and tried again when something else
// was accepted or changed: it may have arrived before what proves it. It is
// logged once, as long as there are few. What is still rejected when the stream ends is forgotten, and
// comes again at the next meeting.
//
// Guaranteed: two stores that stop changing become equal, as far as they accept
// each other's records, while the stream lasts; an older version never follows
// a newer one; they get each other's chunks as far as anybody connected has them, each once; memory is
// bounded by MaxKeys and the limits of records and chunks. A chunk that wasn't asked for, doesn't fit its
// hash or is too large, and wishes for one more than eight times in ten minutes, are ErrProtocol and end the stream.
//
// Not guaranteed, and the store's business: that a record is genuine, and what a chunk means.
//
// To test: go test -race ./p2p/exchange ; go test -fuzz=FuzzServe ./p2p/exchange
package exchange
