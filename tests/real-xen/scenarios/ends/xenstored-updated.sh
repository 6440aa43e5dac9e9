# SPDX-License-Identifier: Apache-2.0
# xenstored is replaced while it runs: vmsgd and the guests keep their connections and their watches.
# machine: two
two_busy_guests
xenstore-control live-update /usr/sbin/xenstored
expect_io_goes_on g1
vmsgctl attach g1 type=rng,num=3
vmsgctl detach g1 3
stop_io g1
domain=$(domid g1)
xl destroy g1
expect_no_zombie
wait_for 2 eval '! xenstore-exists /local/domain/0/backend/virtio-msg/$domain'
stop_io g2
stop_vmsgd
