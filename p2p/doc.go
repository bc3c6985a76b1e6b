// Package p2p connects the devices of one fleet: one libp2p host per engine, one encrypted connection to each other
// device, authenticated streams on it.
//
// What it is: a Host with the device's Ed25519 identity, an allow-list at the door, a dialler that keeps every member
// connected, a heartbeat that decides within seconds whether a device is still there, and the streams that the protocol
// packages below this folder speak on. TCP with TLS 1.3 and yamux; no relay, no port mapping, no public infrastructure.
//
// What it guarantees:
//   - A device that isn't a member gets no stream in either direction: it is refused right after the handshake proved
//     who it is, and every stream checks again. AllowChanged closes the connections of removed devices before it returns.
//   - One exception: a device of Options.Farewells, which left the fleet and hasn't heard so, or is to hear it from us,
//     may be connected for FarewellProtocol alone (and what a connection itself needs: identify, which tells our
//     addresses, and the heartbeat). When its standing changes, so does the connection: the old one is closed.
//   - "Connected" means that the other device answered on this very connection, so it is there and accepts us too.
//   - A connection that falls silent is closed after 3 s; longer only while data that was written before is provably
//     still on its way (at most 15 s).
//   - A lost member is dialled again at once and, after failures, at most every 15 s; at once when discovery sees it.
//   - Of each connection it is known how long its way is (PeerStatus.Trip), whatever else is on it, and whether the other end
//     announces itself on a link of ours at that address (PeerStatus.OnLink).
//   - A stream's window is 2 MiB once something was read of it, and up to 64 MiB while what is read needs that on a long fast way; what they take of memory is
//     bounded for each device, and for all.
//   - Every goroutine ends with Close, which waits for stream handlers.
//
// What it does not guarantee: delivery. A successful Write says nothing about the other end; protocols acknowledge for
// themselves. There may be two connections to the same device when both dialled at once; each is supervised.
//
// How to test it: go test -race ./p2p/ as root on Linux, because some tests build network namespaces; they fail, with
// a sentence that says why, if they can't.
package p2p
