// Joins and retirement over logs a LogFixture wrote: what could be restored before can be restored
// after, whatever is deleted in between and wherever the process is killed.
#include "vfs/replicate/compactor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

#include "tests/support/fault_store.h"
#include "tests/support/log_fixture.h"
#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/base/file_io.h"
#include "vfs/format/segment_reader.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"
#include "vfs/replicate/sweeper.h"
#include "vfs/restore/restorer.h"

namespace guildlite {
namespace {

using testing::LogFixture;
using testing::MakeTurbulent;

constexpr int64_t kForEver = int64_t{1} << 60;
constexpr int kNever = 1000;

class CompactorTest : public ::testing::Test {
 protected:
  // Both tasks until neither has anything to do now.
  void Run(Compactor& compactor, Sweeper* sweeper = nullptr) {
    for (int i = 0; i < 10000; ++i) {
      const int64_t now = clock_.MonotonicMs();
      if (compactor.Step(now) <= now) continue;
      if (sweeper && sweeper->Step(now) <= now) continue;
      return;
    }
    FAIL() << "never at rest";
  }
  Compactor Make(ObjectStore& store, Compactor::Settings settings, Sweeper* sweeper = nullptr) {
    return Compactor(clock_, random_, store, dir_.path() + "/join", settings, [sweeper] {
      if (sweeper) sweeper->TombstonesSet();
    });
  }
  // `slots` more, of one commit each, with a snapshot after every so many of them.
  static void Grow(LogFixture& log, uint64_t seed, int slots, int snapshot_every) {
    std::mt19937_64 random(seed);
    for (int i = 1; i <= slots; ++i) {
      log.CommitRandom(random, 20);
      log.Ship();
      if (i % snapshot_every == 0) log.Snapshot();
    }
  }
  // As the shipper does, with a copy for the compactor.
  void Ship(LogFixture& log, Compactor& compactor) {
    const Slot slot = log.next_slot();
    log.Ship();
    (void)compactor.Shipped(slot, memory_.Get(LogKey(slot))->bytes);
  }
  Manifest Now() { return ReadManifest(memory_)->manifest; }
  std::set<std::string> Keys(std::string_view prefix = "") {
    std::set<std::string> keys;
    const auto entries = memory_.List(prefix, "", SIZE_MAX);
    for (const ListEntry& e : *entries) keys.insert(e.key);
    return keys;
  }
  // "" when it is as it was told; a refusal counts as "no such point".
  std::string Restored(const RestoreTarget& target, const LogFixture::Point& point) {
    const std::string path = dir_.path() + "/restored.db";
    const auto report = Restore(memory_, path, target, {});
    if (!report.ok()) return report.status().ToString();
    const auto file = ReadWholeFile(path);
    (void)RemoveFile(path);
    if (!(*file == point.file)) return "other content";
    return report->position.check == point.position.check ? "" : "another check";
  }
  static RestoreTarget At(const Position& p) {
    return {.kind = RestoreTarget::Kind::kPosition, .position = p};
  }
  void ExpectEveryPoint(const LogFixture& log) {
    const LogFixture::Point* latest = nullptr;
    for (const LogFixture::Point& p : log.points()) {
      if (!p.restorable) continue;
      EXPECT_EQ(Restored(At(p.position), p), "") << p.position.ToString();
      if (p.live && (!latest || p.position.txid > latest->position.txid)) latest = &p;
    }
    ASSERT_NE(latest, nullptr);
    EXPECT_EQ(Restored({}, *latest), "");
  }
  // Every FENCE there ever was is still there.
  void ExpectFences(const std::set<std::string>& fences) {
    for (const std::string& key : fences) EXPECT_TRUE(memory_.Get(key).ok()) << key;
  }
  std::set<std::string> Fences() {
    std::set<std::string> fences;
    for (const std::string& key : Keys(kLogPrefix)) {
      const auto object = memory_.Get(key);
      if (OpenObject(object->bytes, key)->header.kind == ObjectKind::kFence) fences.insert(key);
    }
    return fences;
  }

