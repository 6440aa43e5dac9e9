# SPDX-License-Identifier: Apache-2.0
# The figures of docs/performance.md, all in one boot: ours beside what Xen's own drivers and bare
# primitives do between the same Dom0 and guest, in rounds; each figure is the median of its rounds.
# tools/bench real-xen runs it; tests/real-xen/dom0/verbs.sh has the verbs.
# machine: pv
# seconds: 3600
ROUNDS=${ROUNDS:-3}
# How long both sides poll, where they do: longer than an event takes here, which the interpreter makes long.
POLL=5000
SAMPLES=/run/samples
PAGES=16384
domain=$(domid g1)

# A value of one round, under the name of its figure and side.
sample() { echo "$3" >>"$SAMPLES/$1.$2"; } # FIGURE ours|reference VALUE
median() { sort -g "$1" | sed -n "$(((ROUNDS + 1) / 2))p"; }
field() { sed -n -E "s/^$1 ([0-9.e+]+) .*/\1/p"; } # NAME OF A FIGURE OF xen-measure
figure() { # FIGURE UNIT WHAT
  local ours reference
  ours=$(median "$SAMPLES/$1.ours") reference=$(median "$SAMPLES/$1.reference")
  awk -v ours="$ours" -v reference="$reference" -v unit="$2" -v what="$3" \
    'BEGIN { printf "| %s | %.4g %s | %.4g %s | %.2f |\n", what, ours, unit, reference, unit, ours / reference }'
}
mkdir -p $SAMPLES

say "disks: the same ram disk of Dom0, by vmsgd and by blkback, $ROUNDS rounds"
insmod /lib/modules/xen-blkback.ko
in_guest g1 'insmod /lib/modules/xen-blkfront.ko'
dd if=/dev/urandom of=/dev/ram0 bs=1M 2>/dev/null || true # until it is full
# What xl's own script does for a disk that is a block device, without its locks.
cat >/etc/xen/scripts/block-ram <<'SCRIPT'
#!/bin/sh
[ "$1" = add ] || exit 0
xenstore-write "$XENBUS_PATH/physical-device" "$(stat -c %t:%T /dev/ram0)" "$XENBUS_PATH/hotplug-status" connected
SCRIPT
chmod 755 /etc/xen/scripts/block-ram
LOADS="randread:random:4096:1:500 randread:random:4096:32:3000 read:sequential:131072:4:500"
for round in $(seq "$ROUNDS"); do
  for spin in 50 $POLL; do
    start_vmsgd --config-dir= --spin-us=$spin
    vmsgctl attach g1 type=blk,path=/dev/ram0 >/dev/null
    for load in $LOADS; do
      IFS=: read -r rw _ bytes depth count <<<"$load"
      said=$(in_guest g1 "vmsg-frontend --spin $spin blk bench --json --rw $rw --bs $bytes --depth $depth --count $count" 600)
      sample "$rw-$depth-$spin" ours "$(sed -E 's/.*"iops":([0-9.]+).*/\1/' <<<"$said")"
    done
    sample ping-$spin ours "$(in_guest g1 "vmsg-frontend --spin $spin ping --json --count 500" 120 |
      sed -E 's/.*"mean_us":([0-9.]+).*/\1/')"
    vmsgctl detach g1 all >/dev/null
    stop_vmsgd
  done
  xl block-attach g1 'vdev=xvdb,format=raw,backendtype=phy,script=/etc/xen/scripts/block-ram,target=/dev/ram0'
  in_guest g1 'until [ "$(cat /sys/block/xvdb/size 2>/dev/null)" -gt 0 ] 2>/dev/null; do usleep 20000; done'
  for load in $LOADS; do
    IFS=: read -r rw order bytes depth count <<<"$load"
    reads=$(in_guest g1 "xen-measure disk /dev/xvdb $order $bytes $depth $count" 600 | field reads)
    for spin in 50 $POLL; do sample "$rw-$depth-$spin" reference "$reads"; done
  done
  xl block-detach g1 xvdb
  wait_for 60 eval "! in_guest g1 '[ -e /sys/block/xvdb ]'"
done

say "round trips of a bare event channel"
for round in $(seq "$ROUNDS"); do
  rm -f /run/ping
  xen-measure native ping "$domain" 500 >/run/ping &
  ping=$!
  wait_for 20 test -s /run/ping
  in_guest g1 "xen-measure native echo 0 $(head -n 1 /run/ping) >/dev/null 2>&1 & echo \$! >/tmp/echo"
  wait $ping
  in_guest g1 'kill $(cat /tmp/echo)'
  for spin in 50 $POLL; do sample ping-$spin reference "$(field event-round-trip </run/ping)"; done
done

say "a window of $PAGES pages, mapped whole and page by page"
in_guest g1 "echo 100000 >/sys/module/xen_gntalloc/parameters/limit
  rm -f /tmp/first; xen-measure native share 0 $PAGES >/tmp/first & echo \$! >/tmp/share
  await-line /tmp/first ''" 120
first=$(in_guest g1 'cat /tmp/first')
for round in $(seq "$ROUNDS"); do
  xen-measure native map "$domain" "${first%$'\n'}" $PAGES >/run/map
  sample map ours "$(field directory-walk-and-map </run/map)"
  sample map reference "$(field map-page-by-page </run/map)"
  sample batch ours "$(field directory-walk-and-map </run/map)"
  sample batch reference "$(field map-in-one-batch </run/map)"
done
in_guest g1 'kill $(cat /tmp/share)'

say "medians of $ROUNDS rounds"
echo "| figure | ours | beside it | ratio |"
echo "|---|---|---|---|"
for spin in 50 $POLL; do
  polls="polling at most $spin us"
  figure randread-1-$spin "/s" "4 KiB random reads, depth 1, $polls, beside blkfront on blkback"
  figure randread-32-$spin "/s" "4 KiB random reads, depth 32, $polls"
  figure read-4-$spin "/s" "128 KiB sequential reads, depth 4, $polls"
  figure ping-$spin "us" "PING over the ring, $polls, beside an event channel's round trip"
done
figure map "us/page" "directory of $PAGES pages, walked and mapped in one batch, beside page by page"
figure batch "us/page" "the same, beside one bare map of the same pages"
