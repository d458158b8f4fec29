#include "vfs/shim/boundary.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace guildlite {
namespace {

constexpr int kLastTag = static_cast<int>(Tag::kPrecondition);

TEST(Boundary, OnlyOkIsOk) {
  for (int i = 0; i <= kLastTag; ++i) {
    const Tag tag = static_cast<Tag>(i);
    EXPECT_EQ(ResultCode(tag) == SQLITE_OK, tag == Tag::kOk) << TagName(tag);
    const Status status = tag == Tag::kOk ? Status::Ok() : Status(tag, "x");
    EXPECT_EQ(OpenCode(status) == SQLITE_OK, status.ok()) << TagName(tag);
    EXPECT_EQ(WriteLockCode(status) == SQLITE_OK, status.ok()) << TagName(tag);
    EXPECT_EQ(CommitCode(status) == SQLITE_OK, status.ok()) << TagName(tag);
  }
}

TEST(Boundary, CommitIsNeverToldBusyOrNotFound) {
  for (int i = 1; i <= kLastTag; ++i) {
    const int code = CommitCode(Status(static_cast<Tag>(i), "x")) & 0xff;
    EXPECT_NE(code, SQLITE_BUSY);
    EXPECT_NE(code, SQLITE_NOTFOUND);
  }
}

TEST(Boundary, CodesOfTheSurface) {
  EXPECT_EQ(ResultCode(Tag::kTimeout), SQLITE_BUSY);
  EXPECT_EQ(ResultCode(Tag::kFenced), SQLITE_READONLY);
  EXPECT_EQ(ResultCode(Tag::kChainBroken), SQLITE_CORRUPT);
  EXPECT_EQ(ResultCode(Tag::kNoBucket), SQLITE_CANTOPEN);
  for (const Tag tag : {Tag::kStoreUnreachable, Tag::kStoreDenied, Tag::kNoBucket, Tag::kFenced}) {
    EXPECT_EQ(OpenCode(Status(tag, "x")), SQLITE_CANTOPEN) << TagName(tag);
  }
  EXPECT_EQ(OpenCode(Status(Tag::kBusy, "x")), SQLITE_BUSY);
  EXPECT_EQ(OpenCode(Status(Tag::kLocalIo, "x")), SQLITE_IOERR);
  EXPECT_EQ(CommitCode(Status(Tag::kFenced, "x")), SQLITE_READONLY_DBMOVED);
  EXPECT_EQ(CommitCode(Status(Tag::kNotDurable, "x")), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(WriteLockCode(Status(Tag::kBusy, "x")), SQLITE_BUSY);
  EXPECT_EQ(WriteLockCode(Status(Tag::kOwned, "x")), SQLITE_READONLY);
}

TEST(Boundary, AnExceptionBecomesACode) {
  EXPECT_EQ(Guarded([]() -> int { throw std::bad_alloc(); }), SQLITE_NOMEM);
  EXPECT_EQ(Guarded([]() -> int { throw std::runtime_error("x"); }), SQLITE_IOERR);
  EXPECT_EQ(Guarded([]() -> int { throw 1; }, SQLITE_CANTOPEN), SQLITE_CANTOPEN);
  EXPECT_EQ(Guarded([] { return SQLITE_DONE; }), SQLITE_DONE);
  Shielded([] { throw std::runtime_error("x"); });
}

}  // namespace
}  // namespace guildlite
