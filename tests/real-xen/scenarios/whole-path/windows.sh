# SPDX-License-Identifier: Apache-2.0
# Windows from 64 pages to more than the defaults of Xen and Linux allow, with the settings that
# docs/operations.md names; without them the frontend says which one is in the way.
# machine: pv
LIMIT=/sys/module/xen_gntalloc/parameters/limit
head -c 4m /dev/urandom >/srv.img
start_vmsgd --config-dir=
vmsgctl attach g1 type=blk,path=/srv.img
wanted=$(sha256sum </srv.img)

expect_window() { # GUEST PAGES
  expect_contains "$(in_guest "$1" "vmsg-frontend --pages $2 list" 120)" "window $2 pages"
  expect_equal "sha256 through $2 pages" \
    "$(in_guest "$1" "vmsg-frontend --pages $2 blk read - | sha256sum" 120)" "$wanted"
}

say "64 pages, and as many as the defaults allow"
expect_window g1 64
expect_window g1 1000

say "over gntalloc's limit"
expect_refusal "/sys/module/xen_gntalloc/parameters/limit" in_guest g1 'vmsg-frontend --pages 16384 list'
in_guest g1 "echo 100000 >$LIMIT"
expect_window g1 1024
expect_window g1 16384
vmsgctl detach g1 all
xl destroy g1
expect_no_zombie

say "over a grant table of 64 frames, the default of Xen (here it has 512)"
make_guest pv g2 384 'max_grant_frames = 64'
vmsgctl attach g2 type=blk,path=/srv.img
in_guest g2 "echo 100000 >$LIMIT"
expect_refusal "max_grant_frames" in_guest g2 'vmsg-frontend --pages 40000 list' 120
vmsgctl detach g2 all
xl destroy g2
expect_no_zombie
make_guest pv g3 384 'max_grant_frames = 128'
vmsgctl attach g3 type=blk,path=/srv.img
in_guest g3 "echo 100000 >$LIMIT"
expect_window g3 40000

say "over what vmsgd allows a guest"
stop_vmsgd
start_vmsgd --config-dir= --max-window-pages=600
expect_refusal "600" in_guest g3 'vmsg-frontend --pages 601 list'
expect_window g3 600
vmsgctl detach g3 all
expect_equal "mappings left" "$(mappings_of "$(domid g3)")" 0
stop_vmsgd
