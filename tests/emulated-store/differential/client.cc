// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated-store/differential/client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store::differential {
namespace {

class SocketTransport : public Transport {
 public:
  explicit SocketTransport(int fd) : fd_(fd) {}
  ~SocketTransport() override { close(fd_); }

  bool Send(absl::string_view bytes) override {
    return send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }

  std::string Receive() override {
    pollfd ready = {.fd = fd_, .events = POLLIN};
    if (poll(&ready, 1, kPatienceMs) != 1) return "";
    std::array<char, 8192> buffer;
    const ssize_t got = recv(fd_, buffer.data(), buffer.size(), 0);
    return got > 0 ? std::string(buffer.data(), static_cast<size_t>(got)) : "";
  }

 private:
  const int fd_;
};

class RingTransport : public Transport {
 public:
  RingTransport(xenstore_domain_interface* page, int doorbell, uint32_t port)
      : page_(page), doorbell_(doorbell), port_(port) {}
  ~RingTransport() override {
    munmap(page_, 4096);
    close(doorbell_);
  }

  bool Send(absl::string_view bytes) override {
    for (int waited = 0; !bytes.empty() && waited < kPatienceMs * 10;) {
      const uint32_t produced = Index(page_->req_prod).load(std::memory_order_relaxed);
      const uint32_t consumed = Index(page_->req_cons).load(std::memory_order_acquire);
      const size_t count =
          std::min<size_t>(bytes.size(), XENSTORE_RING_SIZE - (produced - consumed));
      if (count == 0) {
        Pause(waited);
        continue;
      }
      for (size_t i = 0; i < count; ++i) {
        page_->req[MASK_XENSTORE_IDX(produced + static_cast<uint32_t>(i))] = bytes[i];
      }
      Index(page_->req_prod)
          .store(produced + static_cast<uint32_t>(count), std::memory_order_release);
      bytes.remove_prefix(count);
      Ring();
    }
    return bytes.empty();
  }

  std::string Receive() override {
    for (int waited = 0; waited < kPatienceMs * 10; Pause(waited)) {
      const uint32_t consumed = Index(page_->rsp_cons).load(std::memory_order_relaxed);
      const uint32_t produced = Index(page_->rsp_prod).load(std::memory_order_acquire);
      if (produced == consumed) continue;
      std::string bytes;
      for (uint32_t at = consumed; at != produced; ++at) {
        bytes.push_back(page_->rsp[MASK_XENSTORE_IDX(at)]);
      }
      Index(page_->rsp_cons).store(produced, std::memory_order_release);
      Ring();
      return bytes;
    }
    return "";
  }

 private:
  static std::atomic_ref<uint32_t> Index(uint32_t& word) { return std::atomic_ref<uint32_t>(word); }

  static void Pause(int& waited) {
    usleep(100);
    ++waited;
  }

  void Ring() {
    if (write(doorbell_, &port_, sizeof(port_)) < 0) return;  // full: it is awake anyhow
  }

  xenstore_domain_interface* const page_;
  const int doorbell_;
  const uint32_t port_;
};

}  // namespace

std::unique_ptr<Transport> ConnectSocket(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {.sun_family = AF_UNIX};
  if (path.size() >= sizeof(address.sun_path)) {
    close(fd);
    return nullptr;
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    close(fd);
    return nullptr;
  }
  return std::make_unique<SocketTransport>(fd);
}

std::unique_ptr<Transport> OpenRing(const std::string& ring, const std::string& doorbell,
                                    uint32_t port) {
  const int file = open(ring.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return nullptr;
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (page == MAP_FAILED) return nullptr;
  const int fifo = open(doorbell.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fifo < 0) {
    munmap(page, 4096);
    return nullptr;
  }
  return std::make_unique<RingTransport>(static_cast<xenstore_domain_interface*>(page), fifo, port);
}

std::optional<Answer> Client::Ask(uint32_t type, uint32_t transaction, const std::string& payload) {
  const Message question = {
      .type = type, .request = ++last_request_, .transaction = transaction, .payload = payload};
  if (!transport_->Send(EncodeMessage(question))) return std::nullopt;
  while (true) {
    std::optional<Message> message = reader_.Next();
    if (!message.has_value()) {
      const std::string bytes = transport_->Receive();
      if (bytes.empty() || reader_.broken()) return std::nullopt;
      reader_.Feed(bytes);
    } else if (message->type == XS_WATCH_EVENT) {
      events_.push_back(message->payload);
    } else if (message->request == last_request_) {
      return Answer{message->type, message->payload, std::exchange(events_, {})};
    }
  }
}

bool Client::IsDroppedForOversize() {
  xsd_sockmsg header = {};
  header.type = XS_READ;
  header.len = XENSTORE_PAYLOAD_MAX + 1;
  transport_->Send(absl::string_view(reinterpret_cast<const char*>(&header), sizeof(header)));
  while (true) {
    const std::string bytes = transport_->Receive();
    if (bytes.empty()) return !transport_->Send("x");
  }
}

std::vector<std::string> Client::Events() {
  // Answers come in order, so what was due before the question is there with its answer.
  std::optional<Answer> answer = Ask(XS_GET_DOMAIN_PATH, 0, std::string("0\0", 2));
  if (!answer.has_value()) return {"(no answer)"};
  return answer->events;
}

}  // namespace vmsg::emu::store::differential
