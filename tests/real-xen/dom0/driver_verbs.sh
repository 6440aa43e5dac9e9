# SPDX-License-Identifier: Apache-2.0
# Verbs for scenarios in which the guest g1 is a driver domain: vmsgd runs there and serves g2.

start_driver() { # [OPTION of vmsgd...]
  DRIVER=g1
  in_guest g1 "mkdir -p /srv; rm -f /tmp/vmsgd.status /tmp/vmsgd.ready
    mkfifo /tmp/vmsgd.ready; exec 8>/tmp/vmsgd.lock; flock 8
    { vmsgd --log-level=debug --ready-fd=3 $* 3>/tmp/vmsgd.ready >>/tmp/vmsgd.log 2>&1 8>&-; echo \$? >/tmp/vmsgd.status; } &
    read -r _ </tmp/vmsgd.ready" # fails when vmsgd has ended
}
stop_driver() { # [SIGNAL]
  in_guest g1 "killall -${1:-TERM} vmsgd; flock /tmp/vmsgd.lock true"
  [ -n "${1:-}" ] || expect_equal "vmsgd's exit status in g1" "$(in_guest g1 'cat /tmp/vmsgd.status')" 0
}
driver_log() { in_guest g1 'cat /tmp/vmsgd.log'; }
# Where g1 has what belongs to g2.
driver_path() { echo "/local/domain/$(domid g1)/backend/virtio-msg/$(domid g2)"; }
attach_at_driver() { vmsgctl attach --timeout=100 --backend g1 g2 "$@"; } # ENTRY...
