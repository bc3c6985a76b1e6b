// Package site knows which devices of a fleet are together on a local network, and which of them is the postmaster: the one through
// which the site's traffic to other sites goes.
//
// It is pure: facts go in, views come out, time comes by tick. It has no network, file or clock of its own. Each device says in
// its own signed record what it runs on, how it is connected, and whom it sees ([Record]); [Sites] works the sites out of all
// records; a [Node] is what one device makes of what it observes, and decides what its own record says. Package app feeds it and
// carries its records in the directory.
//
// # What makes two devices see each other
//
// One heard the other's announcement by multicast DNS from the address that they are connected through ([Peer].OnLink), and the
// round trip that both measure is short ([Near] to begin, [Far] to end). The announcement alone proves nothing: a VPN may carry it.
// The round trip alone proves nothing: a neighbour's line may be fast. It is the shortest of many quiet heartbeats that counts,
// which neither a busy link nor a sleepy radio can push above the length of the way, and nobody below it.
// It is enough that one of the two heard the other, because access points that pass multicast one way only are common; but
// who relies on the other's ears doesn't lend on what it has borrowed, or two devices that have parted could go on
// vouching for each other.
//
// A device lists another one once that has held for [JoinAfter], and drops it when it hasn't held for [LeaveAfter] without a break. A
// laptop whose radio fails for seconds, or that sleeps as long, stays. Nobody joins a device that still waits for someone lost,
// until the wait is over: so a laptop that was carried from one site to another one never joins the two. (One that waits all the time because of a flapping
// neighbour takes in others that have been there for the whole of LeaveAfter and JoinAfter.)
//
// # What a site is
//
// Two devices are joined if each lists the other; a site is everybody who is joined to somebody of it: the connected components
// of that graph. Why both: a device that is off, has moved or lies can't put itself, or two sites, together by its record alone. Why
// the closure, if A sees B, and B sees C, but A doesn't see C: cliques would not be unique ({A,B} and {B,C}, B with two
// postmasters), and a graph's components are the one partition that every device computes alike from the same records, that doesn't
// depend on the order in which these came, and that changes by nothing but merging and splitting. The price is that the
// postmaster may not see every member itself; a chain of short links is still a short way, and who can't be reached by the postmaster
// directly is still reached as any device is.
//
// A site has no identity that outlives its members: [Site].ID is the lowest of their IDs, good for telling sites of one view apart,
// and nothing durable may hang on it. What is durable hangs on devices: what each lacks, what each was sent. When sites merge
// there are two postmasters until the records have met; when they split, one half has none until the next tick. Neither needs anything to be renamed, moved or
// agreed on.
//
// A device that nobody sees is a site of its own. So is one that is off: its record still lists the others, but theirs don't list it.
//
// # What the person says
//
// A pin puts a device into the site of that name: with all others that are pinned to the same name, and with nobody else, whatever is
// seen. Among them, to be connected is to be seen. So a desktop behind a VPN can be made part of "home" by pinning it and those at home,
// and a laptop that is pinned there drags nobody along whom it meets elsewhere. Any device may write down a pin for any other, which may be off: each keeps
// those it wrote in its own record, numbered above all that it knows of that device, and the highest number counts (the higher writer's ID between equal ones). "auto" is
// a pin with no name. Two halves of a pinned site that can't hear each other are two sites of one name, as a site that has split is.
//
// # The postmaster
//
// Who would be best is told from the records: on mains before unknown before battery, wired before unknown before wireless, then
// longest up by its own clock, then lowest ID ([Record] and [Sites] say the same on every device; a wrong clock makes one device a better or worse
// candidate, for all alike). Who is postmaster is told by claims: a claim is a number in a device's own record, and the highest of a site's
// counts (the lowest ID between equal ones). A device alone is its own postmaster without one. Who sees a higher claim than its own in its site gives its own up. A
// device claims, with a number above all that it knows,
//
//   - when nobody has: the best at once, the n-th best after n times [Stagger], should those before it be unable to;
//   - when the postmaster runs on something worse (power or link; not who is up longer) than itself, the best, and has done so for [Settle] without a break.
//
// The lease is that a claim counts only while its device is joined to somebody of the site, and that ends, on both sides, when
// nothing was heard for [LeaveAfter]: then it isn't in the site any more, and the next one claims. Nothing has to be renewed by writing: the
// heartbeat that shows that a device is there renews it. A sleep shorter than that hands nothing on. Saying goodbye (working offline, the
// engine's regular end) is a record that sees nobody and claims nothing: the next one claims on reading it.
//
// A device acts ([View].Acting) only under a claim that was published, and not for the first [Regain] after its start or after it
// noticed that it wasn't running for a while: meanwhile others may have claimed, whose records come with the connections.
//
// Flaps are bounded because claims only grow and a change from one living postmaster to another takes Settle of an uninterrupted
// advantage; all others follow a device that came, went or slept longer than LeaveAfter. Two sites with claims that merge may see two changes: the
// higher claim wins at once, the better device takes over after Settle.
//
// # Two at once, or none
//
// Two act at once while a site is split or their records haven't met: within one site for no longer than it takes to notice
// (LeaveAfter and a tick after the last that was heard). That is harmless, and must be: what a postmaster sends are blocks of a cut that the
// receiver checks against the disk's history and position, refuses if it has them or something newer, and commits in one step; sent twice
// they cost traffic, not data. The postmaster therefore is about thrift (one trip per site), never about who owns or may write: that is the
// directory's baton. None acts for at most LeaveAfter after the last one was heard, the Stagger of those that can't claim and a tick; nothing is lost by
// that either, pushes wait.
//
// # What it doesn't
//
// It doesn't find out whether a postmaster does its work: one that is there, claims and sends nothing holds the post until it goes, as
// does a member of the site that lies about itself. It doesn't choose by how fast the way out is. And it can't merge or split sites that
// records which nobody has written yet would.
//
// # How to test it
//
// go test ./p2p/site: cases for every rule; FuzzDecode; TestSimulation has fleets whose networks split, heal and move, whose devices sleep, stop, crash,
// have wrong clocks and hear records late and in any order, and checks the bounds above (-site.lives=N for more of them).
package site
