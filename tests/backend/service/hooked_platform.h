// SPDX-License-Identifier: Apache-2.0
// A Platform whose mapping can be watched and held: what is mapped, and in which order with what.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "grants/platform.h"

namespace vmsg::testing {

// Shared by the platform, which a test owns, and the mapper, which the service owns.
struct MapperHooks {
  std::mutex mutex;
  // Run on the calling thread before the call, without the mutex. May block.
  std::function<void(grants::DomainId)> before_map;  // of Map and Copy; guarded by mutex
  std::function<void()> before_unmap;                // guarded by mutex
  size_t mapped_pages = 0;                           // guarded by mutex

  size_t MappedPages() {
    std::lock_guard lock(mutex);
    return mapped_pages;
  }
  void OnMap(std::function<void(grants::DomainId)> hook) {
    std::lock_guard lock(mutex);
    before_map = std::move(hook);
  }
  void OnUnmap(std::function<void()> hook) {
    std::lock_guard lock(mutex);
    before_unmap = std::move(hook);
  }
};

class HookedMapper final : public grants::GrantMapper {
 public:
  HookedMapper(std::unique_ptr<grants::GrantMapper> real, std::shared_ptr<MapperHooks> hooks)
      : real_(std::move(real)), hooks_(std::move(hooks)) {}

  absl::StatusOr<grants::GrantMapping> Map(grants::DomainId domain,
                                           absl::Span<const grants::GrantRef> refs,
                                           grants::Access access) override {
    RunBefore(domain);
    absl::StatusOr<grants::GrantMapping> mapping = real_->Map(domain, refs, access);
    if (!mapping.ok()) return mapping.status();
    const std::span<std::byte> bytes = mapping->bytes();
    std::lock_guard lock(hooks_->mutex);
    hooks_->mapped_pages += refs.size();
    live_.emplace(bytes.data(), *std::move(mapping));
    return grants::GrantMapping(this, bytes);
  }

  absl::Status Copy(grants::DomainId domain, grants::GrantRef ref,
                    std::span<std::byte, grants::kPageSize> to) override {
    RunBefore(domain);
    return real_->Copy(domain, ref, to);
  }

 private:
  void RunBefore(grants::DomainId domain) {
    std::function<void(grants::DomainId)> hook;
    {
      std::lock_guard lock(hooks_->mutex);
      hook = hooks_->before_map;
    }
    if (hook) hook(domain);
  }

  void Unmap(std::span<std::byte> bytes) override {
    std::function<void()> hook;
    {
      std::lock_guard lock(hooks_->mutex);
      hook = hooks_->before_unmap;
    }
    if (hook) hook();
    std::lock_guard lock(hooks_->mutex);
    hooks_->mapped_pages -= bytes.size() / grants::kPageSize;
    live_.erase(bytes.data());
  }

  const std::unique_ptr<grants::GrantMapper> real_;
  const std::shared_ptr<MapperHooks> hooks_;
  std::map<std::byte*, grants::GrantMapping> live_;  // by hooks_->mutex
};

class HookedPlatform final : public grants::Platform {
 public:
  explicit HookedPlatform(std::unique_ptr<grants::Platform> real) : real_(std::move(real)) {}

  absl::StatusOr<std::unique_ptr<grants::GrantMapper>> OpenGrantMapper() override {
    absl::StatusOr<std::unique_ptr<grants::GrantMapper>> mapper = real_->OpenGrantMapper();
    if (!mapper.ok()) return mapper.status();
    return std::make_unique<HookedMapper>(*std::move(mapper), hooks);
  }
  absl::StatusOr<std::unique_ptr<grants::GrantSharer>> OpenGrantSharer() override {
    return real_->OpenGrantSharer();
  }
  absl::StatusOr<std::unique_ptr<grants::EventChannels>> OpenEventChannels() override {
    return real_->OpenEventChannels();
  }
  absl::StatusOr<std::unique_ptr<grants::DomainList>> OpenDomainList() override {
    return real_->OpenDomainList();
  }
  bool unmapping_is_unsafe_during_io() const override {
    return real_->unmapping_is_unsafe_during_io();
  }
  std::string store_socket() const override { return real_->store_socket(); }
  std::string lock_path() const override { return real_->lock_path(); }
  std::string name() const override { return real_->name(); }

  const std::shared_ptr<MapperHooks> hooks = std::make_shared<MapperHooks>();

 private:
  const std::unique_ptr<grants::Platform> real_;
};

}  // namespace vmsg::testing
