// What a directory adds to the conformance suite: durability's traces, foreign files, permissions,
// other processes.
#include "vfs/objects/local_store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Local : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return root_ + "/" + name; }
  void WriteFile(const std::string& name, const std::string& content) const {
    std::ofstream(Path(name)) << content;
  }
  std::vector<std::string> Names(const std::string& directory = "") const {
    const auto names = ListDirectory(Path(directory));
    return names.ok() ? *names : std::vector<std::string>{names.status().ToString()};
  }

  TempDir directory_;
  std::string root_ = directory_.File("root");
  SimClock clock_;
  SimRandom random_{3};
  LocalStore store_{root_, clock_, random_};
};

TEST_F(Local, KeysAreFilesBelowTheRoot) {
  ASSERT_TRUE(store_.Put("manifest.json", "m", PutCondition::Create()).ok());
  ASSERT_TRUE(store_.Put("log/0000000000000001", "l", PutCondition::Create()).ok());
  EXPECT_THAT(Names(), ElementsAre("log", "manifest.json"));
  EXPECT_THAT(Names("log"), ElementsAre("0000000000000001"));
  EXPECT_EQ(*ReadWholeFile(Path("log/0000000000000001")), "l");
}

TEST_F(Local, LeavesNoTemporaryFilesBehind) {
  const auto v = store_.Put("k", "1", PutCondition::Create());
  ASSERT_TRUE(v.ok());
  EXPECT_FALSE(store_.Put("k", "2", PutCondition::Create()).ok());
  EXPECT_FALSE(store_.Put("k", "2", PutCondition::Match("x")).ok());
  EXPECT_TRUE(store_.Put("k", "2", PutCondition::Match(*v)).ok());
  EXPECT_TRUE(store_.Put("k", "3", PutCondition::Overwrite()).ok());
  EXPECT_THAT(Names(), ElementsAre(".guildlite-lock", "k"));
}

TEST_F(Local, CreatesOnlyTheLastComponentOfItsRoot) {
  LocalStore below(directory_.File("missing/root"), clock_, random_);
  for (const Status& status :
       {below.Get("k").status(), below.Delete("k"), below.List("", "", 1).status(),
        below.Put("k", "v", PutCondition::Create()).status()}) {
    EXPECT_EQ(status.tag(), Tag::kNoBucket) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr("missing/root"));
    EXPECT_THAT(status.message(), HasSubstr("mount its volume"));
  }
  EXPECT_FALSE(FileExists(directory_.File("missing")));
  EXPECT_EQ(store_.Get("k").status().tag(), Tag::kNotFound) << "the parent is there: empty";
  EXPECT_FALSE(FileExists(root_)) << "reading makes nothing";
}

TEST_F(Local, ARootThatIsAFileSaysSo) {
  std::ofstream(root_) << "a file";
  for (const Status& status :
       {store_.Get("k").status(), store_.List("", "", 1).status(), store_.Delete("k"),
        store_.Put("k", "v", PutCondition::Create()).status(),
        store_.Put("a/b", "v", PutCondition::Create()).status()}) {
    EXPECT_EQ(status.tag(), Tag::kNoBucket) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr(root_));
  }
}

TEST_F(Local, AFileWhereADirectoryIsNeededSaysSo) {
  ASSERT_TRUE(store_.Put("a", "v", PutCondition::Create()).ok());
  EXPECT_EQ(store_.Put("a/b", "v", PutCondition::Create()).status().tag(), Tag::kNoBucket);
  EXPECT_EQ(store_.Get("a/b").status().tag(), Tag::kNotFound);
  EXPECT_TRUE(store_.Delete("a/b").ok());
  ASSERT_TRUE(store_.Put("d/e", "v", PutCondition::Create()).ok());
  EXPECT_EQ(store_.Put("d", "v", PutCondition::Create()).status().tag(), Tag::kNoBucket);
  EXPECT_EQ(store_.Put("d", "v", PutCondition::Overwrite()).status().tag(), Tag::kNoBucket);
  EXPECT_EQ(store_.Get("d").status().tag(), Tag::kNotFound);
  EXPECT_TRUE(store_.Delete("d").ok());
  EXPECT_TRUE(FileExists(Path("d/e")));
  EXPECT_THAT(Names(), ElementsAre(".guildlite-lock", "a", "d")) << "no temporary file left";
}

TEST_F(Local, LeavesForeignFilesAlone) {
  ASSERT_TRUE(store_.Put("k", "v", PutCondition::Create()).ok());
  WriteFile("with space", "x");
  WriteFile(".tmp-0123456789abcdef", "in flight of another process");
  WriteFile(".tmp-notours", "x");
  ASSERT_EQ(::mkdir(Path("lost+found").c_str(), 0700), 0);
  ASSERT_EQ(::mkfifo(Path("fifo").c_str(), 0600), 0);
  ASSERT_EQ(::symlink(".", Path("cycle").c_str()), 0);
  const auto listed = store_.List("", "", 100);
  ASSERT_TRUE(listed.ok()) << listed.status().ToString();
  ASSERT_EQ(listed->size(), 1u);
  EXPECT_EQ((*listed)[0].key, "k");
  EXPECT_EQ(store_.Get("fifo").status().tag(), Tag::kLocalIo) << "and does not wait for a writer";
  EXPECT_THAT(Names(), ::testing::SizeIs(7));
}

