# SPDX-License-Identifier: Apache-2.0
# The same between Dom0 and a guest, where the guest's side is programs in it; and the store's contract as
# the guest sees it.
# machine: pv pvh
# long: pvh
xenstore-control quota set nodes 200
in_guest g1 "VMSG_XEN_MACHINE=contract-machine xen-contract-test --gtest_brief=1 \
  --gtest_filter='*/StoreContract.*:*/GuestStoreContract.*'" 500
head -n $((VERBS - 1)) /script.sh >/verbs.sh
VMSG_XEN_MACHINE=contract-machine xen-contract-test --gtest_filter='*TwoDomains'
