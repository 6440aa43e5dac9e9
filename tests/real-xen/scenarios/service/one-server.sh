# SPDX-License-Identifier: Apache-2.0
# A second vmsgd for the same Xen is refused before it touches anything; the first serves on.
# machine: pv
start_vmsgd
vmsgctl attach g1 type=rng
status=0
vmsgd >/run/second.log 2>&1 || status=$?
expect_equal "the second one's status" "$status" 75
expect_contains "$(cat /run/second.log)" "process $VMSGD,"
expect_equal "bytes of entropy" "$(in_guest g1 'vmsg-frontend --pages 64 rng --bytes 100 | wc -c')" 100
stop_vmsgd
