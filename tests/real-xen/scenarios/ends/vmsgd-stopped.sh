# SPDX-License-Identifier: Apache-2.0
# vmsgd is told to stop while two guests are busy: it unmaps everything, says so in the states, and
# the guests' frontends connect again to the next vmsgd.
# machine: two
two_busy_guests --reconnect
round=$(flushed g1)
stop_vmsgd
for guest in g1 g2; do
  expect_equal "mappings of $guest" "$(mappings_of "$(domid $guest)")" 0
  expect_equal "state for $guest" "$(xenstore-read "/local/domain/0/backend/virtio-msg/$(domid $guest)/0/state")" 6
done
disk-witness check /srv/g1.img "$round"
start_vmsgd
of_guest await g1 data/connections 2 60
expect_io_goes_on g1
stop_io g1 2
# g2's frontend does not connect again by itself: it ended with an error, its disk is as it was flushed.
in_guest g2 'flock /tmp/io.lock true; cat /tmp/io.log; ! grep -qx 0 /tmp/io.status'
disk-witness check /srv/g2.img "$(flushed g2)"
start_io g2
stop_io g2
stop_vmsgd
