# SPDX-License-Identifier: Apache-2.0
# The contract of grants and event channels (tests/contract) in Dom0, which is both sides, and the
# store's as Dom0 sees it.
# machine: pv
head -n $((VERBS - 1)) /script.sh >/verbs.sh
echo 100000 >/sys/module/xen_gntalloc/parameters/limit
VMSG_XEN_MACHINE=contract-machine xen-contract-test \
  --gtest_filter='*Loopback:*/StoreContract.*:*/Dom0StoreContract.*:-*DomainsAreListedForAControlDomainOnly*'
