# SPDX-License-Identifier: Apache-2.0
# A disk that asks for a reset (the available index of its queue jumped) is reset and goes on, with the request
# that was in flight; one that asks for another before it has done anything, and all that are left to a backend
# that takes no queues over, end with errors, and nobody hangs.
# machine: pv
mkdir -p /srv
truncate -s 16M /srv/g1.img
mke2fs -q -t ext4 /srv/g1.img
start_vmsgd --config-dir=
vmsgctl attach g1 type=blk,path=/srv/g1.img
vmsgctl attach g1 type=rng
load_drivers g1
await_file g1 /dev/vda
in_guest g1 'mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && cp /lib/modules/ext4.ko /mnt/ && umount /mnt'
break_queue() { # OF THE DISK, WHICH SAYS SO
  local asked
  asked=$(grep -c 'it went back or jumped' $VMSGD_LOG || true)
  in_guest g1 'insmod /lib/modules/vmsg-break-queue.ko disk=/dev/vda'
  kill -CONT "$VMSGD"
  wait_for 60 eval "[ \$(grep -c 'it went back or jumped' $VMSGD_LOG) -gt $asked ]"
}

say "a read is on its way, and not taken yet, when the index jumps"
kill -STOP "$VMSGD"
in_guest g1 '{ flock 8; dd if=/dev/vda of=/tmp/read bs=64k count=1 skip=16 iflag=direct; echo $? >/tmp/status; } 8>/tmp/lock 2>/tmp/said &
  i=0; until read -r reads writes </sys/block/vda/inflight && [ "$reads" -gt 0 ]; do [ $((i += 1)) -lt 600 ] || exit 1; usleep 100000; done'
break_queue
in_guest g1 'flock /tmp/lock true; cat /tmp/said; dmesg | tail -n 3; [ "$(cat /tmp/status)" = 0 ]'
expect_equal "what was read" "$(in_guest g1 'sha256sum </tmp/read')" \
  "$(dd if=/srv/g1.img bs=64k count=1 skip=16 2>/dev/null | sha256sum)"
in_guest g1 'mount -t ext4 /dev/vda /mnt && cmp /lib/modules/ext4.ko /mnt/ext4.ko && cp /mnt/ext4.ko /mnt/again &&
  umount /mnt && /usr/sbin/e2fsck -fn /dev/vda && rmmod vmsg_break_queue'
expect_quiet_guest g1

say "and again and again, while nothing is done"
break_queue
in_guest g1 'i=0; until [ "$(dmesg | grep -c "goes on after it")" = 2 ]; do
    [ $((i += 1)) -lt 600 ] || exit 1; usleep 100000; done; rmmod vmsg_break_queue'
break_queue
in_guest g1 'i=0; while [ -e /sys/block/vda ]; do [ $((i += 1)) -lt 600 ] || exit 1; usleep 100000; done; dmesg | tail -n 4
  dmesg | grep "it needed a reset again, and has done nothing since the last one: given up"'

say "the rest of the guest goes on, and the disk comes again"
await_file g1 /sys/class/misc/hw_random/rng_current
expect_equal "bytes of entropy" "$(in_guest g1 'head -c 1024 /dev/hwrng | wc -c')" 1024
vmsgctl detach g1 0
vmsgctl attach g1 type=blk,path=/srv/g1.img
in_guest g1 'i=0; until ls /dev/vd?; do [ $((i += 1)) -lt 600 ] || exit 1; usleep 100000; done
  mount -t ext4 /dev/vd? /mnt && cmp /lib/modules/ext4.ko /mnt/again && umount /mnt'

say "a backend that takes no queues over: the disk's users get errors, and a new disk"
in_guest g1 'mount -t ext4 /dev/vd? /mnt
  { flock 8; while dd if=/dev/zero of=/mnt/data bs=64k count=16 conv=fsync; do :; done; } 8>/tmp/lock >/tmp/said 2>&1 &'
stop_vmsgd
wait_for 60 eval '[ "$(guest read g1 device/virtio-msg/0/state)" = 1 ]'
xenstore-write "$(backend_of g1)/feature-queue-resume" 0 "$(backend_of g1)/state" 2
wait_for 60 eval '[ "$(guest read g1 device/virtio-msg/0/state)" = 3 ]'
in_guest g1 'flock /tmp/lock true; tail -n 3 /tmp/said; umount /mnt || umount -l /mnt
  dmesg | grep "this backend offers no feature-queue-resume: the devices end"'
start_vmsgd --config-dir=
in_guest g1 'i=0; until ls /dev/vd?; do [ $((i += 1)) -lt 600 ] || exit 1; usleep 100000; done
  mount -t ext4 /dev/vd? /mnt && cmp /lib/modules/ext4.ko /mnt/again && umount /mnt'
in_guest g1 '! dmesg | grep -E "BUG|WARNING|Call Trace|blocked for"'
vmsgctl detach g1 all
expect_equal "mappings left" "$(mappings_of "$(domid g1)")" 0
stop_vmsgd
