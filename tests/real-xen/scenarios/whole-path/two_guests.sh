# SPDX-License-Identifier: Apache-2.0
# Two guests at once, a PV and a PVH one: each sees its own devices and data, none of the other's.
# machine: pvh
make_guest pv g2 144
start_vmsgd --config-dir=
for guest in g1 g2; do
  head -c 8m /dev/urandom >/$guest.img
  vmsgctl attach $guest type=blk,path=/$guest.img
done
vmsgctl attach g2 type=rng

say "each lists its own"
expect_contains "$(in_guest g1 'vmsg-frontend list')" "1 device,"
expect_contains "$(in_guest g2 'vmsg-frontend list')" "2 devices,"

say "both busy at once, with data of their own"
for guest in g1 g2; do
  in_guest $guest 'exec 8>/tmp/busy.lock; flock 8; (vmsg-frontend blk verify --seed $$ --offset 4M; echo $?) >/tmp/busy 2>&1 &'
done
for guest in g1 g2; do
  in_guest $guest 'flock /tmp/busy.lock true; cat /tmp/busy; tail -n 1 /tmp/busy | grep -qx 0' 120
  expect_equal "sha256 of the disk of $guest" \
    "$(in_guest $guest 'vmsg-frontend blk read - | sha256sum')" "$(sha256sum </$guest.img)"
done

say "neither reads or writes the other's nodes"
other=/local/domain/$(domid g1)/device/virtio-msg/0
backend=/local/domain/0/backend/virtio-msg/$(domid g1)/0
for path in $other/state $backend/state; do
  xenstore-exists $path
  if in_guest g2 "xenstore-read $path"; then fail "g2 read $path"; fi
  if in_guest g2 "xenstore-write $path 6"; then fail "g2 wrote $path"; fi
done

say "the end of one does not disturb the other"
in_guest g1 'exec 8>/tmp/busy.lock; flock 8; (vmsg-frontend blk verify --seed 5; echo $?) >/tmp/busy 2>&1 &'
xl destroy g2
expect_no_zombie
in_guest g1 'flock /tmp/busy.lock true; cat /tmp/busy; tail -n 1 /tmp/busy | grep -qx 0' 120
stop_vmsgd
