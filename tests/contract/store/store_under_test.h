// SPDX-License-Identifier: Apache-2.0
// The contract of xenstore/store.h with the xenstored behind it, as bodies that run in any domain:
// each is a TEST_P over one of these fixtures, compiled into a program that instantiates the suites
// with its own StoreUnderTest.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "xenstore/store.h"

namespace vmsg::test {

// The xenstored of a machine, as one of its domains sees it.
class StoreUnderTest {
 public:
  virtual ~StoreUnderTest() = default;
  // A connection of its own.
  virtual absl::StatusOr<std::unique_ptr<xenstore::Store>> Open() = 0;

  uint16_t domain = 0;  // this one
  uint16_t other = 0;   // another that exists
};

struct StoreFactory {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<StoreUnderTest>>()> make;
};
inline void PrintTo(const StoreFactory& factory, std::ostream* out) { *out << factory.name; }
inline std::string StoreFactoryName(const ::testing::TestParamInfo<StoreFactory>& info) {
  return info.param.name;
}

// What holds in every domain. Everything happens below one node, which is gone afterwards.
class StoreContract : public ::testing::TestWithParam<StoreFactory> {
 protected:
  static constexpr char kBase[] = "data/store-contract";

  void SetUp() override;
  void TearDown() override;

  std::unique_ptr<xenstore::Store> Open();
  std::string Home() const;  // absolute: the home of this domain
  // Below kBase: relative to the home, and absolute.
  static std::string Node(const std::string& name) { return std::string(kBase) + "/" + name; }
  std::string Absolute(const std::string& name) const { return Home() + "/" + Node(name); }

  // The next events, "token path" each, as many as `count` at least; waited for.
  static std::vector<std::string> Events(xenstore::Store& store, size_t count = 1);

  std::unique_ptr<StoreUnderTest> xen_;
  std::unique_ptr<xenstore::Store> store_;
};

// What a domain without privilege meets.
class GuestStoreContract : public StoreContract {};
// What the control domain may do, over the socket of its xenstored.
class Dom0StoreContract : public StoreContract {};

}  // namespace vmsg::test
