// Writes of others wake the watch once for each time it was armed; it starts nothing before that,
// and a forked child can leave it behind.
#include "vfs/shim/stranger_watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "tests/shim/shim_fixture.h"

namespace guildlite::testing {
namespace {

using Paths = std::vector<std::string>;

size_t Threads() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

class Watch : public ::testing::Test {
 protected:
  Watch() {
    directory_ = std::filesystem::temp_directory_path() / "guildlite-watch-XXXXXX";
    if (!::mkdtemp(directory_.data())) std::abort();
    Append("a-wal");
    Append("b-wal");
  }
  ~Watch() override {
    watch_.Stop();
    std::filesystem::remove_all(directory_);
  }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  // By another descriptor than any of ours, as another process would.
  void Append(const std::string& name) {
    std::ofstream file(Path(name), std::ios::app);
    file << 'x';
    file.close();
    ASSERT_TRUE(file.good());
  }
  // What was reported since, once it is `count` paths.
  Paths Take(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        reported_.wait_for(lock, std::chrono::seconds(60), [&] { return wrote_.size() >= count; }));
    return std::exchange(wrote_, {});
  }
  // All that was written before has been looked at: events come in order.
  Paths TakeAll() {
    const std::string marker = "marker-" + std::to_string(++markers_);
    Append(marker);
    watch_.Arm(Path(marker));
    Append(marker);
    std::unique_lock lock(mutex_);
    const auto has_marker = [&] { return !wrote_.empty() && wrote_.back() == Path(marker); };
    EXPECT_TRUE(reported_.wait_for(lock, std::chrono::seconds(60), has_marker));
    Paths paths = std::exchange(wrote_, {});
    if (!paths.empty()) paths.pop_back();
    return paths;
  }

  std::string directory_;
  std::mutex mutex_;
  std::condition_variable reported_;
  Paths wrote_;
  int markers_ = 0;
  StrangerWatch watch_{[this](const std::string& path) {
    const std::lock_guard lock(mutex_);
    wrote_.push_back(path);
    reported_.notify_all();
  }};
};

TEST_F(Watch, ReportsAWriteByItsPath) {
  watch_.Arm(Path("a-wal"));
  Append("a-wal");
  EXPECT_EQ(Take(1), Paths{Path("a-wal")});
}

TEST_F(Watch, ReportsAWriteOfAnotherProcess) {
  watch_.Arm(Path("a-wal"));
  const std::string command = "echo x >> '" + Path("a-wal") + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(Take(1), Paths{Path("a-wal")});
}

TEST_F(Watch, IsArmedForOneWriteOnly) {
  watch_.Arm(Path("a-wal"));
  Append("a-wal");
  EXPECT_EQ(Take(1), Paths{Path("a-wal")});
  for (int i = 0; i < 10; ++i) Append("a-wal");
  EXPECT_EQ(TakeAll(), Paths{}) << "a busy file costs nothing";
  watch_.Arm(Path("a-wal"));
  Append("a-wal");
  EXPECT_EQ(TakeAll(), Paths{Path("a-wal")});
}

TEST_F(Watch, ArmedTwiceReportsOnce) {
  watch_.Arm(Path("a-wal"));
  watch_.Arm(Path("a-wal"));
  Append("a-wal");
  Append("a-wal");
  EXPECT_EQ(TakeAll(), Paths{Path("a-wal")});
}

TEST_F(Watch, DoesNotReportWhatWasWrittenBeforeNorReads) {
  Append("a-wal");
  watch_.Arm(Path("a-wal"));
  std::string content;
  std::ifstream(Path("a-wal")) >> content;
  EXPECT_EQ(content, "xx");
  EXPECT_EQ(TakeAll(), Paths{});
}

TEST_F(Watch, TellsFilesApart) {
  watch_.Arm(Path("a-wal"));
  watch_.Arm(Path("b-wal"));
  Append("b-wal");
  EXPECT_EQ(TakeAll(), Paths{Path("b-wal")});
  Append("a-wal");
  EXPECT_EQ(TakeAll(), Paths{Path("a-wal")});
}

TEST_F(Watch, DisarmedReportsNothingAndTheOthersStay) {
  watch_.Arm(Path("a-wal"));
  watch_.Arm(Path("b-wal"));
  watch_.Disarm(Path("a-wal"));
  watch_.Disarm(Path("never armed"));
  Append("a-wal");
  Append("b-wal");
  EXPECT_EQ(TakeAll(), Paths{Path("b-wal")});
  watch_.Arm(Path("a-wal"));
  Append("a-wal");
  EXPECT_EQ(TakeAll(), Paths{Path("a-wal")});
}

TEST_F(Watch, AMissingFileIsNotWatched) {
  watch_.Arm(Path("none"));
  Append("none");
  EXPECT_EQ(TakeAll(), Paths{});
  watch_.Arm(Path("none"));
  Append("none");
  EXPECT_EQ(TakeAll(), Paths{Path("none")});
}

TEST_F(Watch, ADeletedFileIsForgotten) {
  watch_.Arm(Path("a-wal"));
  std::filesystem::remove(Path("a-wal"));
  EXPECT_EQ(TakeAll(), Paths{});
  Append("a-wal");
  watch_.Arm(Path("a-wal"));
  Append("a-wal");
  EXPECT_EQ(TakeAll(), Paths{Path("a-wal")});
}

// The replicator arms it again from the very call that wakes it.
TEST_F(Watch, MayBeArmedAndDisarmedFromItsOwnCall) {
  std::mutex mutex;
  std::condition_variable changed;
  int calls = 0;
  StrangerWatch* self = nullptr;
  StrangerWatch watch([&](const std::string& path) {
    self->Disarm(Path("b-wal"));
    self->Arm(path);
    const std::lock_guard lock(mutex);
    ++calls;
    changed.notify_all();
  });
  self = &watch;
  for (int i = 1; i <= 5; ++i) {
    if (i == 1) watch.Arm(Path("a-wal"));
    Append("a-wal");
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return calls >= i; }));
  }
}

