# SPDX-License-Identifier: Apache-2.0
# A guest's disk, entropy and console, attached from its config: what it reads is what is in the
# image, what it writes and flushes is in the image afterwards, and nothing is left over.
# machine: pv pvh
say "an image with a file system, and the guest's devices"
mkdir -p /srv/files
seq 1 200000 >/srv/files/numbers
cp /usr/bin/vmsgd /srv/files/
mke2fs -q -t ext4 -d /srv/files /srv/g1.img 16M
before=$(sha256sum </srv/g1.img)
cat >>/etc/xen/g1.cfg <<'CONFIG'
virtio_msg = [ "type=blk,path=/srv/g1.img", "type=rng", "type=console,pty=/run/g1-console" ]
CONFIG
start_vmsgd --config-dir= # it would attach them by itself
nodes=$(bus_nodes)
vmsgctl attach --config /etc/xen/g1.cfg
vmsgctl list

say "the device table"
devices=$(in_guest g1 'vmsg-frontend list')
echo "$devices"
for part in blk rng console; do expect_contains "$devices" "$part"; done

say "the whole disk"
expect_equal "sha256 through the bus" "$(in_guest g1 'vmsg-frontend blk read /tmp/disk && sha256sum </tmp/disk')" "$before"

say "write, flush, read back"
in_guest g1 'vmsg-frontend blk verify --offset 12M --length 2M --seed 7'
in_guest g1 'head -c 1m /dev/urandom >/tmp/part &&
  vmsg-frontend blk write --offset 12M --flush /tmp/part'
expect_equal "sha256 of what was written" "$(in_guest g1 'sha256sum </tmp/part')" \
  "$(dd if=/srv/g1.img bs=1M skip=12 count=1 2>/dev/null | sha256sum)"
in_guest g1 'dd if=/tmp/disk bs=1M skip=12 count=2 2>/dev/null | vmsg-frontend blk write --offset 12M --flush -'
expect_equal "sha256 of the image" "$(sha256sum </srv/g1.img)" "$before"
e2fsck -fn /srv/g1.img

say "the disk through windows of 64, 1,024 and 16,384 pages"
in_guest g1 'rm /tmp/disk; echo 100000 >/sys/module/xen_gntalloc/parameters/limit'
for pages in 64 1024 16384; do
  expect_equal "sha256 through $pages pages" \
    "$(in_guest g1 "vmsg-frontend --pages $pages blk read - | sha256sum")" "$before"
done

say "entropy and console"
expect_equal "bytes of entropy" "$(in_guest g1 'vmsg-frontend rng --bytes 5000 | wc -c')" 5000
exec 5<>/run/g1-console
in_guest g1 "vmsg-frontend console --send 'hello from g1
'"
read -r -t 10 line <&5
expect_contains "$line" "hello from g1"
exec 5<&-

say "all of it is gone after detaching"
vmsgctl detach g1 all
expect_equal "mappings left" "$(mappings_of "$(domid g1)")" 0
expect_equal "nodes of the bus" "$(bus_nodes)" "$nodes"
stop_vmsgd
xl destroy g1
expect_no_zombie
