// SPDX-License-Identifier: Apache-2.0
// Every way a directory can break the rules, by name. Each is refused with the position and the
// value, and leaves nothing mapped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grants/directory.h"
#include "tests/grants/fake_mapper.h"

namespace vmsg::grants {
namespace {

using testing::HasSubstr;

constexpr DirectoryLimits kRefusalLimits{.max_pages = 4096};

class DirectoryRefusal : public testing::Test {
 protected:
  // Directory pages 100, 101, ... and window pages 5000, 5001, ...
  std::span<std::byte> Put(uint32_t pages) {
    return PutDirectory(mapper_, Sequence(100, DirectoryPagesFor(pages)), Sequence(5000, pages));
  }

  void ExpectRefused(uint32_t pages, const std::string& text,
                     absl::StatusCode code = absl::StatusCode::kInvalidArgument,
                     GrantRef first = 100) {
    const auto mapping = MapWindow(mapper_, FakeMapper::kGuest, first, pages, kRefusalLimits);
    ASSERT_FALSE(mapping.ok());
    EXPECT_EQ(mapping.status().code(), code) << mapping.status();
    EXPECT_THAT(std::string(mapping.status().message()), HasSubstr(text));
    EXPECT_EQ(mapper_.live_mappings(), 0u);
    for (const FakeMapper::Call& call : mapper_.calls()) {
      EXPECT_EQ(call.refs.size(), 1u) << "window pages were mapped";
    }
  }

