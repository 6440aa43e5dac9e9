// SPDX-License-Identifier: Apache-2.0
// The watches of one connection.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace vmsg::emu::store {

class WatchList {
 public:
  // `path` is absolute or starts with '@'. `relative_to`: what the client left out, so that its
  // events leave it out too; empty when it gave the path in full.
  struct Watch {
    std::string path;
    std::string token;
    std::string relative_to;

    // How this client is told about `changed`, which is at or below the path.
    absl::string_view EventPath(absl::string_view changed) const;
  };

  bool Contains(absl::string_view path, absl::string_view token) const;
  const Watch& Add(Watch watch);
  bool Remove(absl::string_view path, absl::string_view token);
  void Clear() { watches_.clear(); }
  size_t size() const { return watches_.size(); }

  // Calls `event` for each watch that the change concerns, in the order of their registration.
  // `exact`: watches on this very path only.
  void Match(absl::string_view changed, bool exact,
             const std::function<void(const Watch&)>& event) const;

 private:
  std::vector<Watch> watches_;
};

}  // namespace vmsg::emu::store
