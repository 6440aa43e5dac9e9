# SPDX-License-Identifier: Apache-2.0
# A disk is attached and detached a thousand times, asked for, forced, or with its bus, which comes and
# goes twenty times: no node, watch, port, mapping or descriptor is left over.
# machine: pv
# seconds: 1800
truncate -s 1M /srv.img
domain=$(domid g1)
start_vmsgd --config-dir=

cycles() { # BUSES DISKS ON EACH
  in_guest g1 "exec 8>/tmp/lock; flock 8; { hotplug-cycles serve $1 $2 >/tmp/cycles 2>&1; echo \$? >/tmp/status; } &"
  hotplug-cycles attach "$domain" /srv.img "$1" "$2" ||
    fail "the guest said: $(in_guest g1 'cat /tmp/cycles /tmp/status')"
  in_guest g1 'flock /tmp/lock true; cat /tmp/cycles; exit $(cat /tmp/status)'
}
counts() {
  echo "nodes $(xenstore-ls -f | wc -l), watches $(watches), ports of Dom0 $(ports_of 0) and of the guest $(ports_of "$domain")," \
    "mappings $(mappings_of "$domain"), descriptors of vmsgd $(descriptors_of $VMSGD)"
}

say "what the first ones leave stays: threads, the guest's node for its progress"
cycles 2 4
before=$(counts)
say "$before"
cycles 20 50
expect_equal "what is there afterwards" "$(counts)" "$before"
expect_contains "$before" "mappings 0,"
expect_equal "nodes of buses" "$(bus_nodes)" 0
if grep -E ' (error|warning):' $VMSGD_LOG; then fail "vmsgd had something to complain about"; fi
stop_vmsgd
