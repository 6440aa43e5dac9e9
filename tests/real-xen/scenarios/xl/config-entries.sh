# SPDX-License-Identifier: Apache-2.0
# `xl create` is all an administrator does: a guest has its config's devices before it runs, also after a
# reboot; nothing is left when it is gone; what is wrong in a config is said where one looks for it.
# machine: pv
# seconds: 850
mkdir -p /srv
truncate -s 2M /srv/g1.img /srv/g2.img
head -c 2m /dev/urandom >/srv/data.img
device() { xenstore-read "/local/domain/0/backend/virtio-msg/$(domid "$1")/0/device/$2/$3"; } # GUEST NUMBER NODE
connected() { [ "$(device "$1" "$2" hotplug-status)" = connected ]; }                       # GUEST NUMBER
# The guest's first process runs COMMAND, and says so when it has.
create() { # NAME ENTRIES COMMAND [OPTION OF xl create]
  write_config pv "$1" 144 "virtio_msg = [ $2 ]"
  sed -i '/^extra = /d; s/^on_reboot = .*/on_reboot = "restart"/' "/etc/xen/$1.cfg"
  echo "extra = 'console=hvc0 rdinit=/init quiet panic=-1 FIRST=\"$3\"'" >>"/etc/xen/$1.cfg"
  xl create ${4:-} "/etc/xen/$1.cfg" >/dev/null 9>&-
}
expect_devices() { # GUEST TEXT OF ITS FIRST PROCESS...
  local said part
  wait_guest "$1"
  said=$(in_guest "$1" 'cat /tmp/first')
  shift
  for part; do expect_contains "$said" "$part"; done
}
expect_gone() { # DOMAIN
  domain await-end "$1" 60
  expect_no_zombie
  wait_for 5 eval "[ \$(bus_nodes) = $nodes ]"
  expect_equal "mappings of domain $1" "$(mappings_of "$1")" 0
  for path in "/libxl/$1" "/local/domain/$1" "/local/domain/0/error/backend/virtio-msg/$1"; do
    if xenstore-exists "$path"; then fail "$path is left"; fi
  done
  if vmsgctl list | grep -F "($1)"; then fail "vmsgctl lists domain $1"; fi
}

expect_reason() { # REASON PATH: it is in vmsgd's log, in vmsgctl's list and in the node
  wait_for 20 xenstore-exists "$2"
  expect_contains "$(xenstore-read "$2")" "$1"
  expect_contains "$(cat $VMSGD_LOG)" "$1"
  expect_contains "$(vmsgctl list)" "$1"
}

say "a guest that was there before vmsgd"
echo 'virtio_msg = [ "type=blk,path=/srv/g1.img" ]' >>/etc/xen/g1.cfg
start_vmsgd
wait_for 20 connected g1 0
in_guest g1 '{ { sleep 3600 | vmsg-frontend hold; echo ended; } >/tmp/hold 2>&1; } &
  await-line /tmp/hold connected'
nodes=$(bus_nodes)

say "xl create -p: all entries or none, with the reason; the same file again once it is mended"
wanted=$(sha256sum </srv/data.img)
create g2 '"type=blk,path=/srv/g2.img", "type=rng", "type=blk,path=/srv/data.img,readonly=1",
  "type=blk,path=/srv/none.img", "type=floppy", "type=rng,colour=red"' \
  '{ vmsg-frontend list && vmsg-frontend blk read --dev 2 - | sha256sum; } >/tmp/first 2>&1' -p
first=$(domid g2)
expect_reason /srv/none.img "/libxl/$first/virtio-msg/error"
if xenstore-exists "/local/domain/0/backend/virtio-msg/$first"; then fail "a part of it is attached"; fi
sed -i 's#^ *"type=blk,path=/srv/none.img".*colour=red"##' /etc/xen/g2.cfg
vmsgctl attach --config /etc/xen/g2.cfg
wait_for 20 eval 'connected g2 0 && connected g2 1 && connected g2 2'
expect_contains "$(xl list g2)" " --p--- "
expect_contains "$(vmsgctl list)" "g2 ($first)"
expect_equal "the config" "$(xenstore-read "/libxl/$first/virtio-msg/config")" /etc/xen/g2.cfg
xl unpause g2
expect_devices g2 "3 devices," "$wanted"

say "a rebooted guest is a new domain with the same devices"
xl reboot g2
wait_for 120 eval 'second=$(domid g2) && [ $second != $first ]'
expect_devices g2 "3 devices," "$wanted"
if xenstore-exists "/local/domain/0/backend/virtio-msg/$first"; then fail "domain $first has nodes"; fi

say "a guest that is shut down, while it is busy, leaves nothing"
start_io g2
round=$(flushed g2)
in_guest g2 'printf "#!/bin/sh\nexec /bin/poweroff -f\n" >/bin/off; chmod +x /bin/off
  echo /bin/off >/proc/sys/kernel/poweroff_cmd'
xl shutdown g2
expect_gone "$second"
disk-witness check /srv/g2.img "$round"

say "configs that cannot be attached: a broken entry, two files for one name; the guest boots all the same"
create broken '"type=rng", "type=blk,path"' 'vmsg-frontend list >/tmp/first 2>&1'
printf '%s\n' 'name = "twice"' 'virtio_msg = [ "type=console" ]' >/etc/xen/auto/twice.cfg
create twice '"type=rng"' : -p
expect_reason '/etc/xen/broken.cfg: virtio_msg[1]' "/libxl/$(domid broken)/virtio-msg/error"
expect_reason '/etc/xen/twice.cfg and /etc/xen/auto/twice.cfg' "/libxl/$(domid twice)/virtio-msg/error"
xl destroy twice
expect_devices broken "device/virtio-msg/0/backend: No such file"
third=$(domid broken)
xl destroy broken
expect_gone "$third"

say "the image is free again, and the first guest has been connected all the time"
vmsgctl attach g1 type=blk,path=/srv/g2.img
in_guest g1 'await-line /tmp/hold "device 1 ready"; ! grep ended /tmp/hold'
stop_vmsgd
