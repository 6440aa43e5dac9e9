// SPDX-License-Identifier: Apache-2.0
// The emulated handles behind the interfaces of grants/. `directory` is what OpenEmulatedPlatform
// takes: D for Dom0, D/domains/<domid> for a guest.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grants/event_channels.h"
#include "grants/grant_mapper.h"
#include "grants/grant_sharer.h"

namespace vmsg::emu {

absl::StatusOr<std::unique_ptr<grants::GrantMapper>> OpenGrantMapper(const std::string& directory);
absl::StatusOr<std::unique_ptr<grants::GrantSharer>> OpenGrantSharer(const std::string& directory);
absl::StatusOr<std::unique_ptr<grants::EventChannels>> OpenEventChannels(
    const std::string& directory);

}  // namespace vmsg::emu
