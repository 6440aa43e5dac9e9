// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/console/terminal/size_filter.h"

#include <linux/filter.h>
#include <sys/socket.h>

namespace vmsg::backend {

void DropSizes(int socket) {
  sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog program = {.len = 1, .filter = &nothing};
  (void)setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

void TakeSizes(int socket) {
  const int unused = 0;
  (void)setsockopt(socket, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
}

}  // namespace vmsg::backend
