// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/store/operations.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tools/xen-emu/store/tree/paths.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store {
namespace {

std::string WithNul(absl::string_view text) { return absl::StrCat(text, absl::string_view("", 1)); }

}  // namespace

Operations::Operations(const Options& options, std::function<void(Session&)> woken)
    : options_(options),
      woken_(std::move(woken)),
      domains_(options.domain_exists),
      nodes_(domains_, options.quotas, [this](const Change& change) { Fire(change); }) {
  const Permissions dom0 = {{.domain = 0, .rights = kNoRights}};
  special_ = {{"@introduceDomain", dom0}, {"@releaseDomain", dom0}};
}

std::array<Operations::Operation, 32> Operations::Table() {
  std::array<Operation, 32> table;
  static_assert(XS_TYPE_COUNT <= 32);
  table[XS_DIRECTORY] = {.handler = &Operations::Directory};
  table[XS_DIRECTORY_PART] = {.handler = &Operations::DirectoryPart};
  table[XS_READ] = {.handler = &Operations::Read};
  table[XS_GET_PERMS] = {.handler = &Operations::GetPermissions};
  table[XS_WRITE] = {.handler = &Operations::Write};
  table[XS_MKDIR] = {.handler = &Operations::MakeDirectory};
  table[XS_RM] = {.handler = &Operations::Remove};
  table[XS_SET_PERMS] = {.handler = &Operations::SetPermissions};
  table[XS_WATCH] = {.handler = &Operations::AddWatch, .ignores_transaction = true};
  table[XS_UNWATCH] = {.handler = &Operations::RemoveWatch, .ignores_transaction = true};
  table[XS_RESET_WATCHES] = {.handler = &Operations::ResetWatches};
  table[XS_TRANSACTION_START] = {.handler = &Operations::StartTransaction};
  table[XS_TRANSACTION_END] = {.handler = &Operations::EndTransaction};
  table[XS_INTRODUCE] = {.handler = &Operations::IntroduceDomain, .privileged = true};
  table[XS_RELEASE] = {.handler = &Operations::ReleaseDomain, .privileged = true};
  table[XS_RESUME] = {.handler = &Operations::ResumeDomain, .privileged = true};
  table[XS_SET_TARGET] = {.handler = &Operations::SetTarget, .privileged = true};
  table[XS_IS_DOMAIN_INTRODUCED] = {.handler = &Operations::IsDomainIntroduced, .privileged = true};
  table[XS_GET_DOMAIN_PATH] = {.handler = &Operations::GetDomainPath};
  return table;
}

void Operations::Attach(Session& session) {
  domains_.FindOrAdd(session.domain);
  sessions_.push_back(&session);
}

void Operations::Detach(Session& session) {
  Forget(session);
  sessions_.erase(std::remove(sessions_.begin(), sessions_.end(), &session), sessions_.end());
}

void Operations::Forget(Session& session) {
  if (Domain* domain = domains_.Find(session.domain)) {
    domain->watches -= session.watches.size();
    domain->transactions -= session.transactions.size();
  }
  session.watches.Clear();
  session.transactions.clear();
}

Requester Operations::RequesterOf(const Session& session) const {
  Requester requester{.domain = session.domain, .privileged = session.domain == 0};
  if (const Domain* domain = domains_.Find(session.domain)) requester.target = domain->target;
  return requester;
}

void Operations::Handle(Session& session, const Message& message) {
  Request request{.session = session, .message = message};
  request.caller.requester = RequesterOf(session);
  request.reply = WithNul("OK");
  int error = Serve(request);
  if (error == 0 && request.reply.size() > kPayloadLimit) error = E2BIG;
  Message answer = {.type = message.type,
                    .request = message.request,
                    .transaction = message.transaction,
                    .payload = std::move(request.reply)};
  if (error != 0) {
    answer.type = XS_ERROR;
    answer.payload = WithNul(ErrorName(error));
  }
  session.output.AddReply(EncodeMessage(answer));
  if (error == 0 && !request.first_event.empty()) {
    session.output.AddEvent(std::move(request.first_event), true);
  }
  woken_(session);
}

int Operations::Serve(Request& request) {
  static const std::array<Operation, 32> table = Table();
  const Message& message = request.message;
  if (message.type >= table.size() || table[message.type].handler == nullptr) return ENOSYS;
  const Operation& operation = table[message.type];
  if (operation.privileged && !request.caller.requester.privileged) return EACCES;
  if (!operation.ignores_transaction && message.transaction != 0) {
    auto it = request.session.transactions.find(message.transaction);
    if (it == request.session.transactions.end()) return ENOENT;
    request.caller.transaction = it->second.get();
  }
  return (this->*operation.handler)(request);
}

