# SPDX-License-Identifier: Apache-2.0
# A guest with a mounted, busy file system on the bus is saved and restored: a save that fails disturbs
# nobody, a restored guest waits for its backend however late it comes, and nothing that was flushed is lost.
# machine: pv pvh
# long: pvh
mkdir -p /srv /save /full
mount -t tmpfs -o size=450m tmpfs /save
mount -t tmpfs -o size=16m tmpfs /full
truncate -s 32M /srv/g1.img
mke2fs -q -t ext4 /srv/g1.img
echo 'virtio_msg = [ "type=blk,path=/srv/g1.img", "type=rng" ]' >>/etc/xen/g1.cfg
start_vmsgd
load_drivers g1
await_file g1 /dev/vda
if [ "$MACHINE" = pvh ]; then
  say "a backend that does not let go: nothing is saved, and the guest goes on" # a minute of xl's
  kill -STOP "$VMSGD"
  expect_refusal "did not suspend" xl save g1 /save/g1 9>&-
  in_guest g1 'dmesg | grep "not suspended: the backend has kept pages mapped"'
  kill -CONT "$VMSGD"
fi

say "a file system that is written, flushed and compared without end"
in_guest g1 'mkdir -p /mnt && mount -t ext4 /dev/vda /mnt'
start_rounds g1 1

say "a save that fails half-way"
expect_refusal "No space left" xl save g1 /full/g1 9>&-
expect_contains "$(grep -F 'frontend is' $VMSGD_LOG)" "frontend is Clos" # nothing was mapped while it was saved
rounds_go_on g1

say "saved; restored while nobody serves it, and served later"
xl save g1 /save/g1 9>&-
stop_vmsgd
xl restore /save/g1 9>&-
expect_equal "devices while nobody serves them" "$(in_guest g1 'ls /sys/bus/virtio/devices | wc -l')" 2
start_vmsgd
of_guest await g1 data/rounds0 1 200
rounds_go_on g1

say "nothing was lost, and nobody was told"
stop_rounds g1
in_guest g1 'dmesg | tail -n 25'
e2fsck -fn /srv/g1.img
expect_quiet_guest g1
await_file g1 /sys/class/misc/hw_random/rng_current
expect_equal "bytes of entropy" "$(in_guest g1 'head -c 1024 /dev/hwrng | wc -c')" 1024
vmsgctl detach g1 all
expect_equal "mappings left" "$(mappings_of "$(domid g1)")" 0
stop_vmsgd
