# SPDX-License-Identifier: Apache-2.0
# The same in a PV guest, which is both sides. (A PVH guest cannot map what it granted itself: Xen
# would put the page at a second place of its memory.)
# machine: pv
home=/local/domain/$(domid g1)
xenstore-watch $home/data/question | while read -r _; do
  question=$(xenstore-read $home/data/question 2>/dev/null) || continue # our own removal
  xenstore-rm $home/data/question
  xenstore-write $home/data/answer "$(mappings_of "${question#mappings }")"
done &
in_guest g1 'echo 100000 >/sys/module/xen_gntalloc/parameters/limit'
in_guest g1 "VMSG_XEN_MACHINE=contract-machine xen-contract-test --gtest_filter='*Loopback'" 250
