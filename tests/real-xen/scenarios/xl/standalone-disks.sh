# SPDX-License-Identifier: Apache-2.0
# xl's own key for somebody else's disks: with --claim-standalone-disks they are served; one that cannot be
# served fails xl create at once; without the option nobody touches their nodes.
# machine: pv
# seconds: 850
mkdir -p /srv
truncate -s 2M /srv/g1.img /srv/g2.img
disk() { echo "vdev=xvdb,format=raw,backendtype=standalone,specification=virtio,access=rw,target=$1"; } # TARGET
create() { # TARGET
  write_config pv g2 144 "disk = [ \"$(disk "$1")\" ]"
  xl -vvv create -p /etc/xen/g2.cfg 9>&-
}
# xl waits 10 s for a backend, which a machine under load may take.
create_served() { # TARGET
  local attempt
  for attempt in 1 2 3 4 5; do
    if create "$1" >/run/xl.log 2>&1; then return; fi
    grep 'wanted state 2  timed out' /run/xl.log || break
  done
  cat /run/xl.log
  fail "xl create, attempt $attempt"
}
expect_nothing_left() {
  expect_no_zombie
  if xl domid g2 >/dev/null 2>&1; then fail "there is a guest g2"; fi
  for kind in virtio_disk 'virtio-msg/.*'; do
    if xenstore-ls -f | grep -E "^(/local/domain/[0-9]+|/libxl/[0-9]+)/(device|backend)/$kind/"; then
      fail "nodes are left"
    fi
  done
}

say "xl create: it waits for state 2, and the guest has its disk"
start_vmsgd --claim-standalone-disks=1
create_served /srv/g2.img
id=$(domid g2)
expect_equal "the disk's state" "$(xenstore-read "/local/domain/0/backend/virtio_disk/$id/51728/state")" 2
xl unpause g2
wait_guest g2
in_guest g2 'vmsg-frontend blk verify'
expect_equal "sha256 through the bus" "$(in_guest g2 'vmsg-frontend blk read - | sha256sum')" "$(sha256sum </srv/g2.img)"
expect_refusal "Hotplug isn't supported for specification virtio" xl block-attach g1 "$(disk /srv/g1.img)"
expect_refusal "Hotunplug isn't supported for specification virtio" xl block-detach g2 xvdb

say "xl destroy in the middle of its I/O: xl does not wait in vain, which it would say"
truncate -s 0 /srv/g2.img
truncate -s 2M /srv/g2.img
start_io g2
round=$(flushed g2)
expect_equal "what xl destroy says" "$(xl destroy g2 2>&1)" ""
expect_equal "waits for a driver that is paused" "$(grep -c 'did not let go' $VMSGD_LOG || true)" 0
expect_nothing_left
expect_equal "mappings" "$(mappings_of "$id")" 0
disk-witness check /srv/g2.img "$round"

say "a disk that cannot be served: xl create fails at once, the reason is in vmsgd's log"
vmsgctl attach g1 type=blk,path=/srv/g1.img
expect_refusal "but it was removed" create /srv/g1.img
expect_contains "$(grep 'standalone disk 51728 refused' $VMSGD_LOG)" "path=\"/srv/g1.img\": is in use"
expect_refusal "failed to stat: /srv/none.img" create /srv/none.img # xl does not get as far as vmsgd
vmsgctl detach g1 all
expect_nothing_left
stop_vmsgd

say "without the option xl waits its 10 s and gives up, vmsgd does not look"
start_vmsgd
expect_refusal "wanted state 2  timed out" create /srv/g2.img
expect_equal "lines about disks" "$(sed '1,/stopping/d' $VMSGD_LOG | grep -c standalone || true)" 0
expect_nothing_left
stop_vmsgd
