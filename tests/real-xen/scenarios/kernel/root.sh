# SPDX-License-Identifier: Apache-2.0
# A guest whose root file system is a disk of ours: its initramfs is Debian's, with our hook. It
# boots while vmsgd is killed again and again, is rebooted, and waits for a vmsgd that comes later.
# machine: pv pvh
# long: pv pvh
destroy_guest g1
say "a root file system, and a config"
mkdir -p /srv/root
(cd /srv/root && cpio -id </guest/initramfs 2>/dev/null)
truncate -s 128M /srv/root.img
mke2fs -q -t ext4 -d /srv/root /srv/root.img
rm -r /srv/root
write_config "$MACHINE" r1 192 'virtio_msg = [ "type=blk,path=/srv/root.img", "type=rng" ]'
sed -i -e 's/^ramdisk = .*/ramdisk = "\/guest\/root-initramfs"/' -e 's/^on_reboot = .*/on_reboot = "restart"/' \
  -e 's/^extra = .*/extra = "root=\/dev\/vda rw rootwait console=hvc0 panic=-1 init=\/init"/' /etc/xen/r1.cfg
console=$CONSOLES/guest-r1.log
console_says() { grep -q -F "$1" $console; } # TEXT
backend_state() { xenstore-read "/local/domain/0/backend/virtio-msg/$(domid r1)/0/state"; }
restart_vmsgd() { # AFTER...
  echo "killed after: $*"
  wait_for 120 "$@"
  kill -KILL "$VMSGD"
  wait "$VMSGD" || true
  start_vmsgd
}
expect_root() {
  wait_guest r1
  expect_contains "$(in_guest r1 'grep " / " /proc/mounts')" "/dev/vda / ext4"
  expect_quiet_guest r1
}

say "it boots, and vmsgd is killed meanwhile"
start_vmsgd
xl create /etc/xen/r1.cfg >/dev/null 9>&-
restart_vmsgd eval '[ "$(backend_state)" = 2 ]'
restart_vmsgd eval '[ "$(backend_state)" = 4 ]'
restart_vmsgd console_says 'virtio_blk virtio'
restart_vmsgd console_says 'EXT4-fs (vda): mounted'
expect_root
in_guest r1 'echo kept >/kept && sync'

say "it is rebooted"
first=$(domid r1)
rm -f $console
xl reboot r1
wait_for 120 eval 'second=$(domid r1) && [ $second != $first ]'
expect_root
expect_equal "what was written before" "$(in_guest r1 'cat /kept')" kept
in_guest r1 'dmesg | grep -i -E "virtio|vda"'

say "vmsgd comes later than the guest"
xl destroy r1
stop_vmsgd
# Destroyed as by a power cut: what the journal mends is status 1, and then nothing is left to mend.
e2fsck -fp /srv/root.img || expect_equal "status of a recovery" $? 1
e2fsck -fn /srv/root.img
rm -f $console
xl create /etc/xen/r1.cfg >/dev/null 9>&-
wait_for 120 console_says 'Waiting for /dev/vda'
start_vmsgd
expect_root
expect_equal "what was written before" "$(in_guest r1 'cat /kept')" kept
xl destroy r1
expect_no_zombie
stop_vmsgd
