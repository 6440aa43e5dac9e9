# SPDX-License-Identifier: Apache-2.0
# A guest whose kernel panics in the middle of its I/O.
# machine: two
two_busy_guests
domain=$(domid g1) round=$(flushed g1)
in_guest g1 'echo 1 >/proc/sys/kernel/sysrq'
xl sysrq g1 c
expect_g1_ended "$domain" "$round"
