#include "vfs/base/file_io.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "tests/support/temp_dir.h"
#include "vfs/base/bytes.h"

namespace guildlite {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FileIo : public ::testing::Test {
 protected:
  TempDir directory_;
  std::string path_ = directory_.File("f");
};

TEST_F(FileIo, ReadsAndWritesWhereTold) {
  auto file = File::Open(path_, O_RDWR | O_CREAT);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_TRUE(file->is_open());
  EXPECT_EQ(file->path(), path_);
  ASSERT_TRUE(file->WriteAt(4, AsBytes("data")).ok());
  EXPECT_EQ(*file->Size(), 8u);
  std::string out(6, 'x');
  const auto buffer = std::as_writable_bytes(std::span(out.data(), out.size()));
  EXPECT_EQ(*file->ReadAt(2, buffer), 6u);
  EXPECT_EQ(out, std::string("\0\0data", 6));
  EXPECT_EQ(*file->ReadAt(6, buffer), 2u) << "short only at the end";
  EXPECT_EQ(*file->ReadAt(100, buffer), 0u);
  EXPECT_TRUE(file->Sync().ok());
  EXPECT_TRUE(file->SyncData().ok());
  ASSERT_TRUE(file->Truncate(3).ok());
  EXPECT_EQ(*file->Size(), 3u);
}

TEST_F(FileIo, DescriptorsMoveCloseAndDoNotLeakIntoPrograms) {
  auto opened = File::Open(path_, O_RDWR | O_CREAT);
  ASSERT_TRUE(opened.ok());
  const int fd = opened->fd();
  EXPECT_EQ(::fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  File moved = *std::move(opened);
  EXPECT_EQ(moved.fd(), fd);
  File other;
  EXPECT_FALSE(other.is_open());
  other = std::move(moved);
  EXPECT_EQ(other.fd(), fd);
  other.Close();
  EXPECT_FALSE(other.is_open());
  EXPECT_EQ(::fcntl(fd, F_GETFD), -1);
  EXPECT_EQ(other.Sync().tag(), Tag::kLocalIo) << "an error, not somebody else's descriptor";
}

TEST_F(FileIo, ErrorsNameThePathAndTheReason) {
  const auto missing = File::Open(directory_.File("none"), O_RDONLY);
  EXPECT_EQ(missing.status().tag(), Tag::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr(directory_.File("none")));
  EXPECT_THAT(missing.status().message(), HasSubstr("No such file"));
  EXPECT_EQ(ErrnoStatus(ENOSPC, "write", "p").tag(), Tag::kDiskFull);
  EXPECT_EQ(ErrnoStatus(EDQUOT, "write", "p").tag(), Tag::kDiskFull);
  EXPECT_EQ(ErrnoStatus(EIO, "write", "p").tag(), Tag::kLocalIo);
  EXPECT_FALSE(ErrnoStatus(EIO, "write", "p").retryable());
  EXPECT_EQ(ReadWholeFile(directory_.File("none")).status().tag(), Tag::kNotFound);
  EXPECT_EQ(IdentityOf(directory_.File("none")).status().tag(), Tag::kNotFound);
  EXPECT_FALSE(ListDirectory(directory_.File("none")).ok());
  const auto full = File::Open("/dev/full", O_WRONLY);
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->WriteAt(0, AsBytes("x")).tag(), Tag::kDiskFull);
}

TEST_F(FileIo, ReplaceIsWholeAndLeavesNothingBehind) {
  ASSERT_TRUE(ReplaceFile(path_, "one").ok());
  const auto before = IdentityOf(path_);
  ASSERT_TRUE(ReplaceFile(path_, "two, longer").ok());
  EXPECT_EQ(*ReadWholeFile(path_), "two, longer");
  EXPECT_FALSE(IdentityOf(path_)->SameFile(*before)) << "a new file, renamed over the old";
  ASSERT_TRUE(ReplaceFile(path_, "").ok());
  EXPECT_EQ(*ReadWholeFile(path_), "");
  EXPECT_THAT(*ListDirectory(directory_.path()), ElementsAre("f"));
  ASSERT_TRUE(MakeDirectory(directory_.File("d")).ok());
  EXPECT_FALSE(ReplaceFile(directory_.File("d"), "x").ok());
  EXPECT_THAT(*ListDirectory(directory_.path()), ElementsAre("d", "f"));
}

TEST_F(FileIo, IdentityFollowsTheInodeAndItsTimes) {
  ASSERT_TRUE(ReplaceFile(path_, "abc").ok());
  const auto file = File::Open(path_, O_RDWR);
  ASSERT_TRUE(file.ok());
  const auto by_name = IdentityOf(path_);
  const auto by_descriptor = file->Identity();
  ASSERT_TRUE(by_name.ok() && by_descriptor.ok());
  EXPECT_EQ(*by_name, *by_descriptor);
  EXPECT_EQ(by_name->size, 3u);
  EXPECT_GT(by_name->mtime_ns, int64_t{1'600'000'000} * 1'000'000'000);
  ASSERT_TRUE(file->WriteAt(3, AsBytes("d")).ok());
  EXPECT_NE(*file->Identity(), *by_name);
  EXPECT_TRUE(file->Identity()->SameFile(*by_name));
}

TEST_F(FileIo, DirectoriesAndNames) {
  ASSERT_TRUE(MakeDirectory(directory_.File("b")).ok());
  EXPECT_TRUE(MakeDirectory(directory_.File("b")).ok());
  EXPECT_FALSE(MakeDirectory(directory_.File("no/such")).ok());
  ASSERT_TRUE(ReplaceFile(directory_.File("a"), "").ok());
  EXPECT_THAT(*ListDirectory(directory_.path()), ElementsAre("a", "b"));
  EXPECT_TRUE(SyncDirectory(directory_.path()).ok());
  EXPECT_FALSE(SyncDirectory(directory_.File("a")).ok()) << "not a directory";
  EXPECT_TRUE(FileExists(directory_.File("a")));
  EXPECT_TRUE(RemoveFile(directory_.File("a")).ok());
  EXPECT_TRUE(RemoveFile(directory_.File("a")).ok());
  EXPECT_FALSE(FileExists(directory_.File("a")));
  EXPECT_FALSE(RemoveFile(directory_.File("b")).ok()) << "a directory is not removed";
  EXPECT_EQ(DirectoryOf("/a/b"), "/a");
  EXPECT_EQ(DirectoryOf("/a"), "/");
  EXPECT_EQ(DirectoryOf("a"), ".");
  EXPECT_EQ(BaseName("/a/b"), "b");
  EXPECT_EQ(BaseName("b"), "b");
  EXPECT_EQ(BaseName("/a/"), "");
}

TEST_F(FileIo, TheBootIdIsStable) {
  EXPECT_EQ(BootId(), BootId());
  EXPECT_EQ(BootId().size(), FileExists("/proc/sys/kernel/random/boot_id") ? 36u : 0u);
}

}  // namespace
}  // namespace guildlite
