#!/bin/bash
# testguest.sh [--out FILE] [--size 512M] [--refresh] [--desktop] [--archive]
#
# Builds the disk of the test guest: a raw image that boots from itself under
# SeaBIOS and under an UEFI (partition table, boot loaders, Debian's cloud kernel, busybox, and the
# program in build/guest on the serial port), without root and without mounting
# anything. Prints the image's path; everything else goes to stderr.
#
# --out FILE  copies the image there (sparse), for a test to write to. Without
#             it the path printed is the cached image: don't boot that one.
# --size      size of the disk, default 512M (with --desktop 8G)
# --refresh   looks for a newer kernel instead of taking the one in the cache
# --archive   puts an archive of a few thousand small files, about 40 MB, at
#             /archive.tar: a part of Go's own source
# --desktop   builds a Debian with a small desktop instead (see desktop.sh)
#
# Images are cached in $TAGALONG_CACHE (default ~/.cache/tagalong-build) and
# built again only when something that goes into them has changed.
set -euo pipefail

die() { echo "testguest.sh: $*" >&2; exit 1; }
say() { echo "testguest.sh: $*" >&2; }

here=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin
out='' size='' refresh='' desktop='' archive=''
while [ $# -gt 0 ]; do
	case $1 in
	--out) [ $# -gt 1 ] || die "--out needs a file"; out=$2; shift ;;
	--size) [ $# -gt 1 ] || die "--size needs a size"; size=$2; shift ;;
	--refresh) refresh=yes ;;
	--desktop) desktop=yes ;;
	--archive) archive=yes ;;
	*) die "unknown option $1 (see the head of this script)" ;;
	esac
	shift
done
if [ -n "$desktop" ]; then
	exec "$here/guest/image/desktop.sh" --out "${out:?--desktop needs --out FILE}" --size "${size:-8G}"
fi
size=${size:-512M}
bytes=$(numfmt --from=iec "$size" 2>/dev/null) || die "not a size: $size"
[ "$bytes" -ge $((128 << 20)) ] || die "the disk needs at least 128M"

for tool in sfdisk syslinux mformat mcopy mke2fs modprobe cpio gzip numfmt go; do
	command -v $tool >/dev/null || die "$tool is missing: run build/deps.sh guest (go: see go.dev/dl)"
done
busybox=$(command -v busybox) || die "busybox is missing: run build/deps.sh guest"
# shellcheck source=guest/image/assemble.sh
. "$here/guest/image/assemble.sh"
sdboot=/usr/lib/systemd/boot/efi/systemd-bootx64.efi
[ -r "$sdboot" ] || die "$sdboot is missing: run build/deps.sh guest"
[ -r "$mbr" ] || die "$mbr is missing: run build/deps.sh guest"

cache=${TAGALONG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tagalong-build}
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# fetch_kernel prints the folder of an unpacked kernel package, the newest in
# the cache or else the newest there is. The package is not installed.
fetch_kernel() {
	local dir package
	dir=$(find "$cache" -maxdepth 1 -name 'kernel-*' | sort -V | tail -n 1)
	if [ -n "$dir" ] && [ -z "$refresh" ]; then
		echo "$dir"
		return
	fi
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2; exit}')
	[ -n "$package" ] || die "apt knows no linux-image-cloud-amd64: run apt-get update (build/deps.sh guest does)"
	local version
	version=$(apt-cache show --no-all-versions "$package" | awk '/^Version:/ {print $2}')
	dir=$cache/kernel-$version
	if [ ! -d "$dir" ]; then
		say "downloading $package $version"
		(cd "$work" && apt-get download -q "$package" >&2) || die "cannot download $package"
		dpkg -x "$work/$package"_*.deb "$work/kernel"
		mv "$work/kernel" "$dir"
	fi
	echo "$dir"
}

# modules ROOT NAME... copies modules and what they need to ROOT/lib/modules,
# with their order in ROOT/lib/modules/order.
modules() {
	local root=$1 name path
	shift
	mkdir -p "$root/lib/modules"
	for name in "$@"; do
		modprobe -d "$kernel" -S "$release" --show-depends --ignore-install "$name" | awk '$1 == "insmod" {print $2}'
	done | awk '!seen[$0]++' | while read -r path; do
		grep -qsxF "${path##*/}" "${work}/early/lib/modules/order" && continue
		cp "$path" "$root/lib/modules/"
		echo "${path##*/}"
	done >"$root/lib/modules/order"
}