  TempDir dir_{TempDir::Where::kMemory};
  MemoryStore memory_;
  SimClock clock_{1'790'000'100'000};
  SimRandom random_{3};
};

class CompactorOfSeed : public CompactorTest, public ::testing::WithParamInterface<uint64_t> {};

TEST_P(CompactorOfSeed, EveryPointOfATurbulentHistorySurvivesJoiningAndDeleting) {
  std::mt19937_64 random(GetParam());
  LogFixture log(memory_, {.page_size = 512,
                           .block_pages_max = static_cast<uint32_t>(1 + random() % 12),
                           .part_bytes = random() % 2 == 0 ? UINT64_MAX : 300});
  MakeTurbulent(log, random, 60);
  const auto fences = Fences();
  const size_t slots = Keys(kLogPrefix).size();

  Sweeper sweeper(clock_, random_, memory_, {.grace_ms = 1000});
  Compactor compactor = Make(memory_,
                             {.join_slots = 1,
                              .segment_bytes = 200 + random() % 4000,
                              .object_bytes_max = 300 + random() % 2000,
                              .retention_ms = kForEver},
                             &sweeper);
  sweeper.Begin(Now());
  compactor.Begin(Now(), log.next_slot());
  compactor.SnapshotTaken();
  Run(compactor, &sweeper);
  EXPECT_EQ(compactor.last_error().ToString(), Status().ToString());
  EXPECT_EQ(Now().floor, log.next_slot());
  EXPECT_EQ(Keys(kLogPrefix).size(), slots) << "within the grace time nothing goes";
  ExpectEveryPoint(log);

  clock_.Advance(1001);
  Run(compactor, &sweeper);
  EXPECT_EQ(sweeper.last_error().ToString(), Status().ToString());
  EXPECT_TRUE(Now().tombstones.empty());
  EXPECT_EQ(Keys(kLogPrefix).size(), slots - compactor.counters().slots_joined);
  ExpectFences(fences);
  ExpectEveryPoint(log);
}

INSTANTIATE_TEST_SUITE_P(Seeds, CompactorOfSeed, ::testing::Range<uint64_t>(1, 31));

// A database that lives: commits, snapshots, joins, retirement, deletion, round after round.
TEST_F(CompactorTest, TheBucketStaysBoundedAndWhatIsKeptIsWhole) {
  std::mt19937_64 random(7);
  LogFixture log(memory_, {.page_size = 512});
  log.Snapshot();
  Sweeper sweeper(clock_, random_, memory_, {.grace_ms = 1000});
  Compactor compactor = Make(memory_, {.join_slots = 10, .segment_bytes = 3000}, &sweeper);
  sweeper.Begin(Now());
  compactor.Begin(Now(), log.next_slot());
  std::set<std::string> fences = Fences();
  size_t most = 0;
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 17; ++i) {
      log.CommitRandom(random);
      Ship(log, compactor);
    }
    const std::string label = round == 3 ? "kept" : "";
    log.BeginScan();
    log.ScanPages(10);
    log.CommitRandom(random);
    Ship(log, compactor);
    log.ScanPages();
    log.EndScan(label);
    compactor.SnapshotTaken();
    Run(compactor, &sweeper);
    clock_.Advance(1001);
    Run(compactor, &sweeper);
    log.manifest() = Now();
    EXPECT_EQ(compactor.last_error().ToString(), Status().ToString());
    most = std::max(most, Keys().size());

    const Manifest& m = log.manifest();
    // The two newest snapshots and the labelled one.
    EXPECT_LE(m.snapshots.size(), round < 3 ? 2u : 3u);
    const SnapshotRecord& oldest = m.snapshots[m.snapshots.size() > 2 ? 1 : 0];
    for (const LogFixture::Point& p : log.points()) {
      if (!p.restorable || p.position.txid < oldest.usable_from) continue;
      EXPECT_EQ(Restored(At(p.position), p), "") << p.position.ToString();
    }
  }
  EXPECT_EQ(compactor.counters().slots_read_back, 1u) << "the FENCE of slot 1, put by the claim";
  EXPECT_LT(most, 80u) << "of " << log.next_slot().value << " slots";
  ExpectFences(fences);
  for (const SnapshotRecord& s : Now().snapshots) {
    if (s.label != "kept") continue;
    ASSERT_LT(s.txid, s.usable_from);
    const LogFixture::Point& p = log.LivePoint(s.usable_from);
    EXPECT_EQ(Restored({.kind = RestoreTarget::Kind::kLabel, .label = "kept"}, p), "");
    EXPECT_EQ(Restored(At(p.position), p), "");
  }
  // What is below all of it is refused by name, never made up.
  EXPECT_THAT(Restored(At(log.points()[5].position), log.points()[5]),
              ::testing::HasSubstr("NO_SUCH_POINT"));
}

