# SPDX-License-Identifier: Apache-2.0
# A guest that is saved and restored paused, as docs/operations.md says, has its bus before it runs: Linux
# looks for it once. Its disk is what it was.
# machine: pv
# seconds: 900
mkdir -p /srv /save
mount -t tmpfs -o size=450m tmpfs /save
truncate -s 2M /srv/g1.img
echo 'virtio_msg = [ "type=blk,path=/srv/g1.img" ]' >>/etc/xen/g1.cfg
start_vmsgd
bus_is_there() { [ "$(xenstore-read "/local/domain/0/backend/virtio-msg/$(domid g1)/0/state")" = 2 ]; }
wait_for 20 bus_is_there
start_io g1
stop_io g1
round=$(flushed g1)
xl save g1 /save/g1 9>&-
domain first g1 200 >/run/first 9>&- &
first=$!
wait_for 20 grep -q waiting /run/first
xl restore -p /save/g1 9>&-
wait_for 20 bus_is_there
xl unpause g1
wait $first
expect_equal "what came first after the restore" "$(tail -n 1 /run/first)" nodes
disk-witness check /srv/g1.img "$round"
start_io g1
stop_io g1
stop_vmsgd
