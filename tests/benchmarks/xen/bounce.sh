# SPDX-License-Identifier: Apache-2.0
# What it costs to copy disk requests through vmsgd's own memory (vmsgd --bounce), all in one boot and in
# turns: a RAM disk, which does nothing but copy, and an NVMe disk of QEMU's. A ratio is that of a round;
# figures are medians of the rounds, ratios with their lowest and highest.
#   tests/real-xen/run --scenarios tests/benchmarks/xen --show bounce
# machine: pv
# slow-disk: 1000000
# seconds: 3600
ROUNDS=${ROUNDS:-5}
LOADS="randread:4096:1:300 randread:4096:32:2000 read:131072:4:300 write:131072:4:300"
SAMPLES=/run/samples
mkdir -p $SAMPLES
sorted() { sort -g "$1"; }
median() { sorted "$1" | sed -n "$(((ROUNDS + 1) / 2))p"; }

for round in $(seq "$ROUNDS"); do
  for disk in ram0 nvme0n1; do
    # Each goes first in every other round.
    for bounce in $([ $((round % 2)) = 0 ] && echo on off || echo off on); do
      start_vmsgd --config-dir= --bounce=$bounce
      vmsgctl attach g1 type=blk,path=/dev/$disk >/dev/null
      for load in $LOADS; do
        IFS=: read -r rw bytes depth count <<<"$load"
        said=$(in_guest g1 "vmsg-frontend blk bench --json --rw $rw --bs $bytes --depth $depth --count $count" 600)
        sed -E 's/.*"iops":([0-9.]+).*/\1/' <<<"$said" >>"$SAMPLES/$disk.$rw.$bytes.$depth.$bounce"
      done
      vmsgctl detach g1 all >/dev/null
      stop_vmsgd
    done
  done
done
echo "| disk | load | copied | direct | ratio (lowest, highest) |"
echo "|---|---|---|---|---|"
for disk in ram0 nvme0n1; do
  for load in $LOADS; do
    IFS=: read -r rw bytes depth count <<<"$load"
    name=$SAMPLES/$disk.$rw.$bytes.$depth
    paste "$name.on" "$name.off" | awk '{ print $1 / $2 }' >"$name.ratio"
    printf '| %s | %s %d B, depth %d | %.0f/s | %.0f/s | %.2f (%.2f, %.2f) |\n' $disk $rw "$bytes" "$depth" \
      "$(median "$name.on")" "$(median "$name.off")" "$(median "$name.ratio")" \
      "$(sorted "$name.ratio" | head -n 1)" "$(sorted "$name.ratio" | tail -n 1)"
  done
done
