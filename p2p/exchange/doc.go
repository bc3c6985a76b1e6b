// Package exchange keeps the small signed records of two devices' directories
// in step: protocol Protocol, one long-lived stream a pair, opened by the
// device with the smaller ID, Serve on both ends.
//
// After the wire greeting everything is a JSON message in a wire frame:
//
//	{"type":"digest",  "versions":{key:version,…}, "more":true|false}
//	{"type":"records", "records":[{key,version,writer,value,sig},…]}
//
// Each end first says what it has (the digest, in pieces, the last without
// "more"), then sends what the other lacks or has older, and from then on what
// changes. Nothing is acknowledged: the digests of the next meeting tell what
// was missed. Unknown fields and unknown types are ignored.
//
// A record that the store rejects is kept and tried again when something else
// was accepted or changed: it may have arrived before what proves it. It is
// logged once. What is still rejected when the stream ends is forgotten, and
// comes again at the next meeting.
//
// Guaranteed: two stores that stop changing become equal, as far as they accept
// each other's records, while the stream lasts; an older version never follows
// a newer one; memory is bounded by MaxKeys and the limits of records.
//
// Not guaranteed, and the store's business: that a record is genuine.
//
// To test: go test -race ./p2p/exchange ; go test -fuzz=FuzzServe ./p2p/exchange
package exchange