kernel=$(fetch_kernel)
release=$(ls "$kernel/lib/modules")
program=$work/guest
(cd "$here/.." && CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$program" ./build/guest)

# The archive is the same for the same Go.
prefix=testguest packed=/dev/null
if [ -n "$archive" ]; then
	prefix=archiveguest packed=$work/archive.tar
	tar --sort=name --mtime=@1700000000 --owner=0 --group=0 --numeric-owner -C "$(go env GOROOT)/src" -cf "$packed" crypto internal runtime
fi
key=$( (sha256sum <"$0"; cat "$here"/guest/image/* "$program" "$busybox" "$kernel"/boot/vmlinuz-* "$packed"; echo "$bytes") | sha256sum | cut -c 1-16)
image=$cache/$prefix-$key.img

build() {
	export SOURCE_DATE_EPOCH=1700000000 E2FSPROGS_FAKE_TIME=1700000000 MTOOLS_SKIP_CHECK=1
	local early=$work/early root=$work/root name
	# depmod's answer travels in the kernel package only after installation.
	[ -e "$kernel/lib/modules/$release/modules.dep" ] || depmod -b "$kernel" "$release"

	mkdir -p "$early"/{bin,dev,proc,sys,root,lib/modules}
	cp "$busybox" "$early/bin/busybox"
	for name in sh mount insmod usleep poweroff switch_root; do ln -s busybox "$early/bin/$name"; done
	install -m 755 "$here/guest/image/initramfs-init" "$early/init"
	modules "$early" virtio_pci virtio_blk
	(cd "$early" && find . -exec touch -hd @$SOURCE_DATE_EPOCH {} + && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --reproducible --quiet) | gzip -n -1 >"$work/initrd.gz"

	mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,etc,data,root,lib/modules}
	cp "$busybox" "$root/bin/busybox"
	for name in sh mount umount insmod hostname sync; do ln -s busybox "$root/bin/$name"; done
	ln -s ../bin/busybox "$root/sbin/init"
	cp "$program" "$root/sbin/tagalong-guest"
	if [ -n "$archive" ]; then
		cp "$packed" "$root/archive.tar"
	fi
	install -m 644 "$here/guest/image/inittab" "$root/etc/inittab"
	install -m 755 "$here/guest/image/rc" "$root/etc/rc"
	install -m 755 "$here/guest/image/rc.down" "$root/etc/rc.down"
	modules "$root" button evdev virtio_net virtio_balloon virtio-rng virtio_console efivarfs
	find "$root" -exec touch -hd @$SOURCE_DATE_EPOCH {} +

	mkdir "$work/boot"
	cp "$here/guest/image/syslinux.cfg" "$work/boot/"
	cp "$kernel/boot/vmlinuz-$release" "$work/boot/vmlinuz"
	cp "$work/initrd.gz" "$work/boot/"
	# The same for an UEFI, which starts what lies there by this name.
	mkdir -p "$work/boot"/{EFI/BOOT,loader/entries}
	cp "$sdboot" "$work/boot/EFI/BOOT/BOOTX64.EFI"
	printf 'timeout 0\ndefault guest.conf\n' >"$work/boot/loader/loader.conf"
	printf 'title guest\nlinux /vmlinuz\ninitrd /initrd.gz\noptions %s\n' \
		"$(sed -n 's/^APPEND //p' "$work/boot/syslinux.cfg")" >"$work/boot/loader/entries/guest.conf"
	find "$work/boot" -exec touch -d @$SOURCE_DATE_EPOCH {} +
	assemble "$work/disk" "$bytes" 48 "$work/boot" "$root"

	# Tests of several versions share the cache; the last few images are kept.
	find "$cache" -maxdepth 1 -name "$prefix-*.img" -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d ' ' -f 2- | xargs -r rm -f
	mv "$work/disk" "$image"
}

if [ -e "$image" ]; then
	touch "$image"
else
	say "building $image"
	build
fi
if [ -n "$out" ]; then
	cp --sparse=always --reflink=auto "$image" "$out"
	chmod u+w "$out"
	image=$out
fi
echo "$image"
