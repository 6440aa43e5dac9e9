// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated-store/conversation.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tools/xen-emu/store/tree/paths.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store {
namespace {

std::string Swap(absl::string_view text, char from, char to) {
  std::string swapped(text);
  std::replace(swapped.begin(), swapped.end(), from, to);
  return swapped;
}

}  // namespace

std::vector<std::string> TakeOutput(Session& session) {
  MessageReader reader;
  while (!session.output.empty()) {
    std::array<absl::string_view, 1> piece;
    session.output.Gather(absl::MakeSpan(piece));
    reader.Feed(piece[0]);
    session.output.Sent(piece[0].size());
  }
  std::vector<std::string> output;
  while (std::optional<Message> message = reader.Next()) {
    absl::string_view payload = message->payload;
    if (message->type == XS_WATCH_EVENT) {
      absl::ConsumeSuffix(&payload, absl::string_view("", 1));
      output.push_back(absl::StrCat("EVENT ", Swap(payload, '\0', ' ')));
    } else {
      if (message->type != XS_READ) absl::ConsumeSuffix(&payload, absl::string_view("", 1));
      output.push_back(Swap(payload, '\0', '|'));
    }
  }
  return output;
}

Session& Conversation::Join(uint16_t domain) {
  Session& session = sessions_.emplace_back();
  session.id = sessions_.size();
  session.domain = domain;
  operations_.Attach(session);
  return session;
}

std::string Conversation::AskRaw(Session& session, uint32_t type, const std::string& payload,
                                 uint32_t tx) {
  TakeOutput(session);
  operations_.Handle(session, {.type = type, .request = 1, .transaction = tx, .payload = payload});
  // What follows the answer, or came before it, is left for Events.
  std::string answer;
  for (const std::string& text : TakeOutput(session)) {
    if (absl::StartsWith(text, "EVENT ")) {
      Message event{.type = XS_WATCH_EVENT};
      event.payload = Swap(text.substr(6), ' ', '\0') + std::string(1, '\0');
      session.output.AddEvent(EncodeMessage(event), false);
    } else {
      answer = text;
    }
  }
  return answer;
}

std::string Conversation::Ask(Session& session, uint32_t type, absl::string_view payload,
                              uint32_t tx) {
  return AskRaw(session, type, Swap(payload, '|', '\0'), tx);
}

std::vector<std::string> Conversation::Events(Session& session) {
  std::vector<std::string> events;
  for (const std::string& text : TakeOutput(session)) {
    if (absl::StartsWith(text, "EVENT ")) events.push_back(text.substr(6));
  }
  return events;
}

std::string Conversation::Write(Session& session, absl::string_view path, absl::string_view value,
                                uint32_t tx) {
  return Ask(session, XS_WRITE, absl::StrCat(path, "|", value), tx);
}
std::string Conversation::Read(Session& session, absl::string_view path, uint32_t tx) {
  return Ask(session, XS_READ, absl::StrCat(path, "|"), tx);
}
std::string Conversation::Remove(Session& session, absl::string_view path, uint32_t tx) {
  return Ask(session, XS_RM, absl::StrCat(path, "|"), tx);
}
std::string Conversation::MakeDirectory(Session& session, absl::string_view path, uint32_t tx) {
  return Ask(session, XS_MKDIR, absl::StrCat(path, "|"), tx);
}
std::string Conversation::Permit(Session& session, absl::string_view path,
                                 absl::string_view entries, uint32_t tx) {
  return Ask(session, XS_SET_PERMS, absl::StrCat(path, "|", entries, "|"), tx);
}
std::string Conversation::Permissions(Session& session, absl::string_view path, uint32_t tx) {
  return Ask(session, XS_GET_PERMS, absl::StrCat(path, "|"), tx);
}
std::string Conversation::List(Session& session, absl::string_view path, uint32_t tx) {
  return Ask(session, XS_DIRECTORY, absl::StrCat(path, "|"), tx);
}
std::string Conversation::Watch(Session& session, absl::string_view path, absl::string_view token) {
  return Ask(session, XS_WATCH, absl::StrCat(path, "|", token, "|"));
}
uint32_t Conversation::Begin(Session& session) {
  return static_cast<uint32_t>(std::atoi(Ask(session, XS_TRANSACTION_START, "|").c_str()));
}
std::string Conversation::Commit(Session& session, uint32_t tx) {
  return Ask(session, XS_TRANSACTION_END, "T|", tx);
}

Session& Conversation::NewGuest(uint16_t domain) {
  operations_.Introduce(domain);
  Session& toolstack = Join(0);
  MakeDirectory(toolstack, DomainPath(domain));
  Permit(toolstack, DomainPath(domain), absl::StrCat("n", domain));
  operations_.Detach(toolstack);
  return Join(domain);
}

}  // namespace vmsg::emu::store
