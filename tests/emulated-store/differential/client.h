// SPDX-License-Identifier: Apache-2.0
// A raw client of a xenstored: messages as they are, also malformed ones. By a socket, or by the
// ring page of a domain (xen/io/xs_wire.h) as a file, for a xenstored that runs without Xen.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tools/xen-emu/store/wire/message.h"

namespace vmsg::emu::store::differential {

class Transport {
 public:
  virtual ~Transport() = default;
  virtual bool Send(absl::string_view bytes) = 0;
  // At least one byte; empty: the connection ended, or nothing came in kPatience.
  virtual std::string Receive() = 0;

  static constexpr int kPatienceMs = 5000;
};

std::unique_ptr<Transport> ConnectSocket(const std::string& path);

// `ring`: a file of at least one page. `doorbell`: a FIFO that takes the 4-byte number `port` as
// the domain's event. The other side is told by polling, so it need not ring back.
std::unique_ptr<Transport> OpenRing(const std::string& ring, const std::string& doorbell,
                                    uint32_t port);

struct Answer {
  uint32_t type = 0;
  std::string payload;
  std::vector<std::string> events;  // payloads of the watch events that came before the answer
};

class Client {
 public:
  explicit Client(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {}

  // nullopt: no answer.
  std::optional<Answer> Ask(uint32_t type, uint32_t transaction, const std::string& payload);
  // Sends a header that announces more than a message may have; true when the server hangs up.
  bool IsDroppedForOversize();
  // The watch events that are due by now.
  std::vector<std::string> Events();

 private:
  std::unique_ptr<Transport> transport_;
  MessageReader reader_;
  uint32_t last_request_ = 0;
  std::vector<std::string> events_;
};

}  // namespace vmsg::emu::store::differential
