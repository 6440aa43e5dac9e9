# SPDX-License-Identifier: Apache-2.0
# A guest that is paused in the middle of its I/O for 30 s goes on where it was.
# machine: two
two_busy_guests
xl pause g1
round=$(flushed g1)
sleep 30
expect_equal "rounds of a paused guest" "$(flushed g1)" "$round"
expect_io_goes_on g2
xl unpause g1
expect_io_goes_on g1
stop_io g1
stop_io g2
stop_vmsgd