TEST_F(Watch, HasNoThreadAndNoDescriptorBeforeItIsArmedNorAfterStop) {
  const size_t threads = Threads();
  const size_t descriptors = OpenDescriptors();
  StrangerWatch watch([](const std::string&) {});
  watch.Disarm(Path("a-wal"));
  EXPECT_EQ(Threads(), threads);
  EXPECT_EQ(OpenDescriptors(), descriptors);
  watch.Arm(Path("a-wal"));
  watch.Arm(Path("b-wal"));
  EXPECT_EQ(Threads(), threads + 1) << "one for all";
  EXPECT_EQ(OpenDescriptors(), descriptors + 2);
  watch.Stop();
  EXPECT_EQ(OpenDescriptors(), descriptors);
  watch.Stop();
  watch.Arm(Path("a-wal"));
  EXPECT_EQ(OpenDescriptors(), descriptors) << "it does not start again";
}

TEST_F(Watch, StopsWithoutEverBeingArmed) { watch_.Stop(); }

// An exit code of its own for each thing that may be wrong: a child has no other way to say it.
int ChildLeavesItBehind(StrangerWatch& watch, const std::string& path, size_t descriptors) {
  watch.AbandonInChild();
  if (OpenDescriptors() != descriptors) return 2;
  watch.Arm(path);
  watch.Disarm(path);
  if (Threads() != 1) return 3;
  watch.Stop();
  watch.AbandonInChild();
  std::ofstream(path, std::ios::app) << 'x';
  return 0;
}

TEST_F(Watch, AForkedChildLeavesItBehindAndTheParentGoesOn) {
  const size_t descriptors = OpenDescriptors();
  watch_.Arm(Path("a-wal"));
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    ::_exit(ChildLeavesItBehind(watch_, Path("a-wal"), descriptors));
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(TakeAll(), Paths{Path("a-wal")}) << "the child wrote, as a stranger";
}

}  // namespace
}  // namespace guildlite::testing
