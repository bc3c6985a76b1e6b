#!/bin/bash
# desktop.sh --out FILE --size SIZE: builds a disk with a small real desktop
# (Debian, Xorg, IceWM, logged in by itself as user "guest", password "guest"),
# to try a switch by hand. testguest.sh --desktop calls it.
#
# It needs root, since it installs packages into a folder, a Debian mirror, and
# some minutes; no test uses it.
set -euo pipefail

die() { echo "desktop.sh: $*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin
out='' size=8G
while [ $# -gt 1 ]; do
	case $1 in
	--out) out=$2 ;;
	--size) size=$2 ;;
	*) die "unknown option $1" ;;
	esac
	shift 2
done
[ -n "$out" ] || die "needs --out FILE"
bytes=$(numfmt --from=iec "$size" 2>/dev/null) || die "not a size: $size"
[ "$bytes" -ge $((3 << 30)) ] || die "a desktop needs at least 3G"
[ "$(id -u)" = 0 ] || die "needs root, to install a Debian into a folder"
for tool in mmdebstrap sfdisk syslinux mformat mcopy mke2fs; do
	command -v $tool >/dev/null || die "$tool is missing: run build/deps.sh desktop"
done
# shellcheck source=assemble.sh
. "$here/assemble.sh"
[ -r "$mbr" ] || die "$mbr is missing: run build/deps.sh desktop"

work=$(mktemp -d "${TMPDIR:-/tmp}/tagalong-desktop.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
mmdebstrap --quiet --variant=minbase --components=main \
	--include=linux-image-amd64,systemd-sysv,udev,dbus,kmod,iproute2,systemd-resolved \
	--include=xserver-xorg-core,xserver-xorg-input-libinput,xinit,x11-xserver-utils,xfonts-base \
	--include=icewm,xterm,mousepad,qemu-guest-agent,spice-vdagent \
	"$release" "$root" >&2

chroot "$root" useradd -m -s /bin/bash guest
echo guest:guest | chroot "$root" chpasswd
echo desktop >"$root/etc/hostname"
echo '127.0.0.1 localhost desktop' >"$root/etc/hosts"
echo 'LABEL=guest / ext4 noatime,errors=remount-ro 0 1' >"$root/etc/fstab"
mkdir -p "$root/etc/systemd/system/getty@tty1.service.d"
cat >"$root/etc/systemd/system/getty@tty1.service.d/autologin.conf" <<-'UNIT'
	[Service]
	ExecStart=
	ExecStart=-/sbin/agetty --autologin guest --noclear %I $TERM
UNIT
# Expanded when the guest logs in.
# shellcheck disable=SC2016
echo '[ "$(tty)" != /dev/tty1 ] || exec startx' >"$root/home/guest/.bash_profile"
printf 'xterm &\nexec icewm-session\n' >"$root/home/guest/.xinitrc"
chroot "$root" chown guest: /home/guest/.bash_profile /home/guest/.xinitrc
cat >"$root/etc/systemd/network/wired.network" <<-'UNIT'
	[Match]
	Type=ether
	[Network]
	DHCP=yes
UNIT
chroot "$root" systemctl -q enable systemd-networkd systemd-resolved

boot=$work/boot
mkdir "$boot"
# The newest kernel, if there are several.
cp "$(find "$root/boot" -name 'vmlinuz-*' | sort -V | tail -n 1)" "$boot/vmlinuz"
cp "$(find "$root/boot" -name 'initrd.img-*' | sort -V | tail -n 1)" "$boot/initrd.gz"
cat >"$boot/syslinux.cfg" <<-'CFG'
	DEFAULT desktop
	PROMPT 0
	LABEL desktop
	LINUX vmlinuz
	INITRD initrd.gz
	APPEND root=LABEL=guest rw quiet console=tty0 console=ttyS0,115200
CFG
assemble "$work/disk" "$bytes" 160 "$boot" "$root"
cp --sparse=always --reflink=auto "$work/disk" "$out"
echo "$out"
