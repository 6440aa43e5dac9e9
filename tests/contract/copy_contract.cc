// SPDX-License-Identifier: Apache-2.0
// Copying a granted page, in one domain and between two.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "tests/contract/event_pair.h"
#include "tests/contract/xen_under_test.h"

namespace vmsg::test {
namespace {

using grants::Access;
using grants::DomainId;
using grants::GrantRef;
using grants::kPageSize;

// Not aligned, so that the copy lies in two pages.
class Buffer {
 public:
  std::span<std::byte, kPageSize> page() { return std::span(bytes_).subspan<64, kPageSize>(); }
  bool holds(std::byte value) {
    return std::all_of(page().begin(), page().end(), [value](std::byte b) { return b == value; });
  }

 private:
  alignas(kPageSize) std::array<std::byte, 2 * kPageSize> bytes_ = {};
};

absl::StatusCode CodeOfCopy(grants::GrantMapper& mapper, DomainId domain, GrantRef ref) {
  Buffer buffer;
  const absl::StatusCode code = mapper.Copy(domain, ref, buffer.page()).code();
  EXPECT_TRUE(buffer.holds(std::byte{0})) << "domain " << domain << " grant " << ref;
  return code;
}

TEST_P(GrantContract, ACopyIsTheWholePageAndStaysAsItIs) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  for (const Access access : {Access::kReadOnly, Access::kReadWrite}) {
    auto shared = sharer->Share(xen_->backend.id, 2, access);
    ASSERT_TRUE(shared.ok()) << shared.status();
    memset(shared->bytes().data(), 1, kPageSize);
    memset(shared->bytes().data() + kPageSize, 2, kPageSize);
    Buffer buffer;
    const absl::Status copied = mapper->Copy(xen_->guest.id, shared->refs()[1], buffer.page());
    ASSERT_TRUE(copied.ok()) << copied;
    memset(shared->bytes().data() + kPageSize, 3, kPageSize);
    EXPECT_TRUE(buffer.holds(std::byte{2}));
    EXPECT_EQ(*xen_->MappingsLeft(), 0);
  }
}

TEST_P(GrantContract, RefusesToCopyWhatIsNotGrantedToUs) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto other = sharer->Share(xen_->backend.id + 1000, 1, Access::kReadWrite);
  ASSERT_TRUE(other.ok()) << other.status();
  auto ended = sharer->Share(xen_->backend.id, 1, Access::kReadWrite);
  ASSERT_TRUE(ended.ok()) << ended.status();
  const GrantRef ended_ref = ended->refs()[0];
  ended->Reset();
  for (const GrantRef ref :
       {other->refs()[0], ended_ref, GrantRef{30'000}, GrantRef{1} << 20, ~GrantRef{0}}) {
    EXPECT_EQ(CodeOfCopy(*mapper, xen_->guest.id, ref), absl::StatusCode::kInvalidArgument) << ref;
  }
}

TEST_P(GrantContract, RefusesToCopyReservedReferences) {
  auto mapper = Mapper();
  for (GrantRef ref = 0; ref < grants::kReservedGrantRefs; ++ref) {
    EXPECT_EQ(CodeOfCopy(*mapper, xen_->guest.id, ref), absl::StatusCode::kInvalidArgument) << ref;
  }
}

TEST_P(GrantContract, RefusesToCopyFromADomainThatDoesNotExist) {
  auto mapper = Mapper();
  for (const int domain : {0x7000, 0x7ff0, 0x7ff4, 0xffff}) {
    EXPECT_EQ(CodeOfCopy(*mapper, domain, 8), absl::StatusCode::kInvalidArgument) << domain;
  }
}

TEST_P(PeerContract, CopiesWhatTheGuestShares) {
  auto mapper = Mapper();
  auto peer = PeerProcess::Start(xen_->guest, Words("share", xen_->backend.id, {3}));
  ASSERT_EQ(peer->answer().size(), 3u);
  for (const GrantRef ref : peer->answer()) {
    Buffer buffer;
    const absl::Status copied = mapper->Copy(xen_->guest.id, ref, buffer.page());
    ASSERT_TRUE(copied.ok()) << copied;
    EXPECT_TRUE(buffer.holds(std::byte{0x5a})) << ref;
  }
}

}  // namespace
}  // namespace vmsg::test
