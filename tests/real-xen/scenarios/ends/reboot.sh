# SPDX-License-Identifier: Apache-2.0
# A guest that is rebooted in the middle of its I/O becomes another domain: the old one leaves nothing
# behind, the new one has its disk again, as its config says.
# machine: two
start_vmsgd
attach_disk g2
start_io g2 --gently
destroy_guest g1
sed -i 's/^on_reboot = .*/on_reboot = "restart"/' /etc/xen/g1.cfg
truncate -s 2M /srv/g1.img
echo 'virtio_msg = [ "type=blk,path=/srv/g1.img" ]' >>/etc/xen/g1.cfg
xl create /etc/xen/g1.cfg >/dev/null
wait_guest g1
start_io g1
domain=$(domid g1) round=$(flushed g1)
xl reboot g1
domain await-end "$domain" 60
expect_no_zombie
expect_equal "mappings of domain $domain" "$(mappings_of "$domain")" 0
wait_for 60 domid g1
wait_guest g1
disk-witness check /srv/g1.img "$round"
start_io g1
stop_io g1
xl destroy g1
expect_io_goes_on g2
stop_io g2
stop_vmsgd
