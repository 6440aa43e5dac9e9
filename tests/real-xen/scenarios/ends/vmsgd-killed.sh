# SPDX-License-Identifier: Apache-2.0
# vmsgd is killed while two guests are busy: the kernel unmaps, nothing that was flushed is lost, and a
# new vmsgd serves the frontend that connects again.
# machine: two
two_busy_guests --reconnect
round=$(flushed g1)
kill -9 "$VMSGD"
wait "$VMSGD" || true
for guest in g1 g2; do
  expect_equal "mappings of $guest" "$(mappings_of "$(domid $guest)")" 0
done
disk-witness check /srv/g1.img "$round"
disk-witness check /srv/g2.img "$(flushed g2)"
start_vmsgd
of_guest await g1 data/connections 2 60
expect_io_goes_on g1
stop_io g1 2
in_guest g2 'flock /tmp/io.lock true; cat /tmp/io.log; ! grep -qx 0 /tmp/io.status'
start_io g2
stop_io g2
stop_vmsgd
