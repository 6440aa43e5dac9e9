# SPDX-License-Identifier: Apache-2.0
# A disk that Dom0 or Xen's own backend has would be damaged by a guest that writes it, too: it is refused, the
# reason is said, and the same command attaches it when the reason is gone.
# machine: two
# seconds: 400
mkdir -p /srv /mnt
modules() { # NAME...
  local name module
  for name; do while read -r module; do insmod "/lib/modules/$module.ko"; done <"/lib/modules/$name.order"; done
}
loop_on() { # FILE [-r]: prints the device
  local loop
  loop=$(losetup -f)
  losetup ${2:-} "$loop" "$1"
  echo "$loop"
}
refused() { # REASON ENTRY, for g2
  expect_refusal "$1" vmsgctl attach g2 "$2"
  expect_contains "$(tail -n 5 $VMSGD_LOG)" "$1"
}
attached() { # ENTRY, for g2, which keeps nothing
  vmsgctl attach g2 "$1" >/dev/null
  vmsgctl detach g2 all >/dev/null
}
modules crc32c_generic ext4 xen-blkback
in_guest g1 'insmod /lib/modules/xen-blkfront.ko'

say "a config's file that Dom0 has mounted: list says why its guest has no disk; mended, the same config again"
truncate -s 8M /srv/disk.img
mke2fs -q -F /srv/disk.img
loop=$(loop_on /srv/disk.img)
mount -t ext4 "$loop" /mnt
echo 'virtio_msg = [ "type=blk,path=/srv/disk.img" ]' >>/etc/xen/g2.cfg
start_vmsgd
wait_for 20 eval 'vmsgctl list | grep -F "is the file of $loop"'
refused "is mounted at /mnt" "type=blk,path=$loop"
refused "is mounted at /mnt" "type=blk,path=$loop,readonly=1"
umount /mnt
attached "type=blk,path=$loop,readonly=1"
attached "type=blk,path=$loop"
refused "is the file of $loop" type=blk,path=/srv/disk.img,readonly=1
losetup -d "$loop"
vmsgctl attach --config /etc/xen/g2.cfg
expect_equal "the status" "$(xenstore-read "/local/domain/0/backend/virtio-msg/$(domid g2)/0/device/0/hotplug-status")" connected
in_guest g2 'vmsg-frontend blk verify'
vmsgctl detach g2 all

say "a file and its loop device are one disk"
vmsgctl attach g1 type=blk,path=/srv/disk.img
loop=$(loop_on /srv/disk.img)
refused "is the loop device of /srv/disk.img" "type=blk,path=$loop"
refused "is the loop device of /srv/disk.img" "type=blk,path=$loop,readonly=1"
vmsgctl detach g1 all
vmsgctl attach g1 "type=blk,path=$loop"
refused "in use" type=blk,path=/srv/disk.img
refused "in use" "type=blk,path=$loop"
vmsgctl detach g1 all
losetup -d "$loop"
attached type=blk,path=/srv/disk.img

say "a disk that Xen's own backend serves, which claims and locks nothing"
cat >/etc/xen/scripts/block-ram <<'SCRIPT'
#!/bin/sh
[ "$1" = add ] || exit 0
xenstore-write "$XENBUS_PATH/physical-device" "$(stat -c %t:%T /dev/ram0)" "$XENBUS_PATH/hotplug-status" connected
SCRIPT
chmod 755 /etc/xen/scripts/block-ram
xl block-attach g1 'vdev=xvdb,format=raw,backendtype=phy,script=/etc/xen/scripts/block-ram,target=/dev/ram0'
in_guest g1 'until [ "$(cat /sys/block/xvdb/size 2>/dev/null)" -gt 0 ] 2>/dev/null; do usleep 20000; done'
refused "is the disk vbd-$(domid g1)-51728 of a guest" type=blk,path=/dev/ram0
refused "is the disk vbd-$(domid g1)-51728 of a guest" type=blk,path=/dev/ram0,readonly=1
xl block-detach g1 xvdb
wait_for 60 eval '[ ! -e /sys/bus/xen-backend/devices/vbd-$(domid g1)-51728 ]'
attached type=blk,path=/dev/ram0

say "what may not be written needs readonly=1"
chmod 0400 /srv/disk.img
refused "readonly=1" type=blk,path=/srv/disk.img
attached type=blk,path=/srv/disk.img,readonly=1
chmod 0600 /srv/disk.img
attached type=blk,path=/srv/disk.img
loop=$(loop_on /srv/disk.img -r)
refused "readonly=1" "type=blk,path=$loop"
attached "type=blk,path=$loop,readonly=1"
losetup -d "$loop"

say "an image of another format needs format=raw"
printf 'QFI\373\0\0\0\003' | dd of=/srv/disk.img conv=notrunc 2>/dev/null
refused "qcow2" type=blk,path=/srv/disk.img
attached type=blk,path=/srv/disk.img,format=raw
stop_vmsgd
