# SPDX-License-Identifier: Apache-2.0
# vmsgd in Dom0 has given up what docs/security-model.md says, in each of its threads, and a guest can use
# everything that it serves all the same. Without its sandbox it says so.
# machine: pv
mkdir -p /srv
truncate -s 2M /srv/g1.img
expect_of_threads() { # NAME VALUE: as in proc(5), /proc/PID/status
  expect_equal "$1 of vmsgd's threads" "$(sed -n "s/^$1:\t//p" /proc/"$VMSGD"/task/*/status | sort -u)" "$2"
}
expect_confined() {
  expect_of_threads Seccomp 2
  expect_of_threads NoNewPrivs 1
  for set in CapPrm CapEff CapBnd; do expect_of_threads $set 0000000000000002; done # CAP_DAC_OVERRIDE
  for set in CapInh CapAmb; do expect_of_threads $set 0000000000000000; done
}

say "before the first guest"
start_vmsgd --check-domains=1 --claim-standalone-disks=1 --trace=/run/trace.pcap --io-threads=2
expect_confined

say "a file, a block device, entropy, a terminal, a socket"
vmsgctl attach g1 type=blk,path=/srv/g1.img type=blk,path=/dev/ram0 type=rng type=console,pty=/run/g1-console \
  type=console,socket=/run/g1-socket
in_guest g1 'vmsg-frontend blk verify && vmsg-frontend blk verify --dev 1 --length 1M'
expect_equal "bytes of entropy" "$(in_guest g1 'vmsg-frontend rng --bytes 5000 | wc -c')" 5000
exec 5<>/run/g1-console
in_guest g1 'vmsg-frontend console --dev 3 --send "hello
"'
read -r -t 10 line <&5
expect_contains "$line" hello
exec 5<&-
expect_confined

say "an extension of the window, in use and at rest, and hotplug meanwhile"
in_guest g1 'vmsg-frontend --pages 64 --extend 300 blk verify'
in_guest g1 'exec 8>/tmp/hold.lock; flock 8; { sleep 3600 | vmsg-frontend --pages 64 --extend 300 hold >/tmp/hold 2>&1; :; } &
  await-line /tmp/hold connected'
vmsgctl attach g1 type=rng,num=9
in_guest g1 'await-line /tmp/hold "device 9 ready"'
expect_confined
vmsgctl detach g1 9
in_guest g1 'await-line /tmp/hold "device 9 removed"; killall sleep; flock /tmp/hold.lock true'

say "signals, and the end of the guest while it is busy"
start_io g1
kill -HUP "$VMSGD"
kill -USR1 "$VMSGD"
expect_io_goes_on g1
expect_confined
domain=$(domid g1)
xl destroy g1
expect_no_zombie
expect_equal "mappings" "$(mappings_of "$domain")" 0
expect_confined
stop_vmsgd

say "without it"
start_vmsgd --sandbox=off
expect_of_threads Seccomp 0
expect_contains "$(cat $VMSGD_LOG)" "sandbox: OFF, as --sandbox=off says"
stop_vmsgd
