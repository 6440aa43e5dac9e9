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
# QEMU 7.2 loses a nested guest on its first processor: any other processor that restores its FPU state
# writes that one's hflags2, unlocked (cpu_clear_ignne in target/i386), and the old value may say "in a guest".
PVH_PROCESSORS=1

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
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -le $deadline ] || fail "waited in vain for: $*"
    pause
  done
}
# A tenth of a second, without a process: each costs a tenth of a second by itself.
exec {quiet}<> <(:)
pause() { read -r -t 0.1 -u "$quiet" _ || true; }

# --- guests

# Boots a guest; returns when it takes commands. Its config is /etc/xen/NAME.cfg.
make_guest() { # pv|pvh NAME MEMORY_MIB [LINES OF THE CONFIG]
  write_config "$@"
  xl create "/etc/xen/$2.cfg" >/dev/null 9>&- # it leaves a daemon behind
  wait_guest "$2"
}
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
$([ "$1" != pvh ] || echo "cpus = \"$PVH_PROCESSORS\"")
${4:-}
CONFIG
}
destroy_guest() { # NAME
  xl destroy "$1"
  rm -f "$CONSOLES/guest-$1.log"
}
wait_guest() { # NAME
  of_guest await "$1" data/ready 1 400
}
domid() { guest domid "$1"; } # NAME
# Runs a command line in the guest: its output, its status.
in_guest() { # NAME COMMAND [SECONDS]
  of_guest run "$1" "${3:-200}" "$2"
}
of_guest() { # VERB NAME ... OF guest-programs/guest.cc
  local status=0
  guest "$@" 2>&9 || status=$?
  [ $status != 254 ] || fail "guest $2: $1"
  return $status
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

mappings_of() { domain mappings "$1"; } # DOMID
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
  echo "--- Dom0's kernel"; dmesg | tail -n 20
  [ -z "${DRIVER:-}" ] || { echo "--- vmsgd's log in $DRIVER"; in_guest $DRIVER 'tail -n 60 /tmp/vmsgd.log'; }
}