void Operations::Fire(const Change& change) {
  for (Session* session : sessions_) {
    if (session->watches.size() == 0) continue;
    const Requester requester = RequesterOf(*session);
    const bool visible =
        std::any_of(change.seen_by.begin(), change.seen_by.end(), [&](const Permissions* seen_by) {
          return seen_by != nullptr && (RightsOf(requester, *seen_by) & kRead);
        });
    if (!visible) continue;
    session->watches.Match(change.path, change.exact, [&](const WatchList::Watch& watch) {
      SendEvent(*session, watch.EventPath(change.path), watch.token);
    });
  }
}

void Operations::FireSpecial(absl::string_view name) {
  const Permissions& permissions = special_.at(std::string(name));
  Fire({.path = name, .exact = true, .seen_by = {&permissions, nullptr, nullptr}});
}

void Operations::SendEvent(Session& session, absl::string_view path, absl::string_view token) {
  if (session.closing) return;
  if (losing_ > 0 && session.domain == losing_domain_) {
    --losing_;
    return;
  }
  Message event{.type = XS_WATCH_EVENT};
  event.payload = absl::StrCat(WithNul(path), WithNul(token));
  if (event.payload.size() > kPayloadLimit) return;
  if (session.domain != 0 && session.output.event_bytes() >= options_.quotas.event_bytes) return;
  session.output.AddEvent(EncodeMessage(event), !absl::StartsWith(path, "@"));
  if (session.domain == 0 && session.output.bytes() > options_.output_close_bytes) {
    session.closing = true;
  }
  woken_(session);
}

int Operations::AddWatch(Request& request) {
  size_t count = 0;
  std::vector<std::string> strings = SplitStrings(request.message.payload, 2, &count);
  if (count != 2) return EINVAL;
  Session& session = request.session;
  WatchList::Watch watch{.path = std::move(strings[0]), .token = std::move(strings[1])};
  if (absl::StartsWith(watch.path, "@")) {
    if (watch.path.size() > kPathLimit) return EINVAL;
  } else {
    if (!absl::StartsWith(watch.path, "/")) {
      watch.relative_to = DomainPath(session.domain);
      watch.path = absl::StrCat(watch.relative_to, "/", watch.path);
    }
    if (!IsValidPath(watch.path)) return EINVAL;
  }
  if (session.watches.Contains(watch.path, watch.token)) return EEXIST;
  Domain& domain = domains_.FindOrAdd(session.domain);
  if (session.domain != 0 && domain.watches > options_.quotas.watches) return E2BIG;
  ++domain.watches;
  const WatchList::Watch& added = session.watches.Add(std::move(watch));
  Message event{.type = XS_WATCH_EVENT};
  event.payload = absl::StrCat(WithNul(added.EventPath(added.path)), WithNul(added.token));
  if (event.payload.size() <= kPayloadLimit) request.first_event = EncodeMessage(event);
  return 0;
}

int Operations::RemoveWatch(Request& request) {
  size_t count = 0;
  std::vector<std::string> strings = SplitStrings(request.message.payload, 2, &count);
  if (count != 2) return EINVAL;
  std::string& path = strings[0];
  if (!absl::StartsWith(path, "/") && !absl::StartsWith(path, "@")) {
    path = absl::StrCat(DomainPath(request.session.domain), "/", path);
  }
  if (!request.session.watches.Remove(path, strings[1])) return ENOENT;
  --domains_.FindOrAdd(request.session.domain).watches;
  return 0;
}

int Operations::ResetWatches(Request& request) {
  Forget(request.session);
  return 0;
}

int Operations::StartTransaction(Request& request) {
  if (request.caller.transaction != nullptr) return EBUSY;
  Session& session = request.session;
  Domain& domain = domains_.FindOrAdd(session.domain);
  if (session.domain != 0 && domain.transactions > options_.quotas.transactions) return ENOSPC;
  while (session.next_transaction == 0 || session.transactions.contains(session.next_transaction)) {
    ++session.next_transaction;
  }
  const uint32_t id = session.next_transaction++;
  session.transactions.emplace(id, std::make_unique<Transaction>());
  domains_.NextGeneration();
  ++domain.transactions;
  request.reply = WithNul(absl::StrCat(id));
  return 0;
}

int Operations::EndTransaction(Request& request) {
  std::optional<std::string> verdict = SingleString(request.message.payload);
  if (verdict != "T" && verdict != "F") return EINVAL;
  if (request.caller.transaction == nullptr) return ENOENT;
  auto transaction = request.session.transactions.extract(request.message.transaction);
  --domains_.FindOrAdd(request.session.domain).transactions;
  if (verdict == "F") return 0;
  return nodes_.Commit(request.caller.requester, *transaction.mapped());
}

size_t Operations::watches() const {
  size_t count = 0;
  for (const Session* session : sessions_) count += session->watches.size();
  return count;
}

size_t Operations::transactions() const {
  size_t count = 0;
  for (const Session* session : sessions_) count += session->transactions.size();
  return count;
}

}  // namespace vmsg::emu::store