// Our own sweeper and snapshotter swap the manifest too: who loses against them goes again at once,
// it does not wait as after an error.
TEST_F(CompactorTest, ARetirementOvertakenByAnotherSwapIsMadeAnew) {
  LogFixture log(memory_, {.page_size = 512});
  Grow(log, 11, 4, 1);
  FaultStore store(memory_);
  int puts = 0;
  store.OnCall([&](const FaultStore::Call& call) {
    // Every other one, so that each swap is lost once.
    if (call.kind == FaultStore::kPut && call.key == kManifestKey && ++puts % 2 == 1) {
      EXPECT_TRUE(UpdateManifest(memory_, random_, [](Manifest&) { return Status::Ok(); }).ok());
    }
    return Fault::kNone;
  });
  Compactor compactor = Make(store, {.join_slots = 1000});
  compactor.Begin(Now(), log.next_slot());
  compactor.SnapshotTaken();
  Run(compactor);
  EXPECT_GE(puts, 2);
  EXPECT_EQ(compactor.last_error().ToString(), Status().ToString());
  EXPECT_EQ(compactor.counters().retirements, 1u);
  EXPECT_LT(Now().snapshots.size(), 4u);
}

// Killed at any call, with a reply lost, denied, or late: the next process goes on, and no point is
// lost. What a kill left behind goes with the next epoch.
TEST_F(CompactorTest, KilledAtAnyCallItLosesNothing) {
  for (const Fault fault : {Fault::kFail, Fault::kLoseReply, Fault::kHold}) {
    for (uint64_t n = 1; n < 400; ++n) {
      SCOPED_TRACE(std::to_string(static_cast<int>(fault)) + " at call " + std::to_string(n));
      MemoryStore memory;
      std::mt19937_64 random(11);
      LogFixture log(memory, {.page_size = 512, .part_bytes = 900});
      log.Snapshot();
      for (int i = 0; i < 30; ++i) {
        log.CommitRandom(random, 20);
        if (i % 2 == 0) log.Ship();
        if (i % 10 == 9) log.Snapshot();
      }
      log.Ship();
      FaultStore store(memory);
      store.Inject(FaultStore::kAny, n, fault);
      bool killed = false;
      {
        Sweeper sweeper(clock_, random_, store, {.grace_ms = 0});
        Compactor compactor = Make(store, {.join_slots = 5, .segment_bytes = 1500}, &sweeper);
        const Manifest m = ReadManifest(memory)->manifest;
        sweeper.Begin(m);
        compactor.Begin(m, log.next_slot());
        compactor.SnapshotTaken();
        for (int i = 0; i < 2000 && !killed; ++i) {
          const int64_t now = clock_.MonotonicMs();
          const int64_t a = compactor.Step(now);
          const int64_t b = a <= now ? now : sweeper.Step(now);
          killed = !compactor.last_error().ok() || !sweeper.last_error().ok();
          if (a > now && b > now) break;
        }
      }
      store.DeliverHeld();
      const Manifest m = ReadManifest(memory)->manifest;
      Sweeper sweeper(clock_, random_, memory, {.grace_ms = 0});
      Compactor compactor = Make(memory, {.join_slots = 5, .segment_bytes = 1500}, &sweeper);
      sweeper.Begin(m);
      compactor.Begin(m, log.next_slot());
      compactor.SnapshotTaken();
      Run(compactor, &sweeper);
      const SnapshotRecord oldest = ReadManifest(memory)->manifest.snapshots.front();
      for (const LogFixture::Point& p : log.points()) {
        if (!p.restorable || p.position.txid < oldest.usable_from) continue;
        const std::string path = dir_.path() + "/restored.db";
        const auto report = Restore(memory, path, At(p.position), {});
        ASSERT_TRUE(report.ok()) << report.status().ToString();
        ASSERT_TRUE(*ReadWholeFile(path) == p.file);
        ASSERT_TRUE(RemoveFile(path).ok());
      }
      if (!killed) break;  // fewer calls than n
    }
  }
}

