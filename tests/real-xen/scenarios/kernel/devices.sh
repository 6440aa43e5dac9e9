# SPDX-License-Identifier: Apache-2.0
# A guest's own kernel has the devices: unmodified virtio_blk, virtio_rng and virtio_console on our
# bus, a file system on /dev/vda, and both sides agree on what is in it.
# machine: pv pvh
# long: pvh
say "three devices, and the guest's kernel loads the driver"
mkdir -p /srv
truncate -s 64M /srv/g1.img
start_vmsgd --config-dir=
nodes=$(bus_nodes)
vmsgctl attach g1 type=blk,path=/srv/g1.img
vmsgctl attach g1 type=rng
vmsgctl attach g1 type=console,pty=/run/g1-console
load_drivers g1
await_file g1 /dev/vda
in_guest g1 'dmesg | tail -n 15'

say "a file system: made, filled, read again after a remount"
in_guest g1 '/usr/sbin/mke2fs -q -t ext4 /dev/vda && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt &&
  cp /lib/modules/*.ko /mnt/ && sha256sum /lib/modules/*.ko | sed "s,/lib/modules,/mnt," >/tmp/sums &&
  umount /mnt && mount -t ext4 /dev/vda /mnt && sha256sum -c /tmp/sums >/tmp/checked && umount /mnt &&
  /usr/sbin/e2fsck -fn /dev/vda'
e2fsck -fn /srv/g1.img

say "entropy and console"
await_file g1 /sys/class/misc/hw_random/rng_current
expect_equal "bytes of entropy" "$(in_guest g1 'head -c 4096 /dev/hwrng | wc -c')" 4096
exec 5<>/run/g1-console
await_file g1 /dev/hvc1
in_guest g1 'echo "hello from g1" >/dev/hvc1'
read -r -t 20 line <&5
expect_contains "$line" "hello from g1"
exec 5<&-

say "a removal waits for the last close of the disk"
in_guest g1 'mount -t ext4 /dev/vda /mnt'
vmsgctl detach g1 0 &
detaching=$!
wait_for 60 eval '[ "$(xenstore-read "$(backend_of g1)/device/0/hotplug-status")" = asked ]'
in_guest g1 'cp /lib/modules/ext4.ko /mnt/once-more && sync && [ -e /dev/vda ] && umount /mnt'
wait $detaching
in_guest g1 '[ ! -e /dev/vda ]'
e2fsck -fn /srv/g1.img

say "all of it goes, the driver goes, and both come again"
vmsgctl detach g1 all
expect_equal "mappings left" "$(mappings_of "$(domid g1)")" 0
expect_equal "nodes of the bus" "$(bus_nodes)" "$nodes"
in_guest g1 'rmmod virtio_msg_xen && insmod /lib/modules/virtio-msg-xen.ko'
vmsgctl attach g1 type=blk,path=/srv/g1.img
await_file g1 /dev/vda
in_guest g1 'mount -t ext4 /dev/vda /mnt && cmp /lib/modules/ext4.ko /mnt/once-more && umount /mnt'
expect_quiet_guest g1

say "the guest is shut down with the disk attached"
in_guest g1 'printf "#!/bin/sh\nexec /bin/poweroff -f\n" >/bin/off; chmod +x /bin/off
  echo /bin/off >/proc/sys/kernel/poweroff_cmd'
domain=$(domid g1)
xl shutdown g1
domain await-end "$domain" 60
expect_no_zombie
stop_vmsgd
