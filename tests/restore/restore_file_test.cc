// The file by itself; what a restore makes of it is in restorer_test.cc.
#include "vfs/restore/restore_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "vfs/base/bytes.h"

namespace guildlite {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class FixedRandom : public Random {
 public:
  uint64_t Next64() override { return next++; }
  uint64_t next = 1;
};

class RestoreFileTest : public ::testing::Test {
 protected:
  RestoreFileTest() {
    std::string dir = ::testing::TempDir() + "guildlite-file-XXXXXX";
    directory_ = ::mkdtemp(dir.data());
    path_ = directory_ + "/app.db";
  }
  ~RestoreFileTest() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<RestoreFile> Create() {
    auto file = RestoreFile::Create(directory_, "app.db", random_);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    return file.ok() ? *std::move(file) : nullptr;
  }
  std::vector<std::string> Names() const { return *ListDirectory(directory_); }

  std::string directory_;
  std::string path_;
  FixedRandom random_;
};

TEST_F(RestoreFileTest, ReadsSeeWritesWhateverIsGathered) {
  const auto file = Create();
  std::mt19937_64 random(1);
  std::string model;
  const auto dice = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (int i = 0; i < 3000; i++) {
    const size_t at = dice(4) == 0 ? dice(model.size() + 1) : model.size();
    const std::string bytes(1 + dice(dice(50) == 0 ? 600'000 : 2000),
                            static_cast<char>('a' + dice(26)));
    ASSERT_TRUE(file->Write(at, AsBytes(bytes)).ok());
    model.resize(std::max(model.size(), at + bytes.size()));
    model.replace(at, bytes.size(), bytes);
    if (dice(10) == 0) {
      model.resize(dice(model.size() + 1000));
      ASSERT_TRUE(file->Resize(model.size()).ok());
    }
    if (model.empty()) continue;
    const size_t from = dice(model.size());
    std::string out(1 + dice(std::min<size_t>(model.size() - from, 5000)), '\0');
    ASSERT_TRUE(file->Read(from, std::as_writable_bytes(std::span(out.data(), out.size()))).ok());
    ASSERT_TRUE(out == model.substr(from, out.size())) << "step " << i;
  }
  ASSERT_TRUE(file->Publish(path_).ok());
  EXPECT_TRUE(*ReadWholeFile(path_) == model);
}

TEST_F(RestoreFileTest, DoesNotReadBeyondItsEnd) {
  const auto file = Create();
  ASSERT_TRUE(file->Write(0, AsBytes("abc")).ok());
  std::byte out[4];
  EXPECT_EQ(file->Read(0, out).tag(), Tag::kLocalIo);
}

TEST_F(RestoreFileTest, GoesUnlessPublished) {
  { const auto file = Create(); }
  EXPECT_THAT(Names(), IsEmpty());
  const auto file = Create();
  EXPECT_THAT(Names(), ElementsAre(".app.db.guildlite-restore-0000000000000002"));
  file->Unlink();
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(RestoreFileTest, HasNoDescriptorOfOursOnceItHasItsName) {
  const auto file = Create();
  ASSERT_TRUE(file->Write(0, AsBytes("abc")).ok());
  ASSERT_TRUE(file->Publish(path_).ok());
  EXPECT_THAT(Names(), ElementsAre("app.db"));
  for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the iterator's own
    const auto target = std::filesystem::read_symlink(fd.path(), gone);
    EXPECT_FALSE(target.string().starts_with(directory_)) << target;
  }
}

TEST_F(RestoreFileTest, IsNotPublishedOverAnything) {
  const auto file = Create();
  ASSERT_TRUE(ReplaceFile(path_, "mine").ok());
  EXPECT_EQ(file->Publish(path_).tag(), Tag::kExists);
  EXPECT_EQ(*ReadWholeFile(path_), "mine");
}

TEST_F(RestoreFileTest, LeavesARunningOneAndTakesAnotherNameThanItsOwn) {
  const auto first = Create();
  random_.next = 1;
  const auto second = Create();
  EXPECT_NE(first->temp_path(), second->temp_path());
  EXPECT_EQ(Names().size(), 2u);
}

}  // namespace
}  // namespace guildlite
