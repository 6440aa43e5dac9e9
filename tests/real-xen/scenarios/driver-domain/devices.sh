# SPDX-License-Identifier: Apache-2.0
# vmsgd in the guest g1, a PV or a PVH one, serves the guest g2, with an image that only g1 has: what g2 reads and writes is
# what is there, devices come and go, and nothing is left in g1 when g2 is destroyed.
# machine: two pvh
[ "$MACHINE" = two ] || make_guest pv g2 144
start_driver
in_guest g1 'head -c 2m /dev/urandom >/srv/g2.img; cp /srv/g2.img /srv/second.img'
content=$(in_guest g1 'sha256sum </srv/g2.img')
nodes=$(bus_nodes)

say "by hand: the whole disk, write, flush, read back, entropy"
attach_at_driver type=blk,path=/srv/g2.img
attach_at_driver type=rng
vmsgctl list
expect_contains "$(in_guest g2 'vmsg-frontend --pages 256 list')" "2 devices,"
expect_equal "sha256 through the bus" "$(in_guest g2 'vmsg-frontend --pages 256 blk read - | sha256sum')" "$content"
in_guest g2 'head -c 256k /dev/urandom >/tmp/part
  vmsg-frontend --pages 256 blk write --offset 1M --flush /tmp/part'
expect_equal "sha256 of what was written" "$(in_guest g2 'sha256sum </tmp/part')" \
  "$(in_guest g1 'dd if=/srv/g2.img bs=256k skip=4 count=1 2>/dev/null | sha256sum')"
in_guest g2 'vmsg-frontend --pages 256 blk verify --offset 1536k --length 256k --seed 7'
expect_equal "bytes of entropy" "$(in_guest g2 'vmsg-frontend --pages 256 rng --dev 1 --bytes 5000 | wc -c')" 5000
expect_contains "$(driver_log)" "followed in xenstore alone"

say "devices come to a busy guest and go"
start_io g2
attach_at_driver type=blk,path=/srv/second.img,num=5
vmsgctl detach --timeout=100 --backend g1 g2 5
vmsgctl detach --timeout=100 g2 1
expect_io_goes_on g2
expect_refusal "/srv/nothing.img" attach_at_driver type=blk,path=/srv/nothing.img
expect_io_goes_on g2

say "g2 is destroyed while it is busy"
domain=$(domid g2) path=$(driver_path) round=$(flushed g2)
xl destroy g2
domain await-end "$domain" 200
expect_no_zombie
expect_equal "mappings of g2" "$(mappings_of "$domain")" 0
wait_for 10 eval '! xenstore-exists $path'
expect_equal "nodes of buses" "$(bus_nodes)" "$nodes"
in_guest g1 "disk-witness check /srv/g2.img $round"

say "from an xl config, by vmsgd in Dom0: the image's lock is free again"
start_vmsgd
cat >>/etc/xen/g2.cfg <<'CONFIG'
virtio_msg = [ "type=blk,path=/srv/second.img", "type=rng" ]
virtio_msg_backend = "g1"
CONFIG
xl create /etc/xen/g2.cfg >/dev/null 9>&-
wait_guest g2
expect_equal "sha256 through the bus" "$(in_guest g2 'vmsg-frontend --pages 256 blk read - | sha256sum')" "$content"
expect_equal "buses that Dom0 serves" "$(xenstore-ls -f /local/domain/0/backend | grep -c /virtio-msg || true)" 0
vmsgctl detach --timeout=100 g2 all
stop_vmsgd
expect_equal "mappings of g2" "$(mappings_of "$(domid g2)")" 0
expect_equal "nodes of buses" "$(bus_nodes)" "$nodes"
stop_driver
