# SPDX-License-Identifier: Apache-2.0
# Each way in which memory goes back to the driver, with reads and writes at a slow disk: nothing is
# written to it after the answer, and nothing that it holds then reaches the disk.
# machine: pv
# slow-disk: 8
# seconds: 900
attach_slow_disk() { vmsgctl attach g1 type=blk,path=$SLOW; }
# Or that something went wrong, which its log says.
says() { [[ $(guest read g1 data/ends) = @($1|failed) ]]; }
slow_disk_is_idle() { ! slow_disk_has reads && ! slow_disk_has writes; }
ask_then_force() { # the driver does not answer
  vmsgctl detach --timeout=2 g1 0 && fail "a removal that the driver did not answer was not refused"
  vmsgctl detach g1 0 --force
}
round() { # WAY of ends-of-access, [COMMAND of Dom0's, when the disk is busy...]
  local command=0
  say "$1 ${*:2}"
  in_guest g1 "rm -f /tmp/go; mkfifo /tmp/go; xenstore-write data/ends begun
    exec 8>/tmp/ends.lock; flock 8
    { exec 7<>/tmp/go; ends-of-access $1 <&7 >/tmp/ends.log 2>&1; echo \$? >/tmp/ends.status
      grep -qx 0 /tmp/ends.status || xenstore-write data/ends failed; } &"
  wait_for 300 says busy
  if [ $# -gt 1 ]; then
    "${@:2}" 9>&- &
    command=$!
  fi
  wait_for 300 says answered
  wait_for 300 slow_disk_is_idle
  in_guest g1 'echo go 1<>/tmp/go; flock /tmp/ends.lock true; cat /tmp/ends.log; exit $(cat /tmp/ends.status)'
  expect_equal "bytes on the disk that were written after the answer" "$(tr -dc '\356' <$SLOW | wc -c)" 0
  [ $command = 0 ] || wait $command
}
start_vmsgd
attach_slow_disk
round reset
round queue-reset
round withdrawal
round end-of-bus
round polite-removal vmsgctl detach g1 0
attach_slow_disk
round removal vmsgctl detach g1 0 --force
attach_slow_disk
round removal ask_then_force
expect_quiet_kernel
stop_vmsgd
