# SPDX-License-Identifier: Apache-2.0
# Everything else that ends a connection while a slow disk has reads and writes of the guest's: Dom0's
# kernel takes no harm, nothing stays mapped, and what was flushed is on the disk.
# machine: pv
# slow-disk: 8
# seconds: 900
domain=$(domid g1)
attach_slow_disk() { vmsgctl attach g1 type=blk,path=$SLOW; }
# In the middle of reads or of writes.
interrupt() { # WHAT reads|writes COMMAND...
  local round
  say "$1, $2"
  wait_for 60 slow_disk_has "$2"
  round=$(flushed g1)
  "${@:3}"
  wait_for 30 nothing_mapped g1
  expect_quiet_kernel
  disk-witness check $SLOW "$round"
}
# The frontend has noticed; the next one finds a disk that works.
next_frontend() {
  in_guest g1 'flock /tmp/io.lock true; cat /tmp/io.log'
  start_io g1
}
start_vmsgd
attach_slow_disk
start_io g1
interrupt "all detached by force" reads vmsgctl detach g1 all --force
attach_slow_disk
next_frontend
interrupt "vmsgd is stopped" writes stop_vmsgd
start_vmsgd
of_guest await g1 data/connections 2 200
# What a killed frontend leaves mapped is unmapped when the next one begins.
say "the frontend is killed, reads"
wait_for 60 slow_disk_has reads
in_guest g1 'killall -9 disk-witness; flock /tmp/io.lock true'
start_io g1
expect_quiet_kernel
say "the guest is destroyed, writes"
wait_for 60 slow_disk_has writes
round=$(flushed g1)
xl destroy g1
domain await-end "$domain" 60
expect_no_zombie
expect_equal "mappings" "$(mappings_of "$domain")" 0
expect_quiet_kernel
disk-witness check $SLOW "$round"
stop_vmsgd
