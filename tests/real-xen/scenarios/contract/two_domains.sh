# SPDX-License-Identifier: Apache-2.0
# The same between Dom0 and a guest, where the guest's side is programs in it.
# machine: pv pvh
head -n $((VERBS - 1)) /script.sh >/verbs.sh
VMSG_XEN_MACHINE=contract-machine xen-contract-test --gtest_filter='*TwoDomains'
