# SPDX-License-Identifier: Apache-2.0
# A guest runs commands for a scenario, and is gone when it is destroyed.
# machine: pv
expect_equal "the guest's type" "$(in_guest g1 'cat /sys/hypervisor/guest_type')" PV
if in_guest g1 'exit 3'; then fail "the status of a guest's command is lost"; fi
expect_equal "many lines" "$(in_guest g1 'seq 1 2000' | wc -l)" 2000
domain=$(domid g1)
xl destroy g1
expect_no_zombie
wait_for 2 eval '! xenstore-exists /local/domain/$domain'
