# SPDX-License-Identifier: Apache-2.0
# The same guest's own drivers on two backends, in one boot: virtio_blk on vmsgd and blkfront on
# blkback, each on a RAM disk of Dom0's, in turns, with default settings. A ratio is the median of
# the rounds' ratios.
# machine: pv
# seconds: 3600
ROUNDS=${ROUNDS:-7}
SAMPLES=/run/samples
LOADS="random:4096:1:600:read random:4096:32:4000:read sequential:131072:4:600:read
random:4096:1:600:write random:4096:32:4000:write sequential:131072:4:600:write"
BACKENDS="vmsgd blkback"
mkdir -p $SAMPLES

say "disks: a RAM disk of Dom0 for each backend, $ROUNDS rounds"
insmod /lib/modules/xen-blkback.ko
load_drivers g1
in_guest g1 'insmod /lib/modules/xen-blkfront.ko'
for disk in 0 1; do dd if=/dev/urandom of=/dev/ram$disk bs=1M 2>/dev/null || true; done # until it is full
# What xl's own script does for a disk that is a block device, without its locks.
cat >/etc/xen/scripts/block-ram <<'SCRIPT'
#!/bin/sh
[ "$1" = add ] || exit 0
xenstore-write "$XENBUS_PATH/physical-device" "$(stat -c %t:%T /dev/ram1)" "$XENBUS_PATH/hotplug-status" connected
SCRIPT
chmod 755 /etc/xen/scripts/block-ram
start_vmsgd --config-dir=
vmsgctl attach g1 type=blk,path=/dev/ram0
await_file g1 /dev/vda
xl block-attach g1 'vdev=xvdb,format=raw,backendtype=phy,script=/etc/xen/scripts/block-ram,target=/dev/ram1'
in_guest g1 'until [ "$(cat /sys/block/xvdb/size 2>/dev/null)" -gt 0 ] 2>/dev/null; do usleep 20000; done'
disk_of() { case $1 in vmsgd) echo /dev/vda ;; blkback) echo /dev/xvdb ;; esac; }

for round in $(seq "$ROUNDS"); do
  for load in $LOADS; do
    IFS=: read -r order bytes depth count rw <<<"$load"
    # Each goes first in turn.
    for backend in $([ $((round % 2)) = 0 ] && echo $BACKENDS || echo $BACKENDS | tr ' ' '\n' | tac); do
      said=$(in_guest g1 "xen-measure disk $(disk_of $backend) $order $bytes $depth $count ${rw#read}" 600)
      awk '{ print $2 }' <<<"$said" >>"$SAMPLES/$load.$backend"
    done
  done
done
middle() { sort -g | sed -n "$(((ROUNDS + 1) / 2))p"; }
echo "| load | vmsgd | beside it | ratio (lowest, highest) |"
echo "|---|---|---|---|"
for load in $LOADS; do
  IFS=: read -r order bytes depth count rw <<<"$load"
  for beside in ${BACKENDS#vmsgd }; do
    paste "$SAMPLES/$load.vmsgd" "$SAMPLES/$load.$beside" | awk '{ print $1 / $2 }' | sort -g >$SAMPLES/ratio
    printf '| %s %ss of %d B, depth %d | %.0f/s | %s %.0f/s | %.2f (%.2f, %.2f) |\n' $order $rw $bytes $depth \
      "$(middle <"$SAMPLES/$load.vmsgd")" $beside "$(middle <"$SAMPLES/$load.$beside")" \
      "$(middle <$SAMPLES/ratio)" "$(head -n 1 $SAMPLES/ratio)" "$(tail -n 1 $SAMPLES/ratio)"
  done
done
