# SPDX-License-Identifier: Apache-2.0
# Verbs for scenarios with guests that are busy: their I/O, and what was lost when it is over.

# Two guests, g1 and g2, each with a disk of its own on which it writes, flushes and compares; g2 is there to
# see whether it is disturbed, and gentle.
two_busy_guests() { # [OPTION OF g1's disk-witness]
  start_vmsgd
  for guest in g1 g2; do attach_disk $guest; done
  start_io g1 "${1:-}"
  start_io g2 --gently
}
attach_disk() { # GUEST [KEYS]
  mkdir -p /srv
  truncate -s 2M "/srv/$1.img"
  vmsgctl attach "$1" "type=blk,path=/srv/$1.img${2:+,$2}"
}
# In the background of the guest, without end; returns when the first round is flushed.
start_io() { # GUEST [OPTION]
  # Who waits for the lock waits for the background's end: flock /tmp/io.lock true.
  in_guest "$1" "rm -f /tmp/io.status; xenstore-rm data/flushed 2>/dev/null
    exec 8>/tmp/io.lock; flock 8
    { disk-witness write ${2:-} >/tmp/io.log 2>&1; echo \$? >/tmp/io.status; } &"
  of_guest await "$1" data/flushed 0 200
}
# The rounds that the guest has on stable storage, as far as it has said so.
flushed() { guest read "$1" data/flushed; } # GUEST
connections() { guest read "$1" data/connections; } # GUEST
expect_io_goes_on() { # GUEST
  local rounds
  rounds=$(flushed "$1")
  of_guest await "$1" data/flushed $((rounds + 3)) 200
}
# Ends the I/O: nothing went wrong in it, all of it is in the image. CONNECTIONS: how many it took.
stop_io() { # GUEST [CONNECTIONS]
  expect_equal "connections of $1" "$(connections "$1")" "${2:-1}"
  in_guest "$1" 'killall disk-witness; flock /tmp/io.lock true
    cat /tmp/io.log; exit $(cat /tmp/io.status)'
  disk-witness check "/srv/$1.img" "$(flushed "$1")"
}
# The guest g1, which was domain DOMAIN, ended in the middle of its I/O: nothing of it is left, no round
# up to ROUND is lost, and g2 has not noticed.
expect_g1_ended() { # DOMAIN ROUND
  domain await-end "$1" 60
  expect_no_zombie
  for path in "/local/domain/$1" "/local/domain/0/backend/virtio-msg/$1" \
    "/local/domain/0/error/backend/virtio-msg/$1"; do
    wait_for 2 eval "! xenstore-exists $path"
  done
  expect_equal "mappings of domain $1" "$(mappings_of "$1")" 0
  disk-witness check /srv/g1.img "$2"
  expect_io_goes_on g2
  stop_io g2
  vmsgctl detach g2 all
  expect_equal "nodes of buses" "$(bus_nodes)" 0
  expect_equal "mappings of g2" "$(mappings_of "$(domid g2)")" 0
  stop_vmsgd
}

# --- the slow disk ("# slow-disk: REQUESTS A SECOND")

SLOW=/dev/nvme0n1
find_slow_disk() {
  local module
  echo 1 >/sys/bus/pci/rescan # it was plugged in after the machine had been saved
  while read -r module; do insmod "/lib/modules/$module.ko"; done </lib/modules/nvme.order
  wait_for 60 test -b $SLOW
  echo 2 >/sys/block/nvme0n1/queue/nomerges # a request of the guest's is one of the disk's
  mkdir -p /srv
  ln -s $SLOW /srv/g1.img # what stop_io looks at
  dmesg -c >/dev/null
}
# The disk has requests of this kind that it has not done. One process of the shell's: it changes soon.
slow_disk_has() { # reads|writes
  local reads writes
  read -r reads writes </sys/block/nvme0n1/inflight
  [ "${!1}" != 0 ]
}
# Dom0's kernel has found nothing wrong with itself.
expect_quiet_kernel() {
  local said
  if said=$(dmesg | grep -E 'BUG|WARNING|Bad page|Call Trace|I/O error'); then
    fail "Dom0's kernel says: $(wc -l <<<"$said") lines, the first ones: $(head -n 5 <<<"$said")"
  fi
}
nothing_mapped() { [ "$(mappings_of "$(domid "$1")")" = 0 ]; } # GUEST

# --- what is counted before and after

# Event channels of a domain that are bound or wait for a peer.
ports_of() { lsevtchn "$1" | wc -l; } # DOMID
# Watches of all connections, from xenstored's report of its memory.
watches() {
  rm -f /run/xenstored.memory
  xenstore-control memreport /run/xenstored.memory >/dev/null
  grep -c 'struct watch' /run/xenstored.memory || true
}