// Everything is joined, retired and deleted, without grace, between any two reads of a restore: it
// ends in the right content or in a refusal that says why, never in other content (hazard H2).
TEST_F(CompactorTest, ARestoreBesideItIsRightOrRefused) {
  int restored = 0;
  for (uint64_t n = 1; n < 60; ++n) {
    MemoryStore memory;
    LogFixture log(memory, {.page_size = 512});
    log.Snapshot();
    Grow(log, 13, 24, 8);
    FaultStore store(memory);
    uint64_t calls = 0;
    store.OnCall([&](const FaultStore::Call&) {
      if (++calls != n) return Fault::kNone;
      Sweeper sweeper(clock_, random_, memory, {.grace_ms = 0});
      Compactor compactor = Make(memory, {.join_slots = 1, .segment_bytes = 1500}, &sweeper);
      const Manifest m = ReadManifest(memory)->manifest;
      sweeper.Begin(m);
      compactor.Begin(m, log.next_slot());
      compactor.SnapshotTaken();
      Run(compactor, &sweeper);
      return Fault::kNone;
    });
    for (const uint64_t txid : {uint64_t{0}, uint64_t{5}, uint64_t{15}}) {
      calls = txid == 0 ? 0 : 1000;
      const Txid at = txid == 0 ? log.tip() : Txid(txid);
      const std::string path = dir_.path() + "/restored.db";
      const auto report = Restore(store, path, At(log.LivePoint(at).position), {});
      if (!report.ok()) {
        EXPECT_EQ(report.status().tag(), Tag::kNoSuchPoint) << report.status().ToString();
        EXPECT_NE(txid, 0u) << "the newest is always kept: " << report.status().ToString();
        continue;
      }
      ++restored;
      ASSERT_TRUE(*ReadWholeFile(path) == log.LivePoint(at).file);
      ASSERT_TRUE(RemoveFile(path).ok());
    }
  }
  EXPECT_GT(restored, 60);
}

TEST_F(CompactorTest, ADeposedOwnerChangesNothing) {
  LogFixture log(memory_, {.page_size = 512});
  log.Snapshot();
  Grow(log, 5, 20, kNever);
  Compactor compactor = Make(memory_, {.join_slots = 5});
  compactor.Begin(Now(), log.next_slot());
  log.Fence();
  const auto keys = Keys();
  const std::string manifest = memory_.Get(kManifestKey)->bytes;
  Run(compactor);
  EXPECT_EQ(compactor.last_error().tag(), Tag::kFenced);
  EXPECT_EQ(Keys(), keys);
  EXPECT_EQ(memory_.Get(kManifestKey)->bytes, manifest);
}

// Deposed between the segments and the swap: they are nobody's, and the next owner sweeps them.
TEST_F(CompactorTest, WhatADeposedOwnerUploadedIsSweptByTheNextEpochOnly) {
  LogFixture log(memory_, {.page_size = 512});
  log.Snapshot();
  Grow(log, 5, 20, kNever);
  FaultStore store(memory_);
  store.OnCall([&](const FaultStore::Call& call) {
    if (call.kind == FaultStore::kPut && call.key == kManifestKey) log.Fence();
    return Fault::kNone;
  });
  Compactor compactor = Make(store, {.join_slots = 5});
  compactor.Begin(Now(), log.next_slot());
  Run(compactor);
  store.OnCall({});
  EXPECT_EQ(compactor.last_error().tag(), Tag::kFenced);
  ASSERT_EQ(Keys(kSegmentPrefix).size(), 1u);

  Manifest of_the_same_epoch = Now();
  of_the_same_epoch.tombstones.push_back({"parts/none", Slot(0), 0, {}});
  log.manifest().tombstones = of_the_same_epoch.tombstones;
  log.SaveManifest();
  Sweeper sweeper(clock_, random_, memory_, {.grace_ms = 0});
  sweeper.Begin(Now());
  const int64_t now = clock_.MonotonicMs();
  while (sweeper.Step(now) <= now) {
  }
  EXPECT_EQ(sweeper.counters().orphans_deleted, 1u);
  EXPECT_TRUE(Keys(kSegmentPrefix).empty());
  ExpectEveryPoint(log);
}

