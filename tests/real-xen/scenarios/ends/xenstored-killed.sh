# SPDX-License-Identifier: Apache-2.0
# xenstored is killed. Nobody can serve guests without it: vmsgd ends, says why, and leaves nothing mapped.
# machine: two
two_busy_guests
first=$(domid g1) second=$(domid g2) round=$(flushed g1)
kill -9 "$(cat /run/xenstored.pid)"
status=0
wait "$VMSGD" || status=$?
expect_equal "vmsgd's exit status" "$status" 1
expect_contains "$(tail -n 3 $VMSGD_LOG)" "the connection to xenstored is lost"
disk-witness check /srv/g1.img "$round"
# For xl, which asks Xen.
rm -f /run/xenstored.pid
xenstored --pid-file /run/xenstored.pid
wait_for 20 xenstore-exists /
expect_equal "mappings of g1" "$(mappings_of "$first")" 0
expect_equal "mappings of g2" "$(mappings_of "$second")" 0
