# SPDX-License-Identifier: Apache-2.0
# Xen and Dom0 are up, with everything that vmsgd and its administrator need.
# machine: dom0
expect_contains "$(xl info)" "xen_version            : 4.17"
expect_contains "$(xl list)" Domain-0
expect_contains "$(cat /proc/xen/capabilities)" control_d
for device in evtchn gntdev gntalloc xenbus privcmd; do [ -c /dev/xen/$device ]; done
xenstore-write /rig/node 1
expect_equal "the node" "$(xenstore-read /rig/node)" 1
xenstore-rm /rig
expect_equal "mappings of Dom0's pages" "$(mappings_of 0)" 0
no_zombie
