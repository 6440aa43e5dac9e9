# SPDX-License-Identifier: Apache-2.0
# xenstored's quotas for a driver domain, which has no privilege: a bus that meets one is refused with the
# quota's name, those before it are served on, and room is used again.
# machine: two
used() { # nodes|watches, by g1
  xenstore-control quota "$(domid g1)" | sed -n "s/^$1 *: *\([0-9]*\).*/\1/p"
}
# Lets g1 have so many more.
allow() { # nodes|watches COUNT
  local now
  now=$(used "$1")
  say "g1 has $now $1, and may have $2 more"
  xenstore-control quota set "$1" $((now + $2))
}
# Attaches bus after bus, from FIRST on, until one is refused with TEXT; $next is its number.
fill() { # FIRST TEXT
  local said
  next=$1
  while said=$(attach_at_driver type=rng,bus=$next 2>&1); do
    echo "$said"
    next=$((next + 1))
    [ "$next" -lt 16 ] || fail "nothing was refused"
  done
  expect_contains "$said" "$2"
  expect_contains "$(driver_log)" "$2"
}
expect_served() { # BUS...
  local bus
  for bus; do
    expect_equal "bytes of entropy from bus $bus" "$(in_guest g2 "vmsg-frontend --pages 64 --bus $bus rng --bytes 100 | wc -c" 100)" 100
  done
}

start_driver
attach_at_driver type=rng,bus=0

say "nodes"
before=$(used nodes)
attach_at_driver type=rng,bus=1
allow nodes $((2 * ($(used nodes) - before) + 3))
fill 2 --entry-nb
[ "$next" -ge 3 ]
expect_served 0 $((next - 1))
vmsgctl detach --timeout=100 --backend g1 --bus 1 g2 all
attach_at_driver type=rng,bus=$next
expect_served "$next" 0
xenstore-control quota set nodes 1000

say "watches"
allow watches 2
fill $((next + 1)) --watch-nb
expect_served 0 $((next - 1))
vmsgctl detach --timeout=100 --backend g1 --bus 0 g2 all
attach_at_driver type=rng,bus=$next
expect_served "$next"

vmsgctl detach --timeout=100 g2 all
expect_equal "nodes of buses" "$(bus_nodes)" 0
stop_driver
