# SPDX-License-Identifier: Apache-2.0
# A guest that is destroyed in the middle of its I/O.
# machine: two
two_busy_guests
domain=$(domid g1) round=$(flushed g1)
xl destroy g1
expect_g1_ended "$domain" "$round"
