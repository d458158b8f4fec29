#include "vfs/replicate/sidecar.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "tests/support/temp_dir.h"
#include "vfs/base/bytes.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

class SidecarTest : public ::testing::Test {
 protected:
  std::string Folder() const { return dir_.File("app.db-guildlite"); }
  void FlipByte(const std::string& name, uint64_t offset) {
    auto file = File::Open(Folder() + "/" + name, O_RDWR);
    ASSERT_TRUE(file.ok());
    std::byte b[1];
    ASSERT_TRUE(file->ReadAt(offset, b).ok());
    b[0] ^= std::byte{1};
    ASSERT_TRUE(file->WriteAt(offset, b).ok());
  }
  static SidecarState State() {
    SidecarState s;
    s.lineage = Lineage(0xfedcba9876543210);
    s.epoch = Epoch(7);
    s.session = Session(UINT64_MAX);
    s.planned = Session(3);
    s.url = "s3://bucket/\"quoted\"/\xc3\xbc";
    s.options_json = R"({"sync_interval_ms":5})";
    s.device = 1ull << 60;
    s.inode = UINT64_MAX - 1;
    s.boot_id = "boot";
    return s;
  }

  TempDir dir_;
};

TEST_F(SidecarTest, IsNotCreatedByLookingAtIt) {
  Sidecar s(Folder());
  EXPECT_FALSE(s.Exists());
  EXPECT_FALSE(s.locked());
  EXPECT_FALSE(s.LockIsCurrent());
  auto state = s.ReadState();
  ASSERT_TRUE(state.ok());
  EXPECT_FALSE(state->has_value());
  EXPECT_FALSE(s.ReadClean().has_value());
  EXPECT_FALSE(FileExists(Folder()));
}

TEST_F(SidecarTest, IsHeldByOneAtATime) {
  Sidecar first(Folder()), second(Folder());
  ASSERT_TRUE(first.Lock().ok());
  ASSERT_TRUE(first.Lock().ok()) << "again is no change";
  EXPECT_EQ(second.Lock().tag(), Tag::kOwned);
  EXPECT_FALSE(second.locked());
  first.Unlock();
  EXPECT_TRUE(second.Lock().ok());
  EXPECT_EQ(first.Lock().tag(), Tag::kOwned);
}