  FakeMapper mapper_;
};

TEST_F(DirectoryRefusal, NoPages) {
  ExpectRefused(0, "directory-pages is 0");
  EXPECT_TRUE(mapper_.calls().empty());
}

TEST_F(DirectoryRefusal, OneMoreThanTheCapBeforeAnythingIsMapped) {
  Put(1);
  ExpectRefused(4097, "directory-pages 4097 is over max-window-pages 4096",
                absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(mapper_.calls().empty());
}

TEST_F(DirectoryRefusal, TheLargestCountBeforeAnythingIsMapped) {
  Put(1);
  ExpectRefused(UINT32_MAX, "directory-pages 4294967295", absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(mapper_.calls().empty());
}

TEST_F(DirectoryRefusal, EndsEarlyAfterTheFirstPage) {
  DirectoryWord(Put(2047), 0, 0) = 0;
  ExpectRefused(2047, "directory page 0 of 3 (grant 100): the list ends 1024 window pages early");
}

TEST_F(DirectoryRefusal, EndsOnePageEarly) {
  DirectoryWord(Put(2047), 1, 0) = 0;
  ExpectRefused(2047, "directory page 1 of 3 (grant 101): the list ends 1 window pages early");
}

TEST_F(DirectoryRefusal, GoesOnAfterTheLastPage) {
  DirectoryWord(Put(1023), 0, 0) = 900;
  mapper_.Grant(900);
  ExpectRefused(1023, "directory page 0 of 1 (grant 100): the list goes on with grant 900");
  EXPECT_EQ(mapper_.calls().size(), 1u) << "the page too many is not visited";
}

TEST_F(DirectoryRefusal, PageFollowsItself) {
  DirectoryWord(Put(1024), 0, 0) = 100;
  ExpectRefused(1024, "its next page, grant 100, is directory page 0 again");
}

TEST_F(DirectoryRefusal, LastPageFollowsItself) {
  DirectoryWord(Put(5), 0, 0) = 100;
  ExpectRefused(5, "its next page, grant 100, is directory page 0 again");
}

TEST_F(DirectoryRefusal, LoopsBackToTheFirstPage) {
  DirectoryWord(Put(4000), 2, 0) = 100;
  ExpectRefused(4000,
                "directory page 2 of 4 (grant 102): its next page, grant 100, is directory "
                "page 0 again");
}

class ReservedReference : public DirectoryRefusal, public testing::WithParamInterface<GrantRef> {};

TEST_P(ReservedReference, AsFirstDirectoryPageBeforeTheHypervisorIsAsked) {
  mapper_.Grant(GetParam());
  ExpectRefused(1, "is reserved by Xen", absl::StatusCode::kInvalidArgument, GetParam());
  EXPECT_TRUE(mapper_.calls().empty());
}

TEST_P(ReservedReference, AsWindowPage) {
  DirectoryWord(Put(2000), 1, 7) = GetParam();
  mapper_.Grant(GetParam());
  ExpectRefused(2000, "window page " + std::to_string(1023 + 6) + ": grant " +
                          std::to_string(GetParam()) + " is reserved by Xen");
}

INSTANTIATE_TEST_SUITE_P(Grants, ReservedReference, testing::Range(0u, 8u));

class ReservedNext : public DirectoryRefusal, public testing::WithParamInterface<GrantRef> {};

TEST_P(ReservedNext, AsNextDirectoryPageBeforeTheHypervisorIsAsked) {
  DirectoryWord(Put(2000), 0, 0) = GetParam();
  mapper_.Grant(GetParam());
  ExpectRefused(2000, "directory page 1 of 2 (grant " + std::to_string(GetParam()) + "): grant " +
                          std::to_string(GetParam()) + " is reserved by Xen");
  EXPECT_EQ(mapper_.calls().size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Grants, ReservedNext, testing::Range(1u, 8u));

TEST_F(DirectoryRefusal, WindowPageTwiceSideBySide) {
  DirectoryWord(Put(10), 0, 5) = 5003;
  ExpectRefused(10, "window page 4: grant 5003 is window page 3 already");
}

TEST_F(DirectoryRefusal, WindowPageTwiceFirstAndLastAcrossDirectoryPages) {
  DirectoryWord(Put(2047), 2, 1) = 5000;
  ExpectRefused(2047, "window page 2046: grant 5000 is window page 0 already");
}

TEST_F(DirectoryRefusal, HighestReferenceTwice) {
  const std::span<std::byte> view = Put(1023);
  DirectoryWord(view, 0, 1) = 0xffffffff;
  DirectoryWord(view, 0, 1023) = 0xffffffff;
  ExpectRefused(1023, "window page 1022: grant 4294967295 is window page 0 already");
}

TEST_F(DirectoryRefusal, WindowPageTwiceAmongLowReferences) {
  // References this low are checked by bits, not by sorting.
  std::vector<GrantRef> window = Sequence(20, 1023);
  window[700] = window[699];
  PutDirectory(mapper_, std::vector<GrantRef>{10}, window);
  ExpectRefused(1023, "window page 700: grant 719 is window page 699 already",
                absl::StatusCode::kInvalidArgument, 10);
}

TEST_F(DirectoryRefusal, WindowPageIsItsOwnDirectoryPage) {
  DirectoryWord(Put(10), 0, 3) = 100;
  ExpectRefused(10, "window page 2: grant 100 is directory page 0 already");
}

TEST_F(DirectoryRefusal, WindowPageIsALaterDirectoryPage) {
  DirectoryWord(Put(2000), 0, 3) = 101;
  ExpectRefused(2000, "window page 2: grant 101 is directory page 1 already");
}

TEST_F(DirectoryRefusal, NextPageIsAWindowPage) {
  const std::span<std::byte> view = Put(2000);
  mapper_.Grant(5005);
  DirectoryWord(view, 0, 0) = 5005;
  // Page 5005 is empty, so its first entry is refused before the repetition could be seen.
  ExpectRefused(2000, "window page 1023: grant 0 is reserved by Xen");
}

TEST_F(DirectoryRefusal, DirectoryPageThatIsNotGrantedNamesThePosition) {
  DirectoryWord(Put(2000), 0, 0) = 777;
  ExpectRefused(2000, "directory page 1 of 2 (grant 777): unused 777");
}

TEST(WindowRefusal, WindowPageThatIsNotGrantedMapsNothing) {
  FakeMapper mapper;
  mapper.GrantRange(5000, 9);  // the tenth is missing
  PutDirectory(mapper, std::vector<GrantRef>{100}, Sequence(5000, 10));
  const auto mapping = MapWindow(mapper, FakeMapper::kGuest, 100, 10, kRefusalLimits);
  EXPECT_EQ(mapping.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(mapping.status().message()), HasSubstr("window of 10 pages: unused"));
  EXPECT_EQ(mapper.live_mappings(), 0u);
}

}  // namespace
}  // namespace vmsg::grants
