#!/bin/sh
# deps.sh GROUP...: installs the Debian packages that a task needs and this
# system lacks. Groups: run, test, bench, guest, desktop, gui-build, gui-test.
#
# It says what it installs and why, touches the network only if something is
# missing, and needs root (or sudo) only then.
set -eu

usage() {
	echo "usage: $0 GROUP...   (run, test, bench, guest, desktop, gui-build, gui-test)" >&2
	exit 2
}

# packages_of GROUP prints "package why" lines.
packages_of() {
	case $1 in
	run) cat <<-'LIST' ;;
		qemu-system-x86 runs the virtual machine
		qemu-utils reads and writes disk images
		seabios is the firmware that it boots with
		ovmf is the UEFI of virtual machines that were made with one
		iproute2 sets up network namespaces and links
	LIST
	test) cat <<-'LIST' ;;
		qemu-system-x86 runs the test guest
		qemu-utils checks the disk server with qemu-io and qemu-img
		seabios is the firmware of the test guest
		ovmf is the UEFI of test guests that have one
		iproute2 makes test hosts out of network namespaces
		libnbd-bin checks the disk server with nbdinfo and nbdcopy
		fio writes and verifies under load
		xfsprogs makes a file system whose files can share blocks
		btrfs-progs makes another one
		qemu-guest-agent is the agent that the engine speaks to
		virt-viewer shows the screen that a test looks at
		xvfb is the display that it shows it on
		imagemagick takes a picture of that display
	LIST
	bench) cat <<-'LIST' ;;
		qemu-utils has qemu-nbd to compare with and qemu-img to measure with
		qemu-system-common has qemu-storage-daemon, whose quorum is compared with
		nbdkit is the other server to compare with
		fio makes the load
		libnbd-bin copies disks over the wire
		rsync is what a push is compared with
	LIST
	guest) cat <<-'LIST' ;;
		busybox-static is the test guest's user land
		e2fsprogs makes its root file system
		syslinux boots it, installed without mounting anything
		systemd-boot-efi boots it under an UEFI
		syslinux-common has the boot sector
		mtools fills its boot partition without mounting it
		fdisk writes its partition table
		kmod finds the order of kernel modules
		cpio packs its initramfs
	LIST
	desktop) cat <<-'LIST' ;;
		mmdebstrap installs a small Debian into a folder
		e2fsprogs makes the root file system
		syslinux boots it
		syslinux-common has the boot sector
		mtools fills the boot partition
		fdisk writes the partition table
	LIST
	gui-build) cat <<-'LIST' ;;
		gcc compiles the cgo parts of the window toolkit
		libc6-dev has the C headers
		pkg-config finds the libraries
		libgl1-mesa-dev has the OpenGL headers
		xorg-dev has the X11 headers
	LIST
	gui-test) cat <<-'LIST' ;;
		xvfb is a screen without a screen
		dbus carries the tray icon
		x11-utils looks at windows
		imagemagick compares pictures
		xdotool clicks
		libgl1-mesa-dri draws OpenGL without a graphics card
	LIST
	*) usage ;;
	esac
}

installed() {
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

[ $# -gt 0 ] || usage
command -v dpkg-query >/dev/null || {
	echo "$0: this is for Debian and its kin; on other systems install by hand what it lists" >&2
	exit 1
}

missing=
for group in "$@"; do
	list=$(packages_of "$group")
	while read -r package why; do
		case " $missing " in *" $package "*) continue ;; esac
		installed "$package" && continue
		echo "installing $package: it $why" >&2
		missing="$missing $package"
	done <<-LIST
		$list
	LIST
done
if [ -z "$missing" ]; then
	exit 0
fi

as_root=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "$0: needs root for: apt-get install$missing" >&2
		exit 1
	}
	as_root=sudo
fi
$as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2
# The words of $missing are separate arguments.
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
