// What is deleted, when, and what never is. The sweeper beside a compactor: compactor_test.cc.
#include "vfs/replicate/sweeper.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

#include "tests/support/fault_store.h"
#include "tests/support/log_fixture.h"
#include "tests/support/sim_clock.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using testing::LogFixture;

class SweeperTest : public ::testing::Test {
 protected:
  SweeperTest() {
    std::mt19937_64 random(1);
    log_.Snapshot();
    for (int i = 0; i < 8; ++i) {
      log_.CommitRandom(random);
      log_.Ship();
    }
    log_.Snapshot();
  }
  bool Exists(const std::string& key) { return memory_.Get(key).ok(); }
  void Put(const std::string& key) {
    ASSERT_TRUE(memory_.Put(key, "x", PutCondition::Create()).ok());
  }
  void Bury(const std::string& key, Slot last = Slot(0)) {
    log_.manifest().floor = log_.next_slot();
    log_.manifest().tombstones.push_back({key, last, clock_.NowMs(), {}});
    log_.SaveManifest();
  }
  // Until it rests; when it wants to be called again.
  int64_t Run(Sweeper& sweeper) {
    for (int i = 0; i < 100; ++i) {
      const int64_t now = clock_.MonotonicMs();
      const int64_t next = sweeper.Step(now);
      if (next > now) return next;
    }
    ADD_FAILURE() << "never at rest";
    return 0;
  }

  MemoryStore memory_;
  FaultStore store_{memory_};
  SimClock clock_;
  SimRandom random_{3};
  LogFixture log_{memory_, {.page_size = 512, .part_bytes = 300}};
  Sweeper sweeper_{clock_, random_, store_, {.grace_ms = 1000, .batch = 3}};
};

TEST_F(SweeperTest, WithNothingToDoItAsksNothing) {
  sweeper_.Begin(ReadManifest(memory_)->manifest);
  EXPECT_EQ(Run(sweeper_), Task::kIdle);
  EXPECT_EQ(store_.calls(FaultStore::kAny), 0u);
}

TEST_F(SweeperTest, ATombstoneWaitsForItsGraceTime) {
  Bury(LogKey(Slot(3)), Slot(7));
  sweeper_.Begin(ReadManifest(memory_)->manifest);
  EXPECT_EQ(Run(sweeper_), clock_.MonotonicMs() + 1000);
  EXPECT_TRUE(Exists(LogKey(Slot(3))));
  clock_.Advance(1000);
  EXPECT_EQ(Run(sweeper_), Task::kIdle);
  for (uint64_t s = 1; s <= 8; ++s) EXPECT_EQ(Exists(LogKey(Slot(s))), s < 3 || s > 7) << s;
  EXPECT_TRUE(ReadManifest(memory_)->manifest.tombstones.empty());
  EXPECT_EQ(sweeper_.counters().deleted, 5u);
}

TEST_F(SweeperTest, PartsGoBeforeWhatNamesThem) {
  const std::string snapshot = log_.manifest().snapshots[0].key;
  const auto listed = memory_.List(kPartPrefix, "", 1000);
  ASSERT_FALSE(listed->empty());
  Bury(snapshot);
  log_.manifest().snapshots.erase(log_.manifest().snapshots.begin());
  log_.SaveManifest();
  std::vector<std::string> deleted;
  store_.OnCall([&](const FaultStore::Call& call) {
    if (call.kind == FaultStore::kDelete) deleted.push_back(call.key);
    return Fault::kNone;
  });
  clock_.Advance(1000);
  sweeper_.Begin(ReadManifest(memory_)->manifest);
  Run(sweeper_);
  ASSERT_FALSE(deleted.empty());
  EXPECT_EQ(deleted.back(), snapshot);
  for (size_t i = 0; i + 1 < deleted.size(); ++i) EXPECT_TRUE(ParsePartKey(deleted[i]));
}

TEST_F(SweeperTest, AFenceStaysWhoeverSetItsTombstone) {
  Bury(LogKey(Slot(1)));
  clock_.Advance(1000);
  sweeper_.Begin(ReadManifest(memory_)->manifest);
  Run(sweeper_);
  EXPECT_TRUE(Exists(LogKey(Slot(1))));
  EXPECT_EQ(sweeper_.counters().deleted, 0u);
}

TEST_F(SweeperTest, ATombstoneGoesOnlyAfterWhatItNames) {
  Bury(LogKey(Slot(3)), Slot(7));
  clock_.Advance(1000);
  sweeper_.Begin(ReadManifest(memory_)->manifest);
  store_.Inject(FaultStore::kDelete, 3, Fault::kFail);
  Run(sweeper_);
  EXPECT_EQ(ReadManifest(memory_)->manifest.tombstones.size(), 1u);
  EXPECT_FALSE(sweeper_.last_error().ok());
  clock_.Advance(100000);
  Run(sweeper_);
  EXPECT_TRUE(ReadManifest(memory_)->manifest.tombstones.empty());
  EXPECT_FALSE(Exists(LogKey(Slot(7))));
}

TEST_F(SweeperTest, OrphansOfOlderEpochsGoAndNothingElse) {
  const std::set<std::string> ours = {SegmentKey(1, Slot(2), Slot(3), Epoch(2), 1),
                                      SnapshotKey(Txid(1), Txid(1), Epoch(2), 1),
                                      PartKey(Epoch(2), 3, 0, 1),
                                      "segments/1/not-a-segment",
                                      OrphanKey(Epoch(1), Session(2), Slot(3)),
                                      OrphanPartKey({Epoch(1), Session(2), Slot(3)}, 0, 1),
                                      "parts/notes.txt",
                                      "other/file"};
  const std::set<std::string> orphans = {SegmentKey(1, Slot(2), Slot(3), Epoch(1), 1),
                                         SnapshotKey(Txid(1), Txid(1), Epoch(1), 1),
                                         PartKey(Epoch(1), 3, 0, 1), PartKey(Epoch(1), 99, 0, 1)};
  for (const std::string& key : ours) Put(key);
  for (const std::string& key : orphans) Put(key);
  std::set<std::string> before;
  const auto listed = memory_.List("", "", 1000);
  for (const ListEntry& e : *listed) before.insert(e.key);
  log_.Fence();
  Bury(PartKey(Epoch(2), 77, 0, 1));
  clock_.Advance(1000);
  sweeper_.Begin(ReadManifest(memory_)->manifest);
  Run(sweeper_);
  EXPECT_EQ(sweeper_.last_error().ToString(), Status().ToString());
  EXPECT_EQ(sweeper_.counters().orphans_deleted, orphans.size());
  for (const std::string& key : before) EXPECT_NE(Exists(key), orphans.contains(key)) << key;
}

TEST_F(SweeperTest, ADeposedOwnerDeletesNothing) {
  Bury(LogKey(Slot(3)), Slot(7));
  clock_.Advance(1000);
  sweeper_.Begin(ReadManifest(memory_)->manifest);
  log_.Fence();
  EXPECT_EQ(Run(sweeper_), Task::kIdle);
  EXPECT_EQ(sweeper_.last_error().tag(), Tag::kFenced);
  EXPECT_TRUE(Exists(LogKey(Slot(3))));
}

}  // namespace
}  // namespace guildlite
