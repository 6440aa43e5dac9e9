# SPDX-License-Identifier: Apache-2.0
# vmsgd in a driver domain is killed, and goes with its domain, while the guest that it serves is
# busy: nothing that was flushed is lost, the guest goes on with the next vmsgd there, waits for it, or
# is told that its bus has moved to another domain, and lives on.
# machine: two
start_driver
in_guest g1 'truncate -s 2M /srv/g2.img'
attach_at_driver type=blk,path=/srv/g2.img
guest=$(domid g2)
start_io g2

say "killed, and started again"
round=$(flushed g2)
stop_driver KILL
expect_equal "mappings of g2" "$(mappings_of "$guest")" 0
in_guest g1 "disk-witness check /srv/g2.img $round"
start_driver
of_guest await g2 data/connections 2 200
expect_io_goes_on g2

say "the driver domain is destroyed"
in_guest g2 'killall disk-witness; flock /tmp/io.lock true; cat /tmp/io.log; grep -qx 0 /tmp/io.status'
in_guest g1 "disk-witness check /srv/g2.img $(flushed g2)"
start_io g2
driver=$(domid g1)
DRIVER=
xl destroy g1
domain await-end "$driver" 200
expect_no_zombie
expect_equal "mappings of g2" "$(mappings_of "$guest")" 0
expect_equal "the guest's domain" "$(domid g2)" "$guest"

say "another backend serves the guest afterwards"
start_vmsgd --config-dir=
attach_disk g2
in_guest g2 'flock /tmp/io.lock true; cat /tmp/io.log
  grep -qx 1 /tmp/io.status && grep -q "moved to a backend in domain 0" /tmp/io.log'
start_io g2
stop_io g2
vmsgctl detach g2 all
expect_equal "nodes of buses" "$(bus_nodes)" 0
stop_vmsgd
