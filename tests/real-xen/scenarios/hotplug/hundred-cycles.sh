# SPDX-License-Identifier: Apache-2.0
# A disk is attached and detached a hundred times, asked for, forced, or with its bus, which comes and
# goes five times: nothing is left over. hotplug/thousand-cycles is the long form.
# machine: pv
# seconds: 900
disk_comes_and_goes 5 20
