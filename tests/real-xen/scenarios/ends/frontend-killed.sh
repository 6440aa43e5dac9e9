# SPDX-License-Identifier: Apache-2.0
# A frontend that is killed while its pages are mapped: the next one finds the disk as it was left.
# machine: two
two_busy_guests
round=$(flushed g1)
in_guest g1 'killall -9 disk-witness; flock /tmp/io.lock true'
disk-witness check /srv/g1.img "$round"
expect_io_goes_on g2
# What the first one left mapped is unmapped when the next one begins its handshake.
start_io g1
stop_io g1
wait_for 10 eval '[ "$(mappings_of "$(domid g1)")" = 0 ]'
expect_io_goes_on g2
stop_io g2
stop_vmsgd
