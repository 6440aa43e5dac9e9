# SPDX-License-Identifier: Apache-2.0
# Devices come to a guest that is busy and go from it, asked for or not; the other guest does not notice.
# machine: two
start_vmsgd
attach_disk g1
attach_disk g2
start_io g2 --gently
home=/local/domain/$(domid g1)

# A frontend that prints hotplug events while it keeps disk 0 busy.
start_bench() {
  in_guest g1 'rm -f /tmp/bench.log /tmp/bench.status; exec 8>/tmp/bench.lock; flock 8; { vmsg-frontend blk bench --dev 0 --rw randwrite --depth 8 --seconds 3600 --events \
    >/tmp/bench.log 2>&1; echo $? >/tmp/bench.status; } &'
  expect_line started
}
expect_line() { # LINE OF ITS OUTPUT
  in_guest g1 "await-line /tmp/bench.log '$1'"
}
expect_bench_ended() { # STATUS
  in_guest g1 'flock /tmp/bench.lock true; cat /tmp/bench.log'
  expect_equal "the frontend's status" "$(in_guest g1 'cat /tmp/bench.status')" "$1"
}

say "a device comes and goes beside the busy one"
start_bench
vmsgctl attach g1 type=rng,num=5
expect_line 'device 5 ready'
vmsgctl detach g1 5
expect_line 'device 5 removed'
in_guest g1 '[ ! -e /tmp/bench.status ]'

say "the busy one goes: it is asked, its requests end"
vmsgctl detach g1 0
expect_line 'device 0 removal requested'
expect_line 'device 0 removed'
expect_bench_ended 1

say "its image is free at once; the next disk is removed without being asked"
vmsgctl attach g1 type=blk,path=/srv/g1.img,num=0
start_bench
vmsgctl detach g1 0 --force
expect_bench_ended 1
if in_guest g1 'grep "removal requested" /tmp/bench.log'; then fail "it was asked"; fi

say "a driver that does not answer is waited for, and named; force does not wait"
vmsgctl attach g1 type=blk,path=/srv/g1.img,num=0
start_bench
in_guest g1 'killall -STOP vmsg-frontend'
expect_refusal "driver has not let go of device 0" vmsgctl detach --timeout=1 g1 0
vmsgctl detach g1 0 --force
expect_equal "the devices left" "$(vmsgctl list | grep -c g1.img || true)" 0
in_guest g1 'killall -CONT vmsg-frontend'
expect_bench_ended 1

say "the bus goes: nothing is left on either side"
vmsgctl detach g1 all
for path in "$home/device/virtio-msg/0" "/local/domain/0/backend/virtio-msg/${home##*/}"; do
  if xenstore-exists "$path"; then fail "$path is left"; fi
done
expect_equal "mappings" "$(mappings_of "${home##*/}")" 0
expect_io_goes_on g2
stop_io g2
stop_vmsgd
