# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/demo, tools/test and tools/bench: installs what is missing and builds.
# Sets $top (the checkout). Functions: need_packages, build PRESET [TARGET...].

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }

# Exit status 2: packages are missing and we may not install them.
need_packages() {
  local missing=() name
  while read -r name; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done < <(grep -v '^#' "$top/tools/packages")
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    say "These Debian packages are missing. Install them and run this again:" >&2
    say "  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 2
  fi
  say "Installing ${#missing[@]} Debian packages: ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
      >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    say "apt-get failed (its last lines are above)." >&2
    rm -f "$log"
    exit 2
  fi
  rm -f "$log"
}

# Quiet unless it fails; quick when there is nothing to do.
build() {
  local preset=$1 log started=$SECONDS
  shift
  mkdir -p "$top/build/$preset"
  log=$top/build/$preset/build.log
  say "Building ($preset) ..."
  if ! { cmake --preset "$preset" -S "$top" && cmake --build "$top/build/$preset" ${1:+--target "$@"}; } >"$log" 2>&1; then
    grep -E -A4 'error|FAILED|CMake Error' "$log" | head -n 40 >&2
    say "The build failed; all of it is in $log" >&2
    exit 1
  fi
  say "Building ($preset) took $((SECONDS - started)) s."
}
