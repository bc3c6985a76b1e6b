#!/usr/bin/env bash
# demo.sh [--keep] [--window] [--kill desk|laptop] [--switches N]
#
# Two PCs, one running desktop, one switch: for real, on this computer.
#
# It installs what is missing (and says what and why), builds Tagalong, makes two PCs out of network
# namespaces, starts an engine in each, pairs them, boots the test guest on one under QEMU, mirrors
# its disk to the other, switches the running guest there and back, and lets three witnesses judge:
# the guest's own check of its disk and memory, the ticks of its clock, and a byte-by-byte
# comparison of both disks. It exits 0 only if they agree.
#
#   --keep        leaves the PCs running and prints how to drive them
#   --window      opens each PC's window too, if there is a display
#   --kill PC     kill -9 that PC's engine while the disk is being mirrored
#   --switches N  moves the VM N times instead of twice
#
# Nothing outside of a temporary directory, the build caches and the namespaces it makes is touched.
set -euo pipefail
cd "$(dirname "$0")/.."

case " $* " in
*" --help "* | *" -h "*)
	sed -n '2,/^set -e/p' "$0" | sed 's/^# \{0,1\}//; /^set -e/d'
	exit 0
	;;
esac

if ! command -v go >/dev/null; then
	echo "demo.sh: Go is missing: install 1.26 or later from https://go.dev/dl and try again." >&2
	exit 1
fi
groups="run guest"
tags=nogui
case " $* " in
*" --window "*)
	groups="$groups gui-build"
	tags=migrated_fynedo
	;;
esac
# shellcheck disable=SC2086 # several words on purpose
./build/deps.sh $groups

echo "demo.sh: building Tagalong and the test guest (the first time takes some minutes)"
mkdir -p bin
if [ "$tags" = nogui ]; then export CGO_ENABLED=0; fi
go build -tags "$tags" -o bin/tagalong ./cmd/tagalong
CGO_ENABLED=0 go build -o bin/demo ./build/demo
image=$(./build/testguest.sh)

# Without root the program enters a user namespace, or says what it needs.
exec ./bin/demo --binary "$PWD/bin/tagalong" --image "$image" "$@"
