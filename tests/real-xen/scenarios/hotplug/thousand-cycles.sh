# SPDX-License-Identifier: Apache-2.0
# A disk is attached and detached a thousand times, asked for, forced, or with its bus, which comes and
# goes twenty times: nothing is left over.
# machine: pv
# long: pv
# seconds: 1800
disk_comes_and_goes 20 50
