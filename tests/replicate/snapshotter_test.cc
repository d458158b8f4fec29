#include "vfs/replicate/snapshotter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>

#include "tests/replicate/sim_database.h"
#include "tests/replicate/writer_rig.h"
#include "tests/support/fault_store.h"
#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using testing::Must;
using testing::RestoredContent;
using testing::RigSettings;
using testing::SimDatabase;
using testing::WriterRig;

class SnapshotterTest : public ::testing::Test {
 protected:
  SnapshotterTest() : db_(dir_.File("app.db")) {}
  // A log with its first snapshot and a database of 40 pages.
  WriterRig& Begin(const RigSettings& settings = {}) {
    rig_ = std::make_unique<WriterRig>(db_, store_, clock_, random_, settings);
    rig_->BeginFirst();
    rig_->Settle();
    SimDatabase::Pages pages;
    for (uint32_t p = 1; p <= 40; ++p) pages[p] = p;
    db_.Commit(pages, 40);
    rig_->Run();
    return *rig_;
  }
  std::vector<SnapshotRecord> Snapshots() { return Must(ReadManifest(memory_)).manifest.snapshots; }
  void ExpectContent(const std::string& at, const std::string& expected) {
    auto content = RestoredContent(memory_, dir_.path(), at);
    ASSERT_TRUE(content.ok()) << "at '" << at << "' " << content.status().ToString();
    EXPECT_TRUE(*content == expected) << "at '" << at << "'";
  }
  // The newest snapshot alone must do.
  void ExpectLatestFromTheNewestSnapshot() {
    Manifest m = Must(ReadManifest(memory_)).manifest;
    ASSERT_FALSE(m.snapshots.empty());
    m.snapshots.erase(m.snapshots.begin(), m.snapshots.end() - 1);
    MemoryStore copy;
    for (const ListEntry& e : Must(memory_.List("", "", 10'000))) {
      Must(copy.Put(e.key, Must(memory_.Get(e.key)).bytes, PutCondition::Create()));
    }
    Must(copy.Put(kManifestKey, m.Encode(), PutCondition::Overwrite()));
    auto content = RestoredContent(copy, dir_.path(), "");
    ASSERT_TRUE(content.ok()) << content.status().ToString();
    EXPECT_TRUE(*content == db_.content());
  }

  TempDir dir_;
  MemoryStore memory_;
  FaultStore store_{memory_};
  SimClock clock_;
  SimRandom random_{1};
  SimDatabase db_;
  std::unique_ptr<WriterRig> rig_;
};

TEST_F(SnapshotterTest, ASnapshotAskedForHasItsLabelAndRestores) {
  auto& rig = Begin();
  const uint64_t request = Must(rig.snapshotter->Request("before the migration"));
  EXPECT_FALSE(rig.snapshotter->Finished(request).has_value());
  EXPECT_EQ(rig.snapshotter->Request("another").status().tag(), Tag::kBusy);
  rig.Run();
  const auto result = rig.snapshotter->Finished(request);
  ASSERT_TRUE(result.has_value() && result->ok());
  EXPECT_EQ((**result).txid, Txid(1));
  EXPECT_EQ(Snapshots().back().label, "before the migration");
  const std::string content = db_.content();
  db_.Commit({{5, 1000}}, 40);
  rig.Run();
  ExpectContent("label:before the migration", content);
  ExpectLatestFromTheNewestSnapshot();
}

// Invariant 1.
TEST_F(SnapshotterTest, EntersTheManifestOnlyWhenTheLogReachesIt) {
  RigSettings settings;
  settings.snapshot.chunk_pages = 5;
  auto& rig = Begin(settings);
  const size_t before = Snapshots().size();
  store_.OnCall([](const FaultStore::Call& call) {
    return call.kind == FaultStore::kPut && call.key.starts_with(kLogPrefix) ? Fault::kFail
                                                                             : Fault::kNone;
  });
  const uint64_t request = Must(rig.snapshotter->Request("s"));
  for (uint64_t i = 0; i < 20; ++i) {
    db_.Commit({{3, 100 + i}, {30, 200 + i}}, 40);  // so E is above what is acknowledged
    rig.Run(30);
  }
  rig.Run(60'000);
  EXPECT_EQ(Snapshots().size(), before);
  EXPECT_FALSE(rig.snapshotter->Finished(request).has_value());
  store_.OnCall(nullptr);
  rig.Run();
  ASSERT_TRUE(rig.snapshotter->Finished(request).has_value());
  EXPECT_GT(Snapshots().back().usable_from, Txid(1));
  ExpectLatestFromTheNewestSnapshot();
}

TEST_F(SnapshotterTest, AutomaticOnesFollowTheLogsGrowth) {
  RigSettings settings;
  settings.snapshot.snapshot_min_bytes = 20'000;
  auto& rig = Begin(settings);
  std::mt19937_64 random(testing::TestSeed());
  uint64_t shipped = 0;
  for (int i = 0; i < 200; ++i) {
    db_.CommitRandom(random, 40);
    rig.Run();
    shipped = rig.shipper->counters().bytes_sent;
  }
  EXPECT_GT(rig.snapshotter->snapshots_taken(), 2u);
  EXPECT_LE(rig.snapshotter->snapshots_taken(), 3 + shipped / 10'000);
  ExpectLatestFromTheNewestSnapshot();
}

// Every call of one snapshot fails once, each way: it is there in the end, once, and whole.
TEST_F(SnapshotterTest, AFailureAtAnyCallIsRepeatedOrReported) {
  for (const Fault fault : {Fault::kFail, Fault::kDrop, Fault::kLoseReply, Fault::kDeny}) {
    for (int n = 1; n <= 10; ++n) {
      SCOPED_TRACE("fault " + std::to_string(static_cast<int>(fault)) + " at " + std::to_string(n));
      RigSettings settings;
      settings.snapshot.chunk_pages = 8;
      settings.snapshot.part_bytes = 3000;
      if (!rig_) Begin(settings);
      const size_t before = Snapshots().size();
      db_.Commit({{7, random_.Next64()}}, 40);
      rig_->Run();
      store_.Inject(FaultStore::kAny, n, fault);
      const uint64_t request = Must(rig_->snapshotter->Request("r" + std::to_string(n)));
      rig_->Run();
      const auto result = rig_->snapshotter->Finished(request);
      ASSERT_TRUE(result.has_value());
      if (result->ok()) {
        EXPECT_EQ(Snapshots().size(), before + 1);
        ExpectLatestFromTheNewestSnapshot();
      } else {
        EXPECT_EQ(fault, Fault::kDeny);
        EXPECT_EQ(result->status().tag(), Tag::kStoreDenied);
      }
      for (int k = 0; k < 20; ++k) (void)store_.Get(kManifestKey);  // the fault, if it is left
      EXPECT_EQ(rig_->recorder->counters().heals, 0u);
    }
  }
}

// The first scan goes on after an error that was told to whoever had asked for a label: what it had
// read is not read again.
TEST_F(SnapshotterTest, AnErrorToldToTheAskerLosesNothingOfTheFirstScan) {
  for (int n = 1; n <= 12; ++n) {
    SCOPED_TRACE(n);
    MemoryStore memory;
    FaultStore store(memory);
    SimDatabase db(dir_.File("first-" + std::to_string(n) + ".db"));
    SimDatabase::Pages pages;
    for (uint32_t p = 1; p <= 400; ++p) pages[p] = p;
    db.Stranger(pages, 400);
    db.Close(/*stranger=*/true);
    db.Open();
    RigSettings settings;
    settings.snapshot.chunk_pages = 4;
    settings.snapshot.part_bytes = 2000;
    WriterRig rig(db, store, clock_, random_, settings);
    rig.BeginFirst();
    const uint64_t request = Must(rig.snapshotter->Request("first"));
    store.Inject(FaultStore::kAny, n, Fault::kDeny);
    rig.Run();
    db.Commit({{9, 9}}, 400);
    rig.Run();
    EXPECT_TRUE(rig.snapshotter->Finished(request).has_value());
    auto content = RestoredContent(memory, dir_.path(), "");
    ASSERT_TRUE(content.ok()) << content.status().ToString();
    EXPECT_TRUE(*content == db.content());
  }
}

// A complete scan that waits for its log: when the log is dropped, E never comes to be.
TEST_F(SnapshotterTest, ASnapshotWhoseLogWasDroppedIsTakenAnew) {
  RigSettings settings;
  settings.spool_limit_bytes = 30'000;
  settings.snapshot.chunk_pages = 10;
  auto& rig = Begin(settings);
  const uint64_t request = Must(rig.snapshotter->Request("kept"));
  store_.SetOutage(Fault::kFail);
  std::mt19937_64 random(testing::TestSeed());
  for (int i = 0; i < 10; ++i) {
    db_.CommitRandom(random, 40);
    rig.Run(100);
  }
  while (!rig.recorder->dropped()) {
    db_.CommitRandom(random, 40);
    db_.CheckpointRestart();
  }
  store_.SetOutage(Fault::kNone);
  rig.Run();
  rig.BeginAgain();
  for (int i = 0; i < 30; ++i) {
    db_.CommitRandom(random, 40);
    rig.Run();
  }
  const auto result = rig.snapshotter->Finished(request);
  ASSERT_TRUE(result.has_value());
  ASSERT_TRUE(result->ok()) << result->status().ToString();
  const SnapshotRecord last = Snapshots().back();
  EXPECT_EQ(last.label, "kept");
  auto content = RestoredContent(memory_, dir_.path(), std::to_string(last.usable_from.value));
  ASSERT_TRUE(content.ok()) << content.status().ToString();
  EXPECT_THAT(db_.contents(), ::testing::Contains(*content));
  ExpectLatestFromTheNewestSnapshot();
}

// A gap found while a snapshot is scanned: the heal takes the scan's place, then it begins anew.
TEST_F(SnapshotterTest, AScanReplacedByAHealBeginsAnewWithItsLabel) {
  RigSettings settings;
  settings.snapshot.chunk_pages = 5;
  auto& rig = Begin(settings);
  const uint64_t request = Must(rig.snapshotter->Request("after the heal"));
  rig.snapshotter->Step(clock_.MonotonicMs());
  rig.snapshotter->Step(clock_.MonotonicMs());
  ASSERT_TRUE(rig.recorder->scan().has_value());
  db_.Stranger({{39, 39}}, 40);
  db_.Checkpoint();
  db_.Stranger({{3, 33}}, 40);
  rig.Run();
  EXPECT_EQ(rig.recorder->counters().heals, 1u);
  const auto result = rig.snapshotter->Finished(request);
  ASSERT_TRUE(result.has_value());
  ASSERT_TRUE(result->ok()) << result->status().ToString();
  EXPECT_EQ(Snapshots().back().label, "after the heal");
  ExpectContent("label:after the heal", db_.content());
  ExpectLatestFromTheNewestSnapshot();
}

TEST_F(SnapshotterTest, AfterATakeoverNothingEntersTheManifest) {
  auto& rig = Begin();
  auto seen = Must(LookAtStore(memory_, std::nullopt));
  Must(ClaimNext(memory_, random_, clock_, seen, {Session(99), "other"}));
  const size_t before = Snapshots().size();
  const uint64_t request = Must(rig.snapshotter->Request("mine"));
  rig.Run(120'000);
  EXPECT_EQ(Snapshots().size(), before);
  const auto result = rig.snapshotter->Finished(request);
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->status().tag(), Tag::kFenced);
}

}  // namespace
}  // namespace guildlite
