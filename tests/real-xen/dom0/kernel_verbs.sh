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