TEST_F(Local, ItsOwnNamesAreNoKeys) {
  for (const char* key : {".guildlite-lock", ".tmp-0123456789abcdef", ".tmp-", "log/.tmp-1"}) {
    EXPECT_EQ(store_.Put(key, "v", PutCondition::Create()).status().tag(), Tag::kBadArgument);
    EXPECT_EQ(store_.Get(key).status().tag(), Tag::kBadArgument);
    EXPECT_EQ(store_.Delete(key).tag(), Tag::kBadArgument);
  }
}

TEST_F(Local, SweepsOldTemporaryFilesOfItsOwnOnce) {
  ASSERT_EQ(::mkdir(root_.c_str(), 0700), 0);
  for (const char* name : {".tmp-0000000000000001", ".tmp-0000000000000002", ".tmp-mine", "old"}) {
    WriteFile(name, "x");
    if (std::string(name) == ".tmp-0000000000000002") continue;
    std::filesystem::last_write_time(
        Path(name), std::filesystem::file_time_type::clock::now() - std::chrono::hours(25));
  }
  ASSERT_TRUE(store_.Put("k", "v", PutCondition::Create()).ok());
  EXPECT_THAT(Names(), ElementsAre(".tmp-0000000000000002", ".tmp-mine", "k", "old"));
}

TEST_F(Local, VersionsFollowTheContent) {
  const auto one = store_.Put("k", "one", PutCondition::Create());
  const auto two = store_.Put("k", "two", PutCondition::Match(*one));
  ASSERT_TRUE(two.ok());
  EXPECT_EQ(one->size(), 32u);
  WriteFile("k", "written by hand");
  EXPECT_EQ(store_.Put("k", "three", PutCondition::Match(*two)).status().tag(), Tag::kPrecondition);
  const auto part = store_.Get("k", ByteRange{0, 3});
  ASSERT_TRUE(part.ok());
  EXPECT_EQ(part->version, "") << "would need the whole object";
  EXPECT_EQ(store_.Put("k", "x", PutCondition::Match(part->version)).status().tag(),
            Tag::kPrecondition);
}

TEST_F(Local, GoesOnWhenADirectoryWasRemovedUnderIt) {
  ASSERT_TRUE(store_.Put("log/1", "v", PutCondition::Create()).ok());
  std::filesystem::remove_all(Path("log"));
  EXPECT_TRUE(store_.Put("log/2", "v", PutCondition::Create()).ok());
  std::filesystem::remove_all(root_);
  EXPECT_TRUE(store_.Put("log/3", "v", PutCondition::Create()).ok());
  EXPECT_TRUE(store_.Get("log/3").ok());
}

// A stopped process that holds the lock must not hang us; it is not needed for the log.
TEST_F(Local, TheWaitForTheLockIsBounded) {
  const auto v = store_.Put("k", "1", PutCondition::Create());
  ASSERT_TRUE(v.ok());
  {
    auto held = File::Open(Path(".guildlite-lock"), O_RDONLY | O_CREAT);
    ASSERT_TRUE(held.ok());
    ASSERT_EQ(::flock(held->fd(), LOCK_EX), 0);
    const int64_t start_ms = clock_.MonotonicMs();
    const auto put = store_.Put("k", "2", PutCondition::Match(*v));
    EXPECT_EQ(put.status().tag(), Tag::kStoreUnreachable) << put.status().ToString();
    EXPECT_TRUE(put.status().retryable());
    EXPECT_GE(clock_.MonotonicMs() - start_ms, LocalStore::kLockWaitMs);
    EXPECT_EQ(store_.Delete("k").tag(), Tag::kStoreUnreachable);
    EXPECT_TRUE(store_.Put("log/1", "v", PutCondition::Create()).ok());
  }
  EXPECT_TRUE(store_.Put("k", "2", PutCondition::Match(*v)).ok());
  EXPECT_THAT(Names(), ElementsAre(".guildlite-lock", "k", "log"));
}

TEST_F(Local, ALockFileThatIsReplacedIsTakenAgain) {
  const auto v = store_.Put("k", "1", PutCondition::Overwrite());
  ASSERT_TRUE(v.ok());
  auto held = File::Open(Path(".guildlite-lock"), O_RDONLY);
  ASSERT_TRUE(held.ok());
  ASSERT_EQ(::flock(held->fd(), LOCK_EX), 0);
  ASSERT_EQ(::unlink(Path(".guildlite-lock").c_str()), 0);
  EXPECT_TRUE(store_.Put("k", "2", PutCondition::Match(*v)).ok());
}

