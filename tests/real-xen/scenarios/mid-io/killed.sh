# SPDX-License-Identifier: Apache-2.0
# vmsgd is killed ten times while a slow disk has reads and writes of a guest's: Dom0's kernel takes no
# harm, nothing stays mapped, the guest's frontend goes on with the next vmsgd, and what was flushed is
# on the disk.
# machine: pv pvh-dom0
# long: pvh-dom0
# slow-disk: 8
# seconds: 900
start_vmsgd
vmsgctl attach g1 type=blk,path=$SLOW
start_io g1
for kill in 1 2 3 4 5 6 7 8 9 10; do
  wait_for 60 slow_disk_has $([ $((kill % 2)) = 0 ] && echo reads || echo writes)
  kill -9 "$VMSGD"
  wait "$VMSGD" || true
  # The disk may still have them: pages that it uses itself are let go when it is done.
  wait_for 30 nothing_mapped g1
  expect_quiet_kernel
  round=$(flushed g1)
  start_vmsgd
  of_guest await g1 data/connections $((kill + 1)) 200
  of_guest await g1 data/flushed $((round + 1)) 200
done
stop_io g1 11
expect_quiet_kernel
stop_vmsgd
