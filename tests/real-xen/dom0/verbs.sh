# SPDX-License-Identifier: Apache-2.0
# What a scenario of tests/real-xen is written in; it runs in Dom0, in front of the scenario's text.
# A scenario passes when it ends with status 0; any command that fails ends it.
set -eEu -o pipefail
shopt -s inherit_errexit
exec 9>&1 # so that what failed is seen from inside $( ) too
trap 'echo "FAILED at line $(scenario_line $LINENO "${BASH_LINENO[@]}"): $BASH_COMMAND" >&9' ERR
trap 'status=$?; [ $status = 0 ] || diagnose; exit $status' EXIT

CONSOLES=/var/log/xen/console
VMSGD_LOG=/run/vmsgd.log

say() { echo "== $*"; }
fail() {
  echo "FAILED at line $(scenario_line "${BASH_LINENO[@]}"): $*" >&9
  exit 1
}
# The line of the scenario's file that bash is in, from its list of calls; VERBS are our lines.
scenario_line() {
  local line
  for line; do
    [ "$line" -le "${VERBS:-0}" ] || { echo $((line - ${VERBS:-0})); return; }
  done
}

# --- assertions

expect_equal() { # WHAT GOT WANTED
  [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""
}
expect_contains() { # TEXT PART
  [[ $1 == *"$2"* ]] || fail "\"$2\" is not in: $1"
}
# The command ends with another status than 0, and says PART.
expect_refusal() { # PART COMMAND...
  local part=$1 said
  shift
  if said=$("$@" 2>&1); then fail "$* was not refused: $said"; fi
  expect_contains "$said" "$part"
}
# Polls until the command succeeds.
wait_for() { # SECONDS COMMAND...
  local deadline=$(($(date +%s) + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -le $deadline ] || fail "waited in vain for: $*"
    usleep 100000
  done
}

# --- guests

# Boots a guest; returns when it takes commands. Its config is /etc/xen/NAME.cfg.
make_guest() { # pv|pvh NAME MEMORY_MIB [LINES OF THE CONFIG]
  local attempt
  write_config "$@"
  for attempt in 1 2 3 4 5 6 7 8; do
    xl create "/etc/xen/$2.cfg" >/dev/null 9>&- # it leaves a daemon behind
    wait_for 200 guest_is_up_or_gone "$2"
    ! guest_is_up "$2" || return 0
    # QEMU's interpreter loses a PVH guest's state now and then: a triple fault before its first process.
    [ "$1" = pvh ] || break
    echo "guest $2 ended while it booted, attempt $attempt"
  done
  fail "guest $2 does not boot"
}
guest_is_up() { xenstore-exists "/local/domain/$(domid "$1" 2>/dev/null)/data/ready"; } # NAME
guest_is_up_or_gone() { ! domid "$1" || guest_is_up "$1"; } # NAME
write_config() { # the same
  cat >"/etc/xen/$2.cfg" <<CONFIG
name = "$2"
type = "$1"
kernel = "/guest/vmlinux"
ramdisk = "/guest/initramfs"
memory = $3
vcpus = 1
extra = "console=hvc0 rdinit=/init quiet panic=-1"
on_crash = "destroy"
on_reboot = "destroy"
${4:-}
CONFIG
}
destroy_guest() { # NAME
  xl destroy "$1"
  rm -f "$CONSOLES/guest-$1.log"
}
wait_guest() { # NAME
  wait_for 400 xenstore-exists "/local/domain/$(domid "$1")/data/ready"
}
domid() { xl domid "$1"; } # NAME

# Runs a command line in the guest: its output, its status.
in_guest() { # NAME COMMAND [SECONDS]
  local log=$CONSOLES/guest-$1.log id said from deadline home events watcher
  home=/local/domain/$(domid "$1")/data
  id=$(cat /proc/sys/kernel/random/uuid)
  from=$(stat -c %s "$log")
  deadline=$(($(date +%s) + ${3:-200}))
  # Asking over and over would take the processor that the guest needs.
  exec {events}< <(exec xenstore-watch "$home/done" 2>/dev/null)
  watcher=$!
  xenstore-write -R "$home/command" "$id $2"
  while :; do
    said=$(tail -c "+$((from + 1))" "$log" | tr -d '\r')
    [[ $said != *"@end $id "[0-9]* ]] || break
    if [ "$(date +%s)" -gt $deadline ]; then
      echo "$said"
      fail "guest $1 did not end: $2"
    fi
    xenstore-exists "$home" || fail "guest $1 is gone, and was to do: $2"
    read -r -t 0.5 -u "$events" _ || true # the console may come after the event
  done
  kill "$watcher"
  wait "$watcher" || true
  exec {events}<&-
  said=${said#*"@begin $id"$'\n'}
  local status=${said##*"@end $id "}
  printf '%s' "${said%"@end $id "*}"
  return "${status%%$'\n'*}"
}

# --- vmsgd

start_vmsgd() { # [OPTION...]
  local from
  touch $VMSGD_LOG
  from=$(stat -c %s $VMSGD_LOG)
  vmsgd --log-level=debug "$@" >>$VMSGD_LOG 2>&1 9>&- &
  VMSGD=$!
  wait_for 20 vmsgd_is_ready "$from"
}
vmsgd_is_ready() { # BYTES OF AN OLDER LOG
  kill -0 "$VMSGD" || fail "vmsgd ended"
  tail -c "+$(($1 + 1))" $VMSGD_LOG | grep -qx ready
}
stop_vmsgd() {
  kill -TERM "$VMSGD"
  wait "$VMSGD" || fail "vmsgd ended with status $?"
}

# --- what must not be left over

# How often pages of a domain are mapped, by any domain: the pins in Xen's dump of its grant table
# (readers and writers are counted in two bytes), but for the reserved ones (console and xenstore).
mappings_of() { # DOMID
  local owner="" count=0 line ref pin
  xl dmesg -c >/dev/null
  xl debug-keys g
  while read -r line; do
    if [[ $line =~ "grant-table for remote d"([0-9]+) ]]; then
      owner=${BASH_REMATCH[1]}
    elif [[ $owner = "$1" && $line =~ \[(0x[0-9a-f]+)\]\ +[0-9]+\ 0x[0-9a-f]+\ (0x[0-9a-f]+) ]]; then
      ref=${BASH_REMATCH[1]} pin=${BASH_REMATCH[2]}
      ((ref < 8)) || count=$((count + (pin & 255) + (pin >> 8 & 255)))
    fi
  done < <(xl dmesg -c)
  echo $count
}
# A destroyed domain stays as (null) while something maps its pages.
no_zombie() { ! xl list | grep -q -F '(null)'; }
expect_no_zombie() { wait_for 2 no_zombie; }
# Nodes of buses, in the directories of guests and backends.
bus_nodes() { xenstore-ls -f | grep -c -E '/(device|backend)/virtio-msg/' || true; }
descriptors_of() { ls "/proc/$1/fd" | wc -l; } # PID

# --- when it failed

diagnose() {
  trap - ERR
  set +e
  echo "--- domains"; xl list
  echo "--- vmsgd's log"; tail -n 60 $VMSGD_LOG 2>/dev/null
  for log in "$CONSOLES"/guest-*.log; do
    [ ! -e "$log" ] || { echo "--- ${log##*/}"; tail -n 40 "$log"; }
  done
  echo "--- xl dmesg"; xl dmesg | tail -n 5
  [ -z "${DRIVER:-}" ] || { echo "--- vmsgd's log in $DRIVER"; in_guest $DRIVER 'tail -n 60 /tmp/vmsgd.log'; }
}
