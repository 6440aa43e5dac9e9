# SPDX-License-Identifier: Apache-2.0
# Verbs for scenarios in which the guest g1 is a driver domain: vmsgd runs there and serves g2.

start_driver() { # [OPTION of vmsgd...]
  DRIVER=g1
  in_guest g1 "mkdir -p /srv; rm -f /tmp/vmsgd.status /tmp/vmsgd.ready
    { vmsgd --log-level=debug --ready-fd=3 $* 3>/tmp/vmsgd.ready >>/tmp/vmsgd.log 2>&1; echo \$? >/tmp/vmsgd.status; } &
    until [ -s /tmp/vmsgd.ready ] || [ -e /tmp/vmsgd.status ]; do usleep 200000; done
    [ ! -e /tmp/vmsgd.status ]"
}
stop_driver() { # [SIGNAL]
  in_guest g1 "killall -${1:-TERM} vmsgd; until [ -s /tmp/vmsgd.status ]; do usleep 200000; done"
  [ -n "${1:-}" ] || expect_equal "vmsgd's exit status in g1" "$(in_guest g1 'cat /tmp/vmsgd.status')" 0
}
driver_log() { in_guest g1 'cat /tmp/vmsgd.log'; }
# Where g1 has what belongs to g2.
driver_path() { echo "/local/domain/$(domid g1)/backend/virtio-msg/$(domid g2)"; }
attach_at_driver() { vmsgctl attach --timeout=100 --backend g1 g2 "$@"; } # ENTRY...
