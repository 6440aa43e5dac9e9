# SPDX-License-Identifier: Apache-2.0
# A frontend is killed right after it asked for a connection, and the next one asks at once: what vmsgd
# connects to is never the dead one.
# machine: pv
start_vmsgd
vmsgctl attach g1 type=rng
in_guest g1 'hasty-successor 12' 400
vmsgctl detach g1 all
expect_equal "mappings of g1" "$(mappings_of "$(domid g1)")" 0
stop_vmsgd