// Whoever deletes from the bucket, or a store that loses an object: the log around it is joined and
// retired all the same, and it is said which slot it was.
TEST_F(CompactorTest, ASlotThatIsLostOrDamagedHoldsUpNeitherJoinsNorRetirement) {
  for (const bool lost : {true, false}) {
    SCOPED_TRACE(lost ? "lost" : "damaged");
    MemoryStore memory;
    std::mt19937_64 random(5);
    LogFixture log(memory, {.page_size = 512});
    log.Snapshot();
    const auto ship = [&](int count) {
      for (int i = 0; i < count; ++i) {
        log.CommitRandom(random);
        log.Ship();
      }
    };
    ship(20);
    const Slot bad(log.next_slot().value - 10);
    if (lost) {
      ASSERT_TRUE(memory.Delete(LogKey(bad)).ok());
    } else {
      std::string bytes = memory.Get(LogKey(bad))->bytes;
      bytes[5] = static_cast<char>(bytes[5] ^ 1);
      ASSERT_TRUE(memory.Delete(LogKey(bad)).ok());
      ASSERT_TRUE(memory.Put(LogKey(bad), bytes, PutCondition::Create()).ok());
    }
    int told = 0;
    Compactor compactor(
        clock_, random_, memory, dir_.path() + "/join", {.join_slots = 5}, [] {},
        [&](const Status& status) {
          ++told;
          EXPECT_EQ(status.tag(), Tag::kChainBroken);
          EXPECT_THAT(status.message(), ::testing::HasSubstr(LogKey(bad)));
        });
    const auto now = [&] { return ReadManifest(memory)->manifest; };
    compactor.Begin(now(), log.next_slot());
    Run(compactor);
    EXPECT_EQ(now().floor, log.next_slot());
    ASSERT_EQ(now().segments.size(), 2u);
    EXPECT_EQ(now().segments[0].last_slot.Next(), bad);
    EXPECT_EQ(now().segments[1].first_slot, bad.Next());
    EXPECT_EQ(told, 1);
    EXPECT_THAT(compactor.last_error().message(), ::testing::HasSubstr(LogKey(bad)));

    log.manifest() = now();
    for (int i = 0; i < 2; ++i) {
      log.Snapshot();
      ship(8);
    }
    const Slot shipped(log.next_slot().value - 1);
    (void)compactor.Shipped(shipped, "");
    compactor.SnapshotTaken();
    Run(compactor);
    EXPECT_GT(now().horizon, bad);
    EXPECT_EQ(compactor.last_error().ToString(), Status().ToString());
    EXPECT_EQ(told, 1);
    const std::string path = dir_.path() + "/restored.db";
    ASSERT_TRUE(Restore(memory, path, {}, {}).ok());
    EXPECT_EQ(*ReadWholeFile(path), log.points().back().file);
    ASSERT_TRUE(RemoveFile(path).ok());
    if (!lost) {
      EXPECT_TRUE(memory.Get(LogKey(bad)).ok()) << "it may have been a FENCE";
    }
  }
}

TEST_F(CompactorTest, ACopyThatWasWrittenOverIsNotJoined) {
  std::mt19937_64 random(5);
  LogFixture log(memory_, {.page_size = 512});
  log.Snapshot();
  Compactor compactor = Make(memory_, {.join_slots = 12});
  compactor.Begin(Now(), log.next_slot());
  for (int i = 0; i < 20; ++i) {
    log.CommitRandom(random);
    Ship(log, compactor);
  }
  const std::string copy = dir_.path() + "/join";
  std::string bytes = *ReadWholeFile(copy);
  for (size_t i = 0; i < bytes.size(); i += 100) bytes[i] = static_cast<char>(bytes[i] ^ 1);
  ASSERT_TRUE(ReplaceFile(copy, bytes).ok());
  Run(compactor);
  EXPECT_EQ(compactor.last_error().ToString(), Status().ToString());
  EXPECT_GE(compactor.counters().slots_joined, 10u);
  ExpectEveryPoint(log);
}

}  // namespace
}  // namespace guildlite
