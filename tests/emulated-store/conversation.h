// SPDX-License-Identifier: Apache-2.0
// Clients of Operations without sockets: requests and answers as readable text.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tools/xen-emu/store/operations.h"
#include "tools/xen-emu/store/session.h"

namespace vmsg::emu::store {

// What a session was sent since the last call: "EVENT path token" or the answer as Ask gives it.
std::vector<std::string> TakeOutput(Session& session);

class Conversation {
 public:
  explicit Conversation(Options options = {}) : operations_(options, [](Session&) {}) {}

  // Stays valid as long as this.
  Session& Join(uint16_t domain);
  Operations& operations() { return operations_; }

  // `payload` with '|' for each NUL. The answer likewise, or the name of the error.
  std::string Ask(Session& session, uint32_t type, absl::string_view payload, uint32_t tx = 0);
  std::string AskRaw(Session& session, uint32_t type, const std::string& payload, uint32_t tx = 0);
  // Events since the last call, of Events or Ask; "path token" each.
  std::vector<std::string> Events(Session& session);

  // Shorthands; the answer is "OK" or an error's name.
  std::string Write(Session& session, absl::string_view path, absl::string_view value,
                    uint32_t tx = 0);
  std::string Read(Session& session, absl::string_view path, uint32_t tx = 0);
  std::string Remove(Session& session, absl::string_view path, uint32_t tx = 0);
  std::string MakeDirectory(Session& session, absl::string_view path, uint32_t tx = 0);
  // `entries` as "n5|r6".
  std::string Permit(Session& session, absl::string_view path, absl::string_view entries,
                     uint32_t tx = 0);
  std::string Permissions(Session& session, absl::string_view path, uint32_t tx = 0);
  std::string List(Session& session, absl::string_view path, uint32_t tx = 0);
  std::string Watch(Session& session, absl::string_view path, absl::string_view token);
  uint32_t Begin(Session& session);
  std::string Commit(Session& session, uint32_t tx);

  // What a toolstack does for a new guest: introduces it and gives it /local/domain/<id>.
  Session& NewGuest(uint16_t domain);

 private:
  Operations operations_;
  std::deque<Session> sessions_;
};

}  // namespace vmsg::emu::store
