# SPDX-License-Identifier: Apache-2.0
# vmsgd is told to stop while two guests are busy: it unmaps everything and says so in the states, and
# with the next vmsgd the guests' frontends go on without an error; their requests have waited.
# machine: two
two_busy_guests
round=$(flushed g1)
stop_vmsgd
for guest in g1 g2; do
  expect_equal "mappings of $guest" "$(mappings_of "$(domid $guest)")" 0
  expect_equal "state for $guest" "$(xenstore-read "/local/domain/0/backend/virtio-msg/$(domid $guest)/0/state")" 6
done
disk-witness check /srv/g1.img "$round"
disk-witness check /srv/g2.img "$(flushed g2)"
start_vmsgd
for guest in g1 g2; do
  of_guest await $guest data/connections 2 200
  expect_io_goes_on $guest
done
for guest in g1 g2; do stop_io $guest 2; done
stop_vmsgd
