# SPDX-License-Identifier: Apache-2.0
# A guest's kernel that starts over (kexec) and finds state 1: it is torn down and offered again, and a
# frontend of the new kernel connects.
# machine: two
two_busy_guests
round=$(flushed g1)
home=/local/domain/$(domid g1)/device/virtio-msg/0
bus=/local/domain/0/backend/virtio-msg/$(domid g1)/0
# A kernel that starts over takes nothing along: nobody closes in an orderly way.
in_guest g1 'killall -STOP disk-witness; xenstore-write device/virtio-msg/0/state 1'
wait_for 10 eval '[ "$(xenstore-read $bus/state)" = 2 ]'
expect_equal "mappings" "$(mappings_of "$(domid g1)")" 0
expect_equal "the frontend's state" "$(xenstore-read $home/state)" 1
disk-witness check /srv/g1.img "$round"
in_guest g1 'killall -9 disk-witness; flock /tmp/io.lock true'
start_io g1
stop_io g1
expect_io_goes_on g2
stop_io g2
stop_vmsgd