TEST_F(SidecarTest, IsHeldByOneProcessAtATime) {
  Sidecar mine(Folder());
  ASSERT_TRUE(mine.Lock().ok());
  const auto lock_in_child = [&] {
    const pid_t pid = ::fork();
    if (pid == 0) {
      Sidecar theirs(Folder());
      ::_exit(theirs.Lock().tag() == Tag::kOwned ? 1 : 0);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WEXITSTATUS(status) == 0;
  };
  EXPECT_FALSE(lock_in_child());
  mine.Unlock();
  EXPECT_TRUE(lock_in_child());
}

// H13: a forked child inherits the flock; it must neither keep nor end it.
TEST_F(SidecarTest, AForkedChildNeitherKeepsNorEndsTheLock) {
  Sidecar mine(Folder());
  ASSERT_TRUE(mine.Lock().ok());
  int ready[2], leave[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(leave), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    mine.CloseInChild();
    char c = 0;
    (void)!::write(ready[1], &c, 1);
    (void)!::read(leave[0], &c, 1);
    ::_exit(0);
  }
  char c = 0;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  Sidecar other(Folder());
  EXPECT_EQ(other.Lock().tag(), Tag::kOwned) << "the parent still holds it";
  mine.Unlock();
  EXPECT_TRUE(other.Lock().ok()) << "the child does not";
  ASSERT_EQ(::write(leave[1], &c, 1), 1);
  ::waitpid(pid, nullptr, 0);
  for (const int fd : {ready[0], ready[1], leave[0], leave[1]}) ::close(fd);
}

TEST_F(SidecarTest, NoticesThatItsFolderWasDeletedOrReplaced) {
  Sidecar mine(Folder());
  ASSERT_TRUE(mine.Lock().ok());
  EXPECT_TRUE(mine.LockIsCurrent());
  std::filesystem::remove_all(Folder());
  EXPECT_FALSE(mine.LockIsCurrent());
  Sidecar other(Folder());
  ASSERT_TRUE(other.Lock().ok());
  EXPECT_FALSE(mine.LockIsCurrent());
  EXPECT_TRUE(other.LockIsCurrent());
}

TEST_F(SidecarTest, EveryRecordComesBackInAnotherProcess) {
  const WalLink link{1, 2, Txid(3), 4};
  const Acknowledged acknowledged{Slot(5), 6, Txid(7), 8, true, Lineage(9), Epoch(10)};
  const CleanClose clean{1, 2, 3, -4, 5, Txid(6), 7};
  {
    Sidecar s(Folder());
    ASSERT_TRUE(s.Lock().ok());
    EXPECT_FALSE(s.ReadLink() || s.ReadAcknowledged() || s.ReadClean() || s.ReadHealOwed());
    ASSERT_TRUE(s.WriteState(State()).ok());
    ASSERT_TRUE(s.WriteLink(link).ok());
    ASSERT_TRUE(s.WriteAcknowledged(acknowledged).ok());
    ASSERT_TRUE(s.WriteHealOwed(true).ok());
    ASSERT_TRUE(s.WriteClean(clean).ok());
  }
  Sidecar s(Folder());
  ASSERT_TRUE(s.Lock().ok());
  auto state = s.ReadState();
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(*state, State());
  SidecarState closed = State();
  closed.open = false;
  ASSERT_TRUE(s.WriteState(closed).ok());
  EXPECT_EQ(*s.ReadState(), closed);
  EXPECT_EQ(s.ReadLink(), link);
  EXPECT_EQ(s.ReadAcknowledged(), acknowledged);
  EXPECT_TRUE(s.ReadHealOwed());
  EXPECT_EQ(s.ReadClean(), clean);
  ASSERT_TRUE(s.WriteHealOwed(false).ok());
  EXPECT_FALSE(s.ReadHealOwed());
  ASSERT_TRUE(s.RemoveClean().ok());
  ASSERT_TRUE(s.RemoveClean().ok());
  EXPECT_FALSE(s.ReadClean().has_value());
}

TEST_F(SidecarTest, ARecordWithAnyByteWrongIsNoRecord) {
  Sidecar s(Folder());
  ASSERT_TRUE(s.Lock().ok());
  for (uint64_t at = 0; at < 32; ++at) {
    ASSERT_TRUE(s.WriteLink({1, 2, Txid(3), 4}).ok());
    FlipByte("cursor", at);
    EXPECT_FALSE(s.ReadLink().has_value()) << at;
  }
  for (uint64_t at = 0; at < 56; ++at) {
    ASSERT_TRUE(s.WriteAcknowledged({Slot(5), 6, Txid(7), 8, true, Lineage(9), Epoch(10)}).ok());
    FlipByte("cursor", 512 + at);
    EXPECT_FALSE(s.ReadAcknowledged().has_value()) << at;
  }
  for (uint64_t at = 0; at < 64; ++at) {
    ASSERT_TRUE(s.WriteClean({1, 2, 3, 4, 5, Txid(6), 7}).ok());
    FlipByte("clean", at);
    EXPECT_FALSE(s.ReadClean().has_value()) << at;
  }
  EXPECT_FALSE(s.ReadLink().has_value());
}

TEST_F(SidecarTest, AStateCutAnywhereIsNoState) {
  Sidecar s(Folder());
  ASSERT_TRUE(s.Lock().ok());
  ASSERT_TRUE(s.WriteState(State()).ok());
  const std::string path = Folder() + "/state";
  const std::string whole = *ReadWholeFile(path);
  for (size_t n = 0; n + 2 < whole.size(); ++n) {
    ASSERT_TRUE(ReplaceFile(path, whole.substr(0, n)).ok());
    auto state = s.ReadState();
    ASSERT_TRUE(state.ok());
    EXPECT_FALSE(state->has_value()) << n;
  }
}

TEST_F(SidecarTest, AForgottenStateLeavesTheLockAndNothingToGoOnFrom) {
  Sidecar s(Folder());
  ASSERT_TRUE(s.Lock().ok());
  ASSERT_TRUE(s.WriteState(State()).ok());
  ASSERT_TRUE(s.WriteLink({1, 2, Txid(3), 4}).ok());
  ASSERT_TRUE(s.WriteAcknowledged({Slot(5), 6, Txid(7), 8, true, Lineage(9), Epoch(10)}).ok());
  ASSERT_TRUE(s.WriteHealOwed(true).ok());
  ASSERT_TRUE(s.WriteClean({1, 2, 3, 4, 5, Txid(6), 7}).ok());
  ASSERT_TRUE(s.pages().WriteAt(0, AsBytes("table")).ok());
  ASSERT_TRUE(s.ForgetState().ok());
  EXPECT_TRUE(s.LockIsCurrent());
  EXPECT_FALSE(s.ReadState()->has_value());
  EXPECT_FALSE(s.ReadLink() || s.ReadAcknowledged() || s.ReadClean() || s.ReadHealOwed());
  EXPECT_EQ(*s.pages().Size(), 0u);
}

}  // namespace
}  // namespace guildlite
