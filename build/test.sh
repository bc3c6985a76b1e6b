#!/usr/bin/env bash
# test.sh [--quick]
#
# Everything that is checked, on a bare Debian 12 with Go: formatting, vet, staticcheck, the rules about
# who imports whom, builds for all systems, unit tests with the race detector, and the end-to-end
# tests with real QEMU between network namespaces. It installs what it needs (and says what and why).
#
#   --quick  leaves out the builds for other systems and the end-to-end tests
set -euo pipefail
cd "$(dirname "$0")/.."

quick=''
case "${1-}" in
'') ;;
--quick) quick=yes ;;
*)
	sed -n '2,/^set -e/p' "$0" | sed 's/^# \{0,1\}//; /^set -e/d' >&2
	exit 2
	;;
esac

began=$SECONDS
step() { printf '\n== %s (at %d s)\n' "$1" $((SECONDS - began)); }

# together QUIET LOUD: runs two functions at once. What the first says is told when both have ended; it fails if either does.
together() {
	local quiet loud failed='' said
	said=$(mktemp)
	set -m # each in a process group of its own, so that an interrupt can be handed on
	"$1" >"$said" 2>&1 &
	quiet=$!
	"$2" &
	loud=$!
	set +m
	# shellcheck disable=SC2064 # these two, now
	trap "kill -- -$quiet -$loud 2>/dev/null; cat '$said'; rm '$said'; exit 130" INT TERM
	wait "$loud" || failed="$2"
	wait "$quiet" || failed="$failed $1"
	trap - INT TERM
	cat "$said"
	rm "$said"
	if [ -n "$failed" ]; then
		echo "test.sh: failed: ${failed# }" >&2
		exit 1
	fi
}

if ! command -v go >/dev/null; then
	echo "test.sh: Go is missing: install 1.26 or later from https://go.dev/dl and try again." >&2
	exit 1
fi
step "packages"
./build/deps.sh run test guest gui-build gui-test
export LANG=C.UTF-8 TAGALONG_ACCEL=tcg QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true

step "gofmt"
unformatted=$(git ls-files -z '*.go' | xargs -0 gofmt -l)
if [ -n "$unformatted" ]; then
	printf 'test.sh: gofmt would change:\n%s\n' "$unformatted" >&2
	exit 1
fi

step "vet and staticcheck, without the window"
go vet -tags nogui ./...
go tool staticcheck -tags nogui ./...

step "vet and staticcheck, with the window"
go vet -tags migrated_fynedo ./ui/... ./assets/... ./cmd/...
go tool staticcheck -tags migrated_fynedo ./ui/... ./assets/... ./cmd/...

step "the rules about the source tree"
go test -count=1 ./build/rules/

step "unit tests, with the race detector"
# The window's tests run below, in a build of their own; the end-to-end tests come last. What vet finds was looked for above.
packages=$(go list -tags nogui ./... | grep -v -e '/ui$' -e '/ui/' -e '/build/e2e$' -e '/build/chaos$' -e '/build/matrix$' -e '/vmdisk/crash$' -e '/app/fleetsim$')
# shellcheck disable=SC2086 # several words on purpose
go test -race -vet=off -tags nogui -timeout 20m $packages
go test -race -tags ci,migrated_fynedo -timeout 10m ./ui/... ./assets/...

step "crash points, killed processes, and whole fleets, simulated"
# A crash point is one goroutine's work, and so is a fleet's life: the two run side by side, and the race detector, which would
# find nothing there in ten times the time, looks at a few fleets only.
crashes() {
	go test -vet=off -timeout 15m ./vmdisk/crash/
	go test -race -vet=off -timeout 10m -run 'TestKill' ./vmdisk/crash/
}
fleets() {
	go test -vet=off -timeout 15m ./app/fleetsim/ -fleet.seeds 2000
	go test -race -vet=off -timeout 10m -run 'TestFleet' ./app/fleetsim/ -fleet.seeds 25
}
together crashes fleets

window() {
	step "the whole program, and the tray against a real panel"
	mkdir -p bin
	go build -tags migrated_fynedo -o bin/tagalong ./cmd/tagalong
	go test -tags migrated_fynedo -timeout 10m ./ui/
}

systems() {
	step "the engine without cgo, for every system"
	for system in linux darwin windows; do
		for processor in amd64 arm64; do
			CGO_ENABLED=0 GOOS=$system GOARCH=$processor go build -tags nogui -o /dev/null ./cmd/tagalong
			echo "built for $system/$processor"
		done
	done
}

chaos() {
	step "chaos: three PCs at two sites, killed, cut off, put to sleep and filled up under a guest"
	go test -count=1 -vet=off -v -timeout 15m ./build/chaos/
}

matrix() {
	step "the failure matrix: a switch, hurt at some of its steps, and a few in a row while engines are killed"
	go vet -tags "nogui tagalonghold" ./app/holdpoint/
	go test -count=1 -vet=off -tags tagalonghold ./app/holdpoint/
	go test -count=1 -vet=off -v -timeout 15m ./build/matrix/
}

compiled() {
	window
	systems
}

if [ -n "$quick" ]; then
	window
	echo "test.sh: quick: builds for other systems and end-to-end tests were left out"
	exit 0
fi

# Chaos lets time go by, so the compiler has the processors meanwhile.
together chaos compiled

matrix

step "end to end: two and three PCs, real QEMU, two stories at once"
go test -count=1 -vet=off -v -parallel 2 -timeout 25m ./build/e2e/

printf '\ntest.sh: all passed in %d s\n' $((SECONDS - began))
