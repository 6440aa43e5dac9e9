// SPDX-License-Identifier: Apache-2.0
// Datagrams to a socket that nobody reads would fill its queue, and the next sender would wait for
// ever. A filter in the kernel takes them away instead, without an error.
#pragma once

namespace vmsg::backend {

// Whatever comes from now on is dropped.
void DropSizes(int socket);
// What comes from now on waits to be read.
void TakeSizes(int socket);

}  // namespace vmsg::backend
