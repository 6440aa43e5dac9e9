# SPDX-License-Identifier: Apache-2.0
# A guest's mounted, busy file system goes on when vmsgd is killed or stopped and another is started:
# no error reaches the guest, and nothing that was flushed is lost.
# Two processors, two queues, a writer for each.
# machine: dom0
say "a file system that is written, flushed and compared without end"
mkdir -p /srv
make_guest pv g1 224 'vcpus = 2'
truncate -s 32M /srv/g1.img
mke2fs -q -t ext4 /srv/g1.img
start_vmsgd --config-dir=
vmsgctl attach g1 type=blk,path=/srv/g1.img,queues=2
vmsgctl attach g1 type=rng
load_drivers g1
await_file g1 /dev/vda
expect_equal "queues" "$(in_guest g1 'ls /sys/block/vda/mq | wc -l')" 2
in_guest g1 'mkdir -p /mnt && mount -t ext4 /dev/vda /mnt'
start_rounds g1 2

say "vmsgd is killed, three times"
for _ in 1 2 3; do
  kill -KILL "$VMSGD"
  wait "$VMSGD" || true
  start_vmsgd --config-dir=
  rounds_go_on g1
done

say "vmsgd is stopped, and started later"
stop_vmsgd
expect_equal "devices while nobody serves them" "$(in_guest g1 'ls /sys/bus/virtio/devices | wc -l')" 2
start_vmsgd --config-dir=
rounds_go_on g1

say "nothing was lost, and nobody was told"
stop_rounds g1
say "$(guest read g1 data/rounds0) and $(guest read g1 data/rounds1) rounds"
in_guest g1 'dmesg | tail -n 12'
e2fsck -fn /srv/g1.img
expect_quiet_guest g1
await_file g1 /sys/class/misc/hw_random/rng_current
expect_equal "bytes of entropy" "$(in_guest g1 'head -c 1024 /dev/hwrng | wc -c')" 1024
vmsgctl detach g1 all
expect_equal "mappings left" "$(mappings_of "$(domid g1)")" 0
stop_vmsgd
