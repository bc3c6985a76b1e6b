// Package pairing introduces two devices to each other by a short code that is
// shown on one (the offerer) and typed on the other (the joiner). It has a door
// of its own, a TCP listener that exists only while a pairing window is open;
// libp2p and its protocols are never reachable by an unpaired device.
//
//	joiner                                               offerer
//	hello  magic, nonce              ─▶
//	                                 ◀─  magic, nonce           hello
//	share  Ya                        ─▶
//	                                 ◀─  Yb                     share
//	confirm  MAC(Ya)                 ─▶  wrong: one of three tries is gone
//	                                 ◀─  MAC(Yb)              confirm
//	identity {identity, signature}   ─▶  sealed from here on
//	                                 ◀─  {identity, signature} identity
//	done                             ─▶  the offerer stores the joiner
//	                                 ◀─                        stored
//	the joiner stores the offerer
//
// Every message is a wire frame: a type byte, then the content. Shares and
// confirmations are those of CPace (draft-irtf-cfrg-cpace-21, ristretto255 and
// SHA-512, initiator and responder, session ID = both nonces). Keys come from
// HKDF-SHA512 over CPace's key, salted with the hash of everything said so far;
// sealed means XChaCha20-Poly1305, one key a direction, messages numbered. The
// signature is by the identity's own Ed25519 key over a value derived from the
// session: it proves that the device has the key that its ID names.
//
// Guaranteed: somebody without the code learns nothing from listening and has
// one guess a connection, three in all on an offer and one on a join; neither
// side says who it is before the other has proved to know the code; an altered
// or replayed message never leads to a success; both sides derive the same four
// words; strangers who connect and stall don't keep the joiner out.
//
// Not guaranteed: that both sides agree on success. The last message can be
// lost, whatever the last message is. The offerer stores first; so it may know
// the joiner while the joiner reports ErrUnconfirmed and knows nothing. That is
// harmless (the joiner did know the code) and pairing again mends it. Nor is
// the code kept from somebody who looks at the screen: that is what the words
// and the short window are for. Somebody on the same network can spoil a
// pairing, by wrong guesses or by a flood of connections, but not profit.
//
// To test: go test -race ./p2p/pairing ; go test -fuzz=FuzzOffer ./p2p/pairing
package pairing
