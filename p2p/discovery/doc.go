// Package discovery finds other devices on the local network by multicast DNS and lets them find this one.
//
// What it is: a wrapper around grandcat/zeroconf that advertises one service, "_tagalong._tcp", and browses for it in
// short rounds. An advertisement carries the TCP port of the host, the addresses of the chosen interfaces, a tag that
// only somebody who knows the device can recognise, and, while a pairing window is open, the port of the pairing door.
//
// What it guarantees: bounded memory whatever is heard; no identity in clear text and names that change with every
// registration; a new registration when addresses, tag or ports change; all of its goroutines end when Serve returns
// (zeroconf's own announcer lingers for up to four seconds, harmlessly, on closed sockets).
//
// What it does not guarantee: that anything heard is true. Multicast can be forged by anyone on the link and is often
// filtered on wireless networks. A sighting is a hint of where to dial; who answers there is decided by the encrypted
// connection alone.
//
// Why short rounds, fresh resolvers and a cache of our own: zeroconf reports each entry once per resolver, never
// reports changes, ignores the time to live and hides goodbyes. It also answers with records that live for 3200 s: its
// TTL setter races with its own announcer, so it is not used. Our cache has its own, shorter expiry, and address
// records always carry 120 s.
//
// How to test it: the cache, the tags and the record parser are plain functions with unit tests and a fuzz seed set;
// the tests of package p2p run the real thing between network namespaces.
package discovery
