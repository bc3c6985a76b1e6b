#!/usr/bin/env bash
# bench.sh NAME [--rounds N] [--seconds S] [--only TEXT] [--mib N] [--scratch DIR] [--fast DIR]
#
# Measures the disk against what other people use, in one run on this computer. One line a figure:
#
#   nbd/r4k-d1 ratio=3.54 ours=27711 theirs=7821 unit=iops peer=qemu-nbd spread=3.1-3.9 rounds=5 aim=3.5
#
# with cpu= and theircpu=, the microseconds of processor time that the server takes for each request.
# ratio is the median over the rounds of ours/theirs within a round, spread its least and greatest; ours and
# theirs are medians. Rounds are interleaved, their order turns around each time, all are warmed up.
# "ours" is an owner's disk with everything on: dirty tracking for three peers, activity log, barriers, fence.
#
# NAME is one of
#   nbd     the server against qemu-nbd and nbdkit's file plugin: fio over the Unix socket, and qemu-img bench
#           against QEMU on the bare file (peer=file). Images on tmpfs
#   flush   4 KiB writes, each with a flush, against the same peers, on a disk file system
#   cut     4 KiB writes with a cut open and half the disk still to be copied, against the same without a cut
#   mirror  a disk that is mirrored to three devices (processes, TCP and TLS, the product's own host) against QEMU's quorum of a
#           file and three NBD targets (Unix sockets, no encryption), with the time until all is there in it; write and flush
#           pairs, and 99th percentiles at a steady 15 MB/s, against the same disk unmirrored (the owner's disk on --scratch,
#           the peers' on tmpfs), also when a flush waits for one of them (sync = "two") against when not; the percentiles
#           also with peers that only get the processor time that the owner leaves (chrt --idle), as if on PCs of their own; what one mirror
#           carries against a bare stream of the same host, and against one that both ends store once. Up to eleven images on tmpfs
#   push    what a push sends of 1 % scattered 4 KiB writes to a full disk of --mib, knowing what was written (exact) and not knowing it
#           (sums), before compression, against what rsync -B 4096 sends; how well it uses a line of 7 Mbit/s and 40 ms (of what TCP
#           can carry over it); and how much longer somebody waits meanwhile who asks for a block (network namespaces, so root; a
#           process at each end, disks on tmpfs, four images in all). With --mib 2048 three minutes
#   day     what is pushed to another site of a day's writes: eight hours of the rates of the thesis' table 3.1 and a quiet night, four
#           fifths of it hot blocks that are overwritten, in time lapse: the scheduler, the disks and the pushes are the product's, the
#           hours and the line are counted. Absolute figures; the disk is --mib, a minute or two
#   hydrate what a disk gives all of which is stale, as after a switch: read in sequence while the rest is pulled (pull) and without (demand,
#           for --seconds), and at random (random: the median of 4 KiB reads, in ms), over a path with a round trip of 0, 6, 25 and 80 ms
#           that carries what the processor can (a proxy on loopback), against what r3map's authors have published, and over the same path in
#           the same run a bare stream of the same host (bare-stream), one whose content is stored and read (kept-stream), and that with content
#           read from a file (file-stream): what the processor allows. 4 KiB reads while the rest is pulled over 7 Mbit/s and 40 ms against idle, and how
#           well that uses the line (network namespaces, so root). And a guest, its processor emulated, that unpacks an archive of small files:
#           all of its disk stale, the holder behind 1 Gbit/s, with pull (unpack-pull) and without (unpack-demand, which the thesis measured as 1.56),
#           against nothing stale, three rounds at most; every guest boots from a stale disk and rests, so all begin alike. Of the time that it
#           took, the share for which reads waited for stale blocks (unpack-...-waits): the guest is as fast as the computer has time for it, that
#           share isn't. Times are better when less. Disks on tmpfs; ten minutes with --mib 256
#   resync  how fast a device that was apart for ten minutes is brought up to date (2 MB/s written meanwhile for 512 MiB of disk, four fifths of it into a tenth),
#           with what it lacks known (dirty) and only found out by comparing (sums: both ends read and hash all of the disk), and a new device gets its first copy,
#           by the mirror (first) and pushed as to another site (first-pushed), against the slower of a bare stream and a bare
#           write and sync of as many bytes. Over a line as fast as the computer can, and one of 100 Mbit/s and 1 ms (network namespaces, so root; a process
#           at each end, disks on --scratch). And what a first copy, which lets guests go first, leaves of the guest's flushed writes, of its reads, and of
#           how fast one is of reads in bursts, against none, with how fast the copy is meanwhile (beside): over loopback, the new device's disk on --fast, and
#           its process, another computer's elsewhere, at the lowest priority
#   switch  a switch against stock QEMU's migration with the disk mirrored over NBD, as Incus drives it (blockdev-mirror, write-blocking, onto an NBD server at the
#           target; auto-converge; pause-before-switchover; unencrypted, and without what Incus does before), the same guest of 512 MiB on emulated processors, in
#           network namespaces, so root, on the LAN with --mib of content on the disk beside the system's own (a desktop's has much more; over the slow line there is none,
#           as its mirror alone would take ten minutes): the pause between two of the guest's 10 ms ticks (pause), from the click to the first tick on the other PC (run; rest without the time that stock's
#           mirror takes before memory moves), all
#           that crossed the line in that time (wire; -bytes is ours against the guest's touched memory, read from the kernel), and the ticks there were of those
#           undisturbed, between the click and the pause (before) and for two seconds after it (after). The guest is idle, writes 200 records of 4 KiB a second with a
#           sync each eighth, or dirties 8 MiB a second within 128 MiB, most of whose bytes are zeros; on the LAN, and over 7 Mbit/s and 40 ms with less of both. Both
#           have their disks on --scratch. A stock switch that isn't over after a quarter of an hour counts as that long for "run" (late=1), and for nothing else. A round
#           takes a minute and a half on the LAN and half an hour over the slow line: --only switch/lan, --only switch/wan
#   memory  what a 1 TiB disk with three peers and 10 % of its blocks dirty takes, beyond buffers
#   directory  three devices' directories (processes on this computer, TCP, no encryption, on --scratch): how long until a
#           change is durable on both others, and what the stale sets of 5 VMs of 1 TiB with 10 % random stale blocks take
#           on the wire, on disk and in memory. Absolute figures; two to five minutes
#
# Only ratios mean something elsewhere. Images lie on tmpfs because what reclaims the page cache behind our back
# (DAMON, on some VMs) and the file system's own writing would be measured otherwise; flushes need a real disk.
#
#   --rounds N      (5)         --seconds S     of each measurement (2)
#   --only TEXT     only the cells whose name has TEXT
#   --mib N         size of each image (512); there are up to five
#   --fast DIR      a tmpfs (/dev/shm)
#   --scratch DIR   on a disk, for flush ($TMPDIR or /tmp)
#
# It installs what it needs (and says what and why) and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
'' | -*)
	sed -n '2,/^set -e/p' "$0" | sed 's/^# \{0,1\}//; /^set -e/d' >&2
	exit 2
	;;
esac
if ! command -v go >/dev/null; then
	echo "bench.sh: Go is missing: install 1.26 or later from https://go.dev/dl and try again." >&2
	exit 1
fi
groups=bench
case "$1" in
hydrate | switch) groups='bench run guest' ;;
esac
# shellcheck disable=SC2086 # several words on purpose
./build/deps.sh $groups
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
CGO_ENABLED=0 go build -tags nogui -o "$folder/bench" ./build/bench
"$folder/bench" "$@"
