# SPDX-License-Identifier: Apache-2.0
# A guest that is shut down while its frontend is connected and busy.
# machine: two
two_busy_guests
domain=$(domid g1) round=$(flushed g1)
# The kernel runs what this names. It does not stop the frontend first.
in_guest g1 'printf "#!/bin/sh\nexec /bin/poweroff -f\n" >/bin/off; chmod +x /bin/off
  echo /bin/off >/proc/sys/kernel/poweroff_cmd'
xl shutdown g1
expect_g1_ended "$domain" "$round"
