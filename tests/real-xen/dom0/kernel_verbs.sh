# SPDX-License-Identifier: Apache-2.0
# Verbs for guests whose own kernel drives the devices (linux/).

# The drivers of the guest's kernel, ours among them.
load_drivers() { # GUEST
  in_guest "$1" 'for driver in virtio-msg-xen virtio-blk virtio-rng virtio-console crc32c_generic ext4; do
      while read -r module; do insmod "/lib/modules/$module.ko" || exit; done <"/lib/modules/$driver.order"
    done'
}
# Waits in the guest until FILE is there.
await_file() { # GUEST FILE
  in_guest "$1" "i=0; until [ -e $2 ]; do [ \$((i += 1)) -lt 600 ] || { dmesg | tail -n 30; exit 1; }; usleep 100000; done"
}
# The guest's kernel has found nothing wrong with itself.
expect_quiet_guest() { # GUEST
  in_guest "$1" '! dmesg | grep -E "BUG|WARNING|Call Trace|I/O error|hung|blocked for"'
}
# The backend directory of a guest's bus 0.
backend_of() { echo "/local/domain/0/backend/virtio-msg/$(domid "$1")/0"; } # GUEST
# In the background of the guest, WRITERS of them, each on a processor of its own: files on /mnt are written,
# flushed and compared without end. data/rounds0 and so on say how often.
start_rounds() { # GUEST WRITERS
  in_guest "$1" "cat >/bin/rounds <<'END'"'
# WRITER
i=0
while [ ! -e /tmp/stop ]; do
  i=$((i + 1))
  { head -c 700000 /dev/urandom >/tmp/data$1 && dd if=/tmp/data$1 of=/mnt/data$1.$((i % 8)) bs=64k conv=fsync &&
    echo 3 >/proc/sys/vm/drop_caches && cmp /tmp/data$1 /mnt/data$1.$((i % 8)); } 2>/tmp/said$1 || exit 1
  xenstore-write data/rounds$1 $i
done
END
  writer=0
  while [ $writer -lt '"$2"' ]; do
    xenstore-write data/rounds$writer 0
    { flock 8; taskset -c $writer sh /bin/rounds $writer; echo $? >/tmp/status$writer; } 8>/tmp/lock$writer &
    writer=$((writer + 1))
  done'
  ROUNDS=$2
  rounds_go_on "$1"
}
rounds_go_on() { # GUEST
  local writer
  for ((writer = 0; writer < ROUNDS; writer++)); do
    of_guest await "$1" data/rounds$writer $(($(guest read "$1" data/rounds$writer) + 2)) 200
  done
}
# Ends them: nothing was lost, and nobody was told.
stop_rounds() { # GUEST
  in_guest "$1" 'touch /tmp/stop
    for status in /tmp/lock?; do flock $status true; done
    cat /tmp/said?; umount /mnt && [ -z "$(cat /tmp/status? | tr -d "0\n")" ] && /usr/sbin/e2fsck -fn /dev/vda'
}