// Runs `body` in a child process; its exit code.
int InChild(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(Local, SwapsOfSeveralProcessesLoseNothing) {
  constexpr int kProcesses = 3, kRounds = 15;
  ASSERT_TRUE(store_.Put("counter", "0", PutCondition::Create()).ok());
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      LocalStore store(root_, SystemClock(), SystemRandom());
      for (int done = 0; done < kRounds;) {
        const auto read = store.Get("counter");
        if (!read.ok()) ::_exit(2);
        const auto put = store.Put("counter", std::to_string(std::stoi(read->bytes) + 1),
                                   PutCondition::Match(read->version));
        if (put.ok()) ++done;
        if (!put.ok() && put.status().tag() != Tag::kPrecondition) ::_exit(3);
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  EXPECT_EQ(store_.Get("counter")->bytes, std::to_string(kProcesses * kRounds));
}

// As root nothing is denied, so a child that is nobody asks.
TEST_F(Local, PermissionsAreDeniedNotMissing) {
  ASSERT_TRUE(store_.Put("log/1", "v", PutCondition::Create()).ok());
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(root_.c_str(), 0700), 0);
  if (::geteuid() == 0) {
    EXPECT_EQ(InChild([&] {
                if (::setgid(65534) != 0 || ::setuid(65534) != 0) return 1;
                LocalStore store(root_, SystemClock(), SystemRandom());
                if (store.Get("log/1").status().tag() != Tag::kStoreDenied) return 2;
                if (store.List("", "", 1).status().tag() != Tag::kStoreDenied) return 3;
                if (store.Delete("log/1").tag() != Tag::kStoreDenied) return 4;
                const auto put = store.Put("k", "v", PutCondition::Create());
                return put.status().tag() == Tag::kStoreDenied ? 0 : 5;
              }),
              0);
    // Readable, not writable; and a root that cannot be made.
    ASSERT_EQ(::chmod(root_.c_str(), 0755), 0);
    EXPECT_EQ(
        InChild([&] {
          if (::setgid(65534) != 0 || ::setuid(65534) != 0) return 1;
          LocalStore store(root_, SystemClock(), SystemRandom());
          if (store.Put("log/2", "v", PutCondition::Create()).status().tag() != Tag::kStoreDenied) {
            return 2;
          }
          LocalStore other(directory_.File("other"), SystemClock(), SystemRandom());
          if (other.Get("k").status().tag() != Tag::kNotFound) return 3;
          const auto put = other.Put("k", "v", PutCondition::Create());
          return put.status().tag() == Tag::kStoreDenied ? 0 : 4;
        }),
        0);
  } else {
    ASSERT_EQ(::chmod(root_.c_str(), 0), 0);
    EXPECT_EQ(store_.Get("log/1").status().tag(), Tag::kStoreDenied);
    EXPECT_EQ(store_.Put("k", "v", PutCondition::Create()).status().tag(), Tag::kStoreDenied);
    ASSERT_EQ(::chmod(root_.c_str(), 0700), 0);
  }
}

TEST_F(Local, WorksInADirectoryWhoseParentIsNotOurs) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs two users";
  ASSERT_EQ(::mkdir(root_.c_str(), 0700), 0);
  ASSERT_EQ(::chown(root_.c_str(), 65534, 65534), 0);
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0711), 0);  // may pass, may not open
  EXPECT_EQ(InChild([&] {
              if (::setgid(65534) != 0 || ::setuid(65534) != 0) return 1;
              LocalStore store(root_, SystemClock(), SystemRandom());
              return store.Put("log/1", "v", PutCondition::Create()).ok() ? 0 : 2;
            }),
            0);
}

TEST(StoreErrno, EachErrorSaysWhatItMeansForAStore) {
  struct Case {
    int error;
    Tag tag;
    bool retryable;
  };
  const Case cases[] = {
      {EACCES, Tag::kStoreDenied, false},     {EPERM, Tag::kStoreDenied, false},
      {EROFS, Tag::kStoreDenied, false},      {ENOSPC, Tag::kDiskFull, true},
      {EDQUOT, Tag::kDiskFull, true},         {ENOENT, Tag::kNoBucket, false},
      {ENOTDIR, Tag::kNoBucket, false},       {EISDIR, Tag::kNoBucket, false},
      {ELOOP, Tag::kBadUrl, false},           {ENAMETOOLONG, Tag::kBadUrl, false},
      {EXDEV, Tag::kStoreUnsafe, false},      {EOPNOTSUPP, Tag::kStoreUnsafe, false},
      {EIO, Tag::kStoreUnreachable, true},    {ESTALE, Tag::kStoreUnreachable, true},
      {EMFILE, Tag::kStoreUnreachable, true}, {EFBIG, Tag::kLocalIo, false},
  };
  for (const Case& c : cases) {
    const Status status = StoreErrnoStatus(c.error, "open", "/some/path");
    EXPECT_EQ(status.tag(), c.tag) << status.ToString();
    EXPECT_EQ(status.retryable(), c.retryable) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr("open /some/path: "));
  }
}

}  // namespace
}  // namespace guildlite
