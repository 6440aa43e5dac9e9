// SPDX-License-Identifier: Apache-2.0
// A BusListener that writes down what it is told, a line each, and may act on it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "xenstore/discovery.h"

namespace vmsg::xenstore {

class RecordingListener : public BusListener {
 public:
  // What was reported since the last call.
  std::vector<std::string> Take() { return std::exchange(lines_, {}); }
  std::function<void(const BusAddress&, const std::string& device)> on_device;

  void OnBusAppeared(const BusAddress& bus, const BusView& view) override {
    Add("appeared ", bus, View(view));
  }
  void OnBusChanged(const BusAddress& bus, const BusView& view) override {
    Add("changed ", bus, View(view));
  }
  void OnBusVanished(const BusAddress& bus) override { Add("vanished ", bus, ""); }
  void OnDeviceAdded(const BusAddress& bus, const DeviceNodes& device) override {
    Add("device ", bus,
        absl::StrCat(" ", device.number, " ", device.type, "{",
                     absl::StrJoin(device.keys, ",", absl::PairFormatter("=")), "}",
                     device.found.empty() ? "" : " found{",
                     absl::StrJoin(device.found, ",", absl::PairFormatter("=")),
                     device.found.empty() ? "" : "}", device.status));
    if (on_device) on_device(bus, absl::StrCat(device.number));
  }
  void OnDeviceRemovalRequested(const BusAddress& bus, uint16_t number, bool force) override {
    Add("remove ", bus, absl::StrCat(" ", number, force ? " force" : ""));
  }
  void OnDeviceVanished(const BusAddress& bus, uint16_t number) override {
    Add("device vanished ", bus, absl::StrCat(" ", number));
  }
  void OnDeviceRefused(const BusAddress& bus, const std::string& name,
                       const absl::Status& reason) override {
    Add("device refused ", bus, absl::StrCat(" ", name));
    reasons.push_back(std::string(reason.message()));
    if (on_device) on_device(bus, name);
  }
  void OnBusRefused(const std::string& path, const absl::Status& reason) override {
    lines_.push_back(absl::StrCat("bus refused ", path));
    reasons.push_back(std::string(reason.message()));
  }

  std::vector<std::string> reasons;

 private:
  static std::string View(const BusView& view) {
    return absl::StrCat(" front ", view.frontend.has_value() ? StateText(*view.frontend) : "gone",
                        " ours ", StateText(view.ours), view.online ? "" : " offline");
  }
  void Add(absl::string_view what, const BusAddress& bus, absl::string_view rest) {
    lines_.push_back(absl::StrCat(what, bus.frontend, "/", bus.id, rest));
  }
  std::vector<std::string> lines_;
};

}  // namespace vmsg::xenstore
