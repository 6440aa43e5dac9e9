// SPDX-License-Identifier: Apache-2.0
// Messages as text, for traces and vmsg-decode; names, fields and their order come from the table.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "virtio-msg/message_table.h"

namespace vmsg::wire {

// One line without its end, for any bytes at all:
//   GET_CONFIG dev=1 token=7 offset=0 length=8
//   GET_CONFIG response dev=1 token=7 generation=3 offset=0 length=2 data=00ff
//   malformed: msg_size is 6, the header alone has 8; 0205000007000600
// A record that cannot be read in full, or that `from` may not send, is shown with the reason and
// its first bytes. Only printable ASCII comes out, at most a few bytes of text per byte of record.
std::string Describe(const Profile& profile, std::span<const std::byte> record,
                     std::optional<Sender> from = std::nullopt);

}  // namespace vmsg::wire
