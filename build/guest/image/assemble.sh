# shellcheck shell=bash
# assemble.sh: turns a boot folder and a root folder into a disk that boots under
# a BIOS, and under an UEFI if the boot folder has something for it, without root and without mounting anything. To be sourced by bash; who
# sources it has die and the tools that `deps.sh guest` installs.

mbr=/usr/lib/syslinux/mbr/mbr.bin

# assemble IMAGE BYTES BOOT_MIB BOOT_DIR ROOT_DIR writes IMAGE: 1 MiB free, a FAT
# of BOOT_MIB with the files of BOOT_DIR (syslinux.cfg among them), and the rest
# an ext4 with ROOT_DIR. The same folders give the same disk, but for the times
# that the boot loader writes.
assemble() {
	local image=$1 bytes=$2 boot_mib=$3 boot_dir=$4 root_dir=$5 log
	local boot=$((1 << 20)) root=$(((1 + boot_mib) << 20))
	truncate -s "$bytes" "$image"
	sfdisk -q "$image" <<-TABLE
		label: dos
		label-id: 0x7a6a1060
		start=2048, size=$((boot_mib << 11)), type=e, bootable
		start=$((root >> 9)), type=83
	TABLE
	dd if=$mbr of="$image" bs=440 count=1 conv=notrunc status=none
	mformat -i "$image@@$boot" -T $((boot_mib << 11)) -h 64 -s 32 -H 2048 -N 7a6a1060 ::
	mcopy -s -m -i "$image@@$boot" "$boot_dir"/* ::
	syslinux --install -t $boot "$image"
	log=$(mke2fs -q -F -t ext4 -b 4096 -L guest -U 7a6a1060-0000-4000-8000-000000000001 \
		-E "offset=$root,root_owner=0:0,hash_seed=7a6a1060-0000-4000-8000-000000000002" \
		-d "$root_dir" "$image" $(((bytes - root) / 4096)) 2>&1) || die "mke2fs failed: $log"
}
