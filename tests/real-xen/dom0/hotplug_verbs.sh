# SPDX-License-Identifier: Apache-2.0
# Verbs of scenarios in which devices come and go. Part of every scenario's script (../run).

# A disk is attached to g1 and detached, DISKS times on each of so many BUSES, which come and go: no
# node, watch, port, mapping or descriptor is left over.
disk_comes_and_goes() { # BUSES DISKS
  local domain before
  truncate -s 1M /srv.img
  domain=$(domid g1)
  start_vmsgd --config-dir=
  say "what the first ones leave stays: threads, the guest's node for its progress"
  cycles "$domain" 2 4
  before=$(counts "$domain")
  say "$before"
  cycles "$domain" "$1" "$2"
  expect_equal "what is there afterwards" "$(counts "$domain")" "$before"
  expect_contains "$before" "mappings 0,"
  expect_equal "nodes of buses" "$(bus_nodes)" 0
  if grep -E ' (error|warning):' $VMSGD_LOG; then fail "vmsgd had something to complain about"; fi
  stop_vmsgd
}

cycles() { # DOMID BUSES DISKS
  in_guest g1 "exec 8>/tmp/lock; flock 8; { hotplug-cycles serve $2 $3 >/tmp/cycles 2>&1; echo \$? >/tmp/status; } &"
  hotplug-cycles attach "$1" /srv.img "$2" "$3" ||
    fail "the guest said: $(in_guest g1 'cat /tmp/cycles /tmp/status')"
  in_guest g1 'flock /tmp/lock true; cat /tmp/cycles; exit $(cat /tmp/status)'
}

counts() { # DOMID
  echo "nodes $(xenstore-ls -f | wc -l), watches $(watches), ports of Dom0 $(ports_of 0) and of the guest $(ports_of "$1")," \
    "mappings $(mappings_of "$1"), descriptors of vmsgd $(descriptors_of $VMSGD)"
}
