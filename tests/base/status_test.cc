#include "guildlite/status.h"

#include <gtest/gtest.h>

#include <cctype>
#include <memory>
#include <set>
#include <string>

namespace guildlite {
namespace {

TEST(Status, SaysTagAndStory) {
  EXPECT_TRUE(Status().ok());
  EXPECT_EQ(Status::Ok().ToString(), "OK");
  const Status status(Tag::kFenced, "epoch 3", true);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.ToString(), "FENCED: epoch 3");
  EXPECT_TRUE(status.retryable());
}

TEST(Status, ContextGoesInFrontAndKeepsTheRest) {
  const Status status = Status(Tag::kDiskFull, "write x", true).Context("snapshot");
  EXPECT_EQ(status.ToString(), "DISK_FULL: snapshot: write x");
  EXPECT_TRUE(status.retryable());
  EXPECT_TRUE(Status::Ok().Context("anything").ok());
  EXPECT_EQ(Status::Ok().Context("anything").message(), "");
}

TEST(Status, EveryTagHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(Tag::kPrecondition); ++i) {
    const std::string_view name = TagName(static_cast<Tag>(i));
    EXPECT_NE(name, "UNKNOWN") << i;
    EXPECT_TRUE(names.insert(name).second) << name;
    for (const char c : name) EXPECT_TRUE(std::isupper(c) || c == '_') << name;
  }
}

TEST(Result, HoldsAValueOrAStatus) {
  Result<std::string> value = std::string("v");
  ASSERT_TRUE(value.ok());
  EXPECT_TRUE(value.status().ok());
  EXPECT_EQ(*value, "v");
  EXPECT_EQ(value->size(), 1u);
  const Result<std::string> error(Tag::kNotFound, "none");
  EXPECT_FALSE(error.ok());
  EXPECT_EQ(error.status().tag(), Tag::kNotFound);
}

TEST(Result, MovesItsValueOut) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  const std::unique_ptr<int> owned = *std::move(result);
  EXPECT_EQ(*owned, 7);
}

Status ReturnsEarly(const Status& status, bool* reached) {
  GUILDLITE_RETURN_IF_ERROR(status);
  *reached = true;
  return Status::Ok();
}

TEST(Status, ReturnIfErrorReturnsOnlyErrors) {
  bool reached = false;
  EXPECT_EQ(ReturnsEarly(Status(Tag::kBusy, "b"), &reached).tag(), Tag::kBusy);
  EXPECT_FALSE(reached);
  EXPECT_TRUE(ReturnsEarly(Status::Ok(), &reached).ok());
  EXPECT_TRUE(reached);
}

}  // namespace
}  // namespace guildlite
