# SPDX-License-Identifier: Apache-2.0
# A guest's mounted, busy file system goes on when vmsgd is killed or stopped and another is started:
# no error reaches the guest, and nothing that was flushed is lost.
# machine: pv
say "a file system that is written, flushed and compared without end"
mkdir -p /srv
truncate -s 32M /srv/g1.img
mke2fs -q -t ext4 /srv/g1.img
start_vmsgd --config-dir=
vmsgctl attach g1 type=blk,path=/srv/g1.img
vmsgctl attach g1 type=rng
load_drivers g1
await_file g1 /dev/vda
in_guest g1 'mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && xenstore-write data/rounds 0
  cat >/bin/rounds <<"END"
i=0
while [ ! -e /tmp/stop ]; do
  i=$((i + 1))
  { head -c 700000 /dev/urandom >/tmp/data && dd if=/tmp/data of=/mnt/data$((i % 8)) bs=64k conv=fsync &&
    echo 3 >/proc/sys/vm/drop_caches && cmp /tmp/data /mnt/data$((i % 8)); } 2>/tmp/said || exit 1
  xenstore-write data/rounds $i
done
END
  exec 8>/tmp/rounds.lock; flock 8; { sh /bin/rounds; echo $? >/tmp/rounds.status; } &'
rounds_go_on() {
  local rounds
  rounds=$(guest read g1 data/rounds)
  of_guest await g1 data/rounds $((rounds + 2)) 200
}
rounds_go_on

say "vmsgd is killed, three times"
for _ in 1 2 3; do
  kill -KILL "$VMSGD"
  wait "$VMSGD" || true
  start_vmsgd --config-dir=
  rounds_go_on
done

say "vmsgd is stopped, and started later"
stop_vmsgd
expect_equal "devices while nobody serves them" "$(in_guest g1 'ls /sys/bus/virtio/devices | wc -l')" 2
start_vmsgd --config-dir=
rounds_go_on

say "nothing was lost, and nobody was told"
in_guest g1 'touch /tmp/stop; flock /tmp/rounds.lock true; cat /tmp/said; umount /mnt; exit $(cat /tmp/rounds.status)'
say "$(guest read g1 data/rounds) rounds"
in_guest g1 '/usr/sbin/e2fsck -fn /dev/vda && dmesg | tail -n 12'
e2fsck -fn /srv/g1.img
expect_quiet_guest g1
await_file g1 /sys/class/misc/hw_random/rng_current
expect_equal "bytes of entropy" "$(in_guest g1 'head -c 1024 /dev/hwrng | wc -c')" 1024
vmsgctl detach g1 all
expect_equal "mappings left" "$(mappings_of "$(domid g1)")" 0
stop_vmsgd
