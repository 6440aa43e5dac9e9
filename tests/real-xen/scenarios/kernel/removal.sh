# SPDX-License-Identifier: Apache-2.0
# A disk that is taken from a guest in the middle of its writes: they end with errors, nobody hangs,
# other devices of the guest go on, and a disk that comes afterwards works.
# machine: pv
mkdir -p /srv
truncate -s 32M /srv/g1.img
truncate -s 16M /srv/next.img
mke2fs -q -t ext4 /srv/g1.img
mke2fs -q -t ext4 /srv/next.img
start_vmsgd --config-dir=
vmsgctl attach g1 type=blk,path=/srv/g1.img
vmsgctl attach g1 type=rng
load_drivers g1
await_file g1 /dev/vda
in_guest g1 'mkdir -p /mnt && mount -t ext4 /dev/vda /mnt
  exec 8>/tmp/writer.lock; flock 8
  { i=0; while dd if=/dev/zero of=/mnt/data bs=64k count=32 conv=fsync; do xenstore-write data/rounds $((i += 1)); done; } \
    >/tmp/said 2>&1 &'
of_guest await g1 data/rounds 2 200

say "forced, under its writes"
vmsgctl detach g1 0 --force
in_guest g1 'flock /tmp/writer.lock true; tail -n 3 /tmp/said; ! ls /dev/vda'

say "the rest of the guest goes on"
await_file g1 /sys/class/misc/hw_random/rng_current
expect_equal "bytes of entropy" "$(in_guest g1 'head -c 1024 /dev/hwrng | wc -c')" 1024
in_guest g1 'umount /mnt || umount -l /mnt'
vmsgctl attach g1 type=blk,path=/srv/next.img
in_guest g1 'i=0; until d=$(ls /dev/vd?); do [ $((i += 1)) -lt 600 ] || exit 1; usleep 100000; done
  mount -t ext4 $d /mnt && cp /lib/modules/ext4.ko /mnt && umount /mnt'
e2fsck -fn /srv/next.img
in_guest g1 '! dmesg | grep -E "BUG|WARNING|Call Trace|blocked for"'
vmsgctl detach g1 all
expect_equal "mappings left" "$(mappings_of "$(domid g1)")" 0
stop_vmsgd
