# SPDX-License-Identifier: Apache-2.0
# `xl migrate` to the same host, live: a guest with a mounted, busy file system on the bus goes on, no error
# reaches it, and nothing that was flushed is lost.
# machine: pvh
# long: pvh
mkdir -p /srv
truncate -s 32M /srv/g1.img
mke2fs -q -t ext4 /srv/g1.img
echo 'virtio_msg = [ "type=blk,path=/srv/g1.img" ]' >>/etc/xen/g1.cfg
start_vmsgd
load_drivers g1
await_file g1 /dev/vda
in_guest g1 'mkdir -p /mnt && mount -t ext4 /dev/vda /mnt'
start_rounds g1 1

say "the other host is this one"
printf '#!/bin/sh\nshift\nexec "$@"\n' >/bin/here
chmod +x /bin/here
before=$(domid g1)
xl migrate -s /bin/here g1 localhost 9>&-
[ "$(domid g1)" != "$before" ]
ln -sf guest-g1--incoming.log "$CONSOLES/guest-g1.log" # the name that it had when its console was opened
of_guest await g1 data/rounds0 1 200
rounds_go_on g1

say "nothing was lost, and nobody was told"
stop_rounds g1
in_guest g1 'dmesg | tail -n 15'
e2fsck -fn /srv/g1.img
expect_quiet_guest g1
expect_no_zombie
expect_equal "mappings of the domain that left" "$(mappings_of "$before")" 0
stop_vmsgd
