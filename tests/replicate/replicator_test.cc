// The whole writing side of one database, over a store that fails as told, against a model:
// whatever happens, what is in the store after a sync restores to what was committed.
#include "vfs/replicate/replicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <latch>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "tests/replicate/process_rig.h"
#include "tests/replicate/sim_database.h"
#include "tests/support/fault_store.h"
#include "tests/support/temp_dir.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using testing::FastOptions;
using testing::Must;
using testing::Process;
using testing::ProcessSettings;
using testing::RestoredContent;
using testing::SimDatabase;

// One database, one store.
struct World {
  explicit World(uint32_t page_size = 512) : db(dir.File("app.db"), page_size) {}
  std::unique_ptr<Process> Open(bool asked, const Options& options = FastOptions()) {
    auto process = std::make_unique<Process>(db, store, ProcessSettings{options, asked, {}, {}});
    process->Connect();
    return process;
  }
  // A database that was replicated before, all of it in the store, killed while open.
  void Replicated(std::mt19937_64& random, int commits = 5) {
    auto process = Open(true);
    Must(process->Settled());
    for (int i = 0; i < commits; ++i) db.CommitRandom(random);
    Must(process->Sync());
  }
  void ReplicatedAndClosed(std::mt19937_64& random, int commits = 5) {
    auto process = Open(true);
    Must(process->Settled());
    for (int i = 0; i < commits; ++i) db.CommitRandom(random);
    Must(process->Sync());
    ASSERT_TRUE(process->Disconnect());
  }
  // As if the machine had been started anew since.
  void Reboot() {
    const std::string path = db.path() + "-guildlite/state";
    std::string state = Must(ReadWholeFile(path));
    const std::string boot_id = BootId();
    state.replace(state.find(boot_id), boot_id.size(), "another boot");
    Must(ReplaceFile(path, state));
  }
  void ExpectLatest(const std::string& when = "") {
    auto content = RestoredContent(memory, dir.path(), "");
    ASSERT_TRUE(content.ok()) << when << " " << content.status().ToString();
    EXPECT_TRUE(*content == db.content()) << when << " the latest is not what was committed";
  }
  // The log is one list without a hole from the horizon on, and nothing is beyond its tip.
  void ExpectDenseLog(const std::string& when = "") {
    auto manifest = ReadManifest(memory);
    ASSERT_TRUE(manifest.ok());
    const Slot horizon = manifest->manifest.horizon;
    auto walk = WalkLog(memory, manifest->manifest, horizon);
    ASSERT_TRUE(walk.ok()) << when << " " << walk.status().ToString();
    Slot next = horizon;
    for (const LogEntry& entry : walk->entries) {
      EXPECT_LE(entry.header.slot, next) << when;
      next = entry.header.last_slot.Next();
    }
    // The last slots may be joined and deleted by now.
    EXPECT_LE(Must(memory.List(kLogPrefix, "", 100'000)).back().key, LogKey(Slot(next.value - 1)))
        << when;
  }

  TempDir dir;
  MemoryStore memory;
  FaultStore store{memory};
  SimDatabase db;
};

bool IsLogPut(const FaultStore::Call& call) {
  return call.kind == FaultStore::kPut && call.key.starts_with(kLogPrefix);
}

std::string Name(Fault fault, int n) {
  return "fault " + std::to_string(static_cast<int>(fault)) + " at call " + std::to_string(n);
}

constexpr Fault kTransientFaults[] = {Fault::kFail, Fault::kDrop, Fault::kLoseReply};

TEST(Replicator, RestoresWhatWasCommittedBeforeTheSync) {
  World w;
  auto process = w.Open(true);
  ASSERT_TRUE(process->Settled().ok());
  std::mt19937_64 random(testing::TestSeed());
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(w.db.CommitRandom(random));
    if (i % 10 == 0) w.db.Checkpoint();
  }
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString();
  w.ExpectLatest();
  EXPECT_TRUE(process->Disconnect());
}

TEST(Replicator, OneTransientFailureAtAnyCallNeverRefusesAFirstStart) {
  for (const Fault fault : kTransientFaults) {
    for (int n = 1; n <= 12; ++n) {
      World w;
      w.store.Inject(FaultStore::kAny, n, fault);
      auto process = w.Open(true);
      const Status settled = process->Settled();
      ASSERT_TRUE(settled.ok()) << Name(fault, n) << " " << settled.ToString();
      ASSERT_TRUE(w.db.Commit({{1, 5}, {2, 6}}, 2));
      const Status synced = process->Sync();
      ASSERT_TRUE(synced.ok()) << Name(fault, n) << " " << synced.ToString();
      w.ExpectLatest(Name(fault, n));
      w.ExpectDenseLog(Name(fault, n));
    }
  }
}

TEST(Replicator, OneTransientFailureAtAnyCallNeverRefusesTheHealOfOurOwnLog) {
  for (const bool asked : {false, true}) {
    for (const Fault fault : kTransientFaults) {
      for (int n = 1; n <= 14; ++n) {
        World w;
        std::mt19937_64 random(n);
        w.ReplicatedAndClosed(random);
        w.db.Open();
        w.db.Stranger({{1, 77}}, w.db.pages());
        w.db.Close(true);
        w.store.Inject(FaultStore::kAny, n, fault);
        auto process = w.Open(asked);
        const Status settled = process->Settled();
        ASSERT_TRUE(settled.ok()) << Name(fault, n) << " asked " << asked << " "
                                  << settled.ToString();
        w.db.CommitRandom(random);
        const Status synced = process->Sync();
        ASSERT_TRUE(synced.ok()) << Name(fault, n) << " " << synced.ToString();
        w.ExpectLatest(Name(fault, n));
        w.ExpectDenseLog(Name(fault, n));
      }
    }
  }
}

// Hazard H10: a request of a claim that was given up for lost lands at any later one, in this
// process or, after a kill -9, in the next. Nobody else is there, so nobody may be fenced.
TEST(Replicator, ARequestOfAClaimThatLandsLateNeverFencesItsSender) {
  enum Kind { kFirst, kPowerLoss, kTakeover };
  for (const Kind kind : {kFirst, kPowerLoss, kTakeover}) {
    for (const bool killed : {false, true}) {
      for (int n = 1; n <= 8; ++n) {
        for (const int later : {1, 2, 5}) {
          const std::string when = "kind " + std::to_string(kind) + " call " + std::to_string(n) +
                                   " lands " + std::to_string(later) + " later" +
                                   (killed ? ", after a kill" : "");
          World w;
          std::mt19937_64 random(n);
          if (kind != kFirst) w.Replicated(random);
          if (kind == kPowerLoss) w.Reboot();
          if (kind == kTakeover) std::filesystem::remove_all(w.db.path() + "-guildlite");
          std::atomic<int> calls = 0;
          w.store.OnCall([&](const FaultStore::Call&) {
            const int call = ++calls;
            if (call == n + later) w.store.DeliverHeld();
            if (call == n) return Fault::kHold;
            return killed && call > n && call < n + later ? Fault::kFail : Fault::kNone;
          });
          auto process = w.Open(kind != kPowerLoss);
          if (killed && process->Settled(10).ok()) continue;  // call n was none of the claim's
          if (killed) {
            process.reset();
            calls = n + later - 1;
            process = w.Open(kind != kPowerLoss);
          }
          const Status settled = process->Settled();
          ASSERT_TRUE(settled.ok()) << when << " " << settled.ToString();
          w.store.DeliverHeld();
          w.db.CommitRandom(random);
          const Status synced = process->Sync();
          ASSERT_TRUE(synced.ok()) << when << " " << synced.ToString();
          w.store.OnCall(nullptr);
          w.ExpectLatest(when);
          w.ExpectDenseLog(when);
        }
      }
    }
  }
}

TEST(Replicator, OneTransientFailureAtAnyCallOfAResumeNeedsNoHeal) {
  for (const Fault fault : kTransientFaults) {
    for (int n = 1; n <= 8; ++n) {
      World w;
      std::mt19937_64 random(n);
      w.Replicated(random);
      w.store.Inject(FaultStore::kAny, n, fault);
      auto process = w.Open(n % 2 == 0);
      const Status settled = process->Settled();
      ASSERT_TRUE(settled.ok()) << Name(fault, n) << " " << settled.ToString();
      w.db.CommitRandom(random);
      ASSERT_TRUE(process->Sync().ok()) << Name(fault, n);
      EXPECT_EQ(process->replicator->status().capture.heals, 0u) << Name(fault, n);
      EXPECT_EQ(process->replicator->status().epoch, Epoch(1)) << Name(fault, n);
      w.ExpectLatest(Name(fault, n));
    }
  }
}

TEST(Replicator, KilledAtAnyCallOfAFirstStartItBeginsAgain) {
  for (int n = 1; n <= 10; ++n) {
    World w;
    std::mt19937_64 random(n);
    {
      std::atomic<int> calls{0};
      w.store.OnCall(
          [&](const FaultStore::Call&) { return ++calls >= n ? Fault::kFail : Fault::kNone; });
      auto process = w.Open(true);
      (void)process->Settled(100);
      w.store.OnCall(nullptr);
    }
    auto process = w.Open(true);
    const Status settled = process->Settled();
    ASSERT_TRUE(settled.ok()) << n << " " << settled.ToString();
    w.db.CommitRandom(random);
    const Status synced = process->Sync();
    ASSERT_TRUE(synced.ok()) << n << " " << synced.ToString();
    w.ExpectLatest(std::to_string(n));
    w.ExpectDenseLog(std::to_string(n));
  }
}

TEST(Replicator, AnotherUrlKilledAtAnyCallOfItsFirstClaimLeavesADenseLog) {
  for (int n = 1; n <= 10; ++n) {
    World w;
    std::mt19937_64 random(n);
    {
      MemoryStore before;
      Process process(w.db, before, {FastOptions(), true, {}, {}});
      process.Connect();
      Must(process.Settled());
      for (int i = 0; i < 10; ++i) {
        w.db.CommitRandom(random);
        Must(process.Sync());
      }
    }
    Options options = FastOptions();
    options.url = "memory:other";
    {
      std::atomic<int> calls{0};
      w.store.OnCall(
          [&](const FaultStore::Call&) { return ++calls >= n ? Fault::kFail : Fault::kNone; });
      auto process = w.Open(true, options);
      (void)process->Settled(100);
      w.store.OnCall(nullptr);
    }
    auto process = w.Open(true, options);
    const Status settled = process->Settled();
    ASSERT_TRUE(settled.ok()) << n << " " << settled.ToString();
    w.db.CommitRandom(random);
    ASSERT_TRUE(process->Sync().ok()) << n;
    w.ExpectLatest(std::to_string(n));
    w.ExpectDenseLog(std::to_string(n));
  }
}

TEST(Replicator, ACleanCloseNeedsNoHeal) {
  World w;
  std::mt19937_64 random(1);
  w.ReplicatedAndClosed(random);
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  w.db.CommitRandom(random);
  ASSERT_TRUE(process->Sync().ok());
  EXPECT_EQ(process->replicator->status().capture.heals, 0u) << process->AllWarnings();
  EXPECT_EQ(process->replicator->status().epoch, Epoch(1));
  w.ExpectLatest();
}

// A put that never answers. The close ends in its time, and says what it leaves; what the put does
// later, before or after the next process wrote to that slot, changes nothing.
TEST(Replicator, ACloseEndsThoughAPutHangsAndTheNextOpenShipsWhatWasLeft) {
  for (const bool lands_before_the_next : {false, true}) {
    World w;
    std::mt19937_64 random(1);
    std::latch inside(1), release(1);
    std::atomic<bool> hold = false;
    w.store.OnCall([&](const FaultStore::Call& call) {
      if (call.kind == FaultStore::kPut && hold.exchange(false)) {
        inside.count_down();
        release.wait();
      }
      return Fault::kNone;
    });
    Options options = FastOptions();
    auto process = w.Open(true, options);
    ASSERT_TRUE(process->Settled().ok());
    w.db.CommitRandom(random);
    ASSERT_TRUE(process->Sync().ok());
    hold = true;
    w.db.CommitRandom(random);
    inside.wait();
    w.db.CommitRandom(random);
    EXPECT_TRUE(process->Disconnect(/*timeout_ms=*/20));
    EXPECT_THAT(process->AllWarnings(),
                ::testing::HasSubstr("NOT_DURABLE: closed before txid 2 to 3 ("));
    EXPECT_FALSE(process->replicator->gone());
    if (lands_before_the_next) {
      release.count_down();
      while (!process->replicator->gone()) std::this_thread::yield();
    }
    auto next = w.Open(false, options);
    ASSERT_TRUE(next->Settled().ok());
    w.db.CommitRandom(random);
    ASSERT_TRUE(next->Sync().ok()) << next->AllWarnings();
    w.ExpectLatest();
    if (!lands_before_the_next) release.count_down();
    while (!process->replicator->gone()) std::this_thread::yield();
    w.db.CommitRandom(random);
    ASSERT_TRUE(next->Sync().ok()) << next->AllWarnings();
    EXPECT_EQ(next->replicator->status().capture.heals, 0u) << next->AllWarnings();
    EXPECT_EQ(next->replicator->status().epoch, Epoch(1));
    w.ExpectLatest();
    w.ExpectDenseLog();
  }
}

// The store hangs before it has said a word: open_wait_ms is up to the thread that waits.
TEST(Replicator, AClaimThatHangsHoldsWritesNoLongerThanOpenWait) {
  World w;
  std::mt19937_64 random(1);
  std::latch release(1);
  w.store.OnCall([&](const FaultStore::Call&) {
    release.wait();
    return Fault::kNone;
  });
  Options options = FastOptions();
  options.open_wait_ms = 30;
  auto process = w.Open(true, options);
  Status written;
  while (!(written = process->replicator->BeforeWriteLock()).ok()) {
    EXPECT_EQ(written.tag(), Tag::kBusy);
  }
  EXPECT_EQ(process->replicator->status().state, ReplicationState::kUnshipped);
  EXPECT_THAT(process->AllWarnings(), ::testing::HasSubstr("commits go on but nothing is shipped"));
  w.db.CommitRandom(random);
  release.count_down();
  ASSERT_TRUE(process->Sync().ok());
  w.ExpectLatest();
  EXPECT_EQ(process->replicator->status().state, ReplicationState::kReplicating);
}

// Nor does it cost restore points: capture begins when writes go on, though it is a writer's thread
// that finds the store hanging.
TEST(Replicator, WhatIsCommittedWhileAClaimHangsIsARestorePointEach) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.ReplicatedAndClosed(random);
  std::latch release(1);
  w.store.OnCall([&](const FaultStore::Call&) {
    release.wait();
    return Fault::kNone;
  });
  Options options = FastOptions();
  options.open_wait_ms = 30;
  auto process = w.Open(false, options);
  while (!process->replicator->BeforeWriteLock().ok()) std::this_thread::yield();
  EXPECT_EQ(process->replicator->status().state, ReplicationState::kUnshipped);
  std::vector<std::string> contents;
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(w.db.CommitRandom(random));
    contents.push_back(w.db.content());
    if (i % 4 == 3) w.db.CheckpointRestart();
  }
  release.count_down();
  ASSERT_TRUE(process->Settled().ok());
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString();
  const ReplicationStatus status = process->replicator->status();
  EXPECT_EQ(status.state, ReplicationState::kReplicating);
  EXPECT_EQ(status.capture.heals, 0u) << process->AllWarnings();
  EXPECT_EQ(status.epoch, Epoch(1));
  const uint64_t first = status.position->txid.value - contents.size() + 1;
  for (size_t i = 0; i < contents.size(); ++i) {
    auto restored = RestoredContent(w.memory, w.dir.path(), std::to_string(first + i));
    ASSERT_TRUE(restored.ok()) << restored.status().ToString();
    EXPECT_TRUE(*restored == contents[i]) << "commit " << i;
  }
}

// H4: nobody told us, and the WAL is gone.
Manifest ManifestOf(ObjectStore& store) { return Must(ReadManifest(store)).manifest; }

// Another machine: what is remembered beside the database is not there.
void MoveAway(const World& w) { std::filesystem::remove_all(w.db.path() + "-guildlite"); }

TEST(Replicator, AnOpenWithNothingNewTakesTwoRequestsAndItsCloseNone) {
  World w;
  std::mt19937_64 random(1);
  w.ReplicatedAndClosed(random);
  EXPECT_NE(ManifestOf(w.memory).released_ms, 0);
  const uint64_t rev = ManifestOf(w.memory).rev;
  const uint64_t before = w.store.calls(FaultStore::kAny);
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  EXPECT_TRUE(process->Disconnect());
  EXPECT_EQ(w.store.calls(FaultStore::kAny) - before, 2u);
  EXPECT_EQ(ManifestOf(w.memory).rev, rev);
}

TEST(Replicator, ATakeoverTakesTwelveRequestsAtMost) {
  World w;
  std::mt19937_64 random(1);
  w.ReplicatedAndClosed(random);
  MoveAway(w);
  std::atomic<bool> settled = false;
  std::atomic<int> calls = 0;
  w.store.OnCall([&](const FaultStore::Call&) {
    if (!settled) ++calls;
    return Fault::kNone;
  });
  auto process = w.Open(true);
  ASSERT_TRUE(process->Settled().ok());
  settled = true;
  EXPECT_LE(calls, 12);
  EXPECT_EQ(process->replicator->status().epoch, Epoch(2));
}

// A mark that the owner is away would mislead whoever waits for it: it goes once something ships,
// though not for a program that is closed again at once.
TEST(Replicator, AnOwnerThatCameBackTakesItsReleaseAway) {
  World w;
  std::mt19937_64 random(1);
  w.ReplicatedAndClosed(random);
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  EXPECT_NE(ManifestOf(w.memory).released_ms, 0) << "nothing shipped so far";
  w.db.CommitRandom(random);
  ASSERT_TRUE(process->Sync().ok());
  while (ManifestOf(w.memory).released_ms != 0) std::this_thread::yield();
  EXPECT_EQ(ManifestOf(w.memory).epoch, Epoch(1));
  const uint64_t rev = ManifestOf(w.memory).rev;
  ASSERT_TRUE(process->Disconnect());
  EXPECT_NE(ManifestOf(w.memory).released_ms, 0);
  EXPECT_EQ(ManifestOf(w.memory).rev, rev + 1) << "one swap a close";
}

TEST(Replicator, AReleaseThatFailsDoesNotHinderAClose) {
  for (const Fault fault : {Fault::kFail, Fault::kDrop, Fault::kLoseReply, Fault::kHold}) {
    World w;
    std::mt19937_64 random(1);
    auto process = w.Open(true);
    ASSERT_TRUE(process->Settled().ok());
    w.db.CommitRandom(random);
    ASSERT_TRUE(process->Sync().ok());
    w.store.OnCall([&](const FaultStore::Call& call) {
      return call.kind == FaultStore::kPut && call.key == kManifestKey ? fault : Fault::kNone;
    });
    EXPECT_TRUE(process->Disconnect());
    EXPECT_EQ(process->AllWarnings(), "");
    w.store.OnCall(nullptr);
    auto next = w.Open(false);
    ASSERT_TRUE(next->Settled().ok());
    w.store.DeliverHeld();
    w.db.CommitRandom(random);
    ASSERT_TRUE(next->Sync().ok());
    EXPECT_EQ(next->replicator->status().epoch, Epoch(1));
    w.ExpectLatest();
  }
}

TEST(Replicator, AReleasedLogIsTakenOverAtOnce) {
  for (const bool stopped : {false, true}) {
    World w;
    std::mt19937_64 random(1);
    {
      auto process = w.Open(true);
      Must(process->Settled());
      w.db.CommitRandom(random);
      if (stopped) {
        ASSERT_TRUE(process->replicator->Stop(20'000).ok());
      } else {
        Must(process->Sync());
        ASSERT_TRUE(process->Disconnect());
      }
    }
    if (!stopped) MoveAway(w);
    Options options = FastOptions();
    options.takeover_after_ms = 3'600'000;
    auto process = w.Open(true, options);
    ASSERT_TRUE(process->Settled().ok());
    EXPECT_EQ(ManifestOf(w.memory).released_ms, 0);
    EXPECT_EQ(ManifestOf(w.memory).epoch, Epoch(2));
    w.db.CommitRandom(random);
    ASSERT_TRUE(process->Sync().ok());
    w.ExpectLatest();
  }
}

// Neither does it go on unshipped: there is somebody who owns the log, and the store answers.
TEST(Replicator, ATakeoverWaitsForTheReleaseAndWritesWithIt) {
  World w;
  std::mt19937_64 random(1);
  w.Replicated(random);
  MoveAway(w);
  Options options = FastOptions();
  options.takeover_after_ms = 3'600'000;
  options.open_wait_ms = 20;
  auto process = w.Open(true, options);
  Status waiting;
  while ((waiting = process->Settled(50)).tag() == Tag::kTimeout) {
  }
  EXPECT_EQ(waiting.tag(), Tag::kBusy);
  EXPECT_THAT(waiting.message(), ::testing::HasSubstr("process rig, since 20"));
  const uint64_t polls = w.store.calls(FaultStore::kAny);
  while (w.store.calls(FaultStore::kAny) == polls) {
    EXPECT_EQ(process->replicator->BeforeWriteLock().tag(), Tag::kBusy);
    EXPECT_EQ(process->replicator->BeforeExclusiveWrite().tag(), Tag::kBusy);
  }
  const ReplicationStatus status = process->replicator->status();
  EXPECT_EQ(status.state, ReplicationState::kStarting);
  EXPECT_EQ(status.owner, "process rig");
  EXPECT_NE(status.owner_read_ms, 0);
  EXPECT_EQ(ManifestOf(w.memory).epoch, Epoch(1));
  ASSERT_TRUE(UpdateManifest(w.memory, SystemRandom(), [](Manifest& m) {
                m.released_ms = 1;
                return Status::Ok();
              }).ok());
  ASSERT_TRUE(process->Settled().ok());
  EXPECT_EQ(process->replicator->status().owner_read_ms, 0) << "by its own claim";
  w.db.CommitRandom(random);
  ASSERT_TRUE(process->Sync().ok());
  w.ExpectLatest();
}

TEST(Replicator, ALogThatIsNotReleasedIsTakenOverInTheEnd) {
  World w;
  std::mt19937_64 random(1);
  w.Replicated(random);
  MoveAway(w);
  Options options = FastOptions();
  options.takeover_after_ms = 100;
  const int64_t began_ms = SystemClock().MonotonicMs();
  auto process = w.Open(true, options);
  ASSERT_TRUE(process->Settled().ok());
  EXPECT_GE(SystemClock().MonotonicMs() - began_ms, 100);
  EXPECT_EQ(ManifestOf(w.memory).epoch, Epoch(2));
}

TEST(Replicator, WhoeverIsFencedLearnsByWhom) {
  World w;
  std::mt19937_64 random(1);
  auto process = w.Open(true);
  ASSERT_TRUE(process->Settled().ok());
  EXPECT_EQ(process->replicator->status().owner, "process rig");
  w.db.CommitRandom(random);
  ASSERT_TRUE(process->Sync().ok());
  Must(ClaimNext(w.memory, SystemRandom(), SystemClock(), Must(LookAtStore(w.memory, std::nullopt)),
                 {Session(77), "the thief"}));
  w.db.CommitRandom(random);
  EXPECT_EQ(process->Sync().tag(), Tag::kFenced);
  while (process->replicator->status().owner != "the thief") std::this_thread::yield();
  while (process->replicator->BeforeWriteLock().message().find("the thief, since 20") ==
         std::string::npos) {
    std::this_thread::yield();
  }
  EXPECT_EQ(process->replicator->status().owner_since_ms, ManifestOf(w.memory).claimed_ms);
  EXPECT_NE(process->replicator->status().owner_read_ms, 0);
}

TEST(Replicator, AStopEndsThoughTheReleaseHangs) {
  World w;
  std::mt19937_64 random(1);
  std::latch release(1);
  auto process = w.Open(true);
  ASSERT_TRUE(process->Settled().ok());
  w.db.CommitRandom(random);
  ASSERT_TRUE(process->Sync().ok());
  w.store.OnCall([&](const FaultStore::Call& call) {
    if (call.key == kManifestKey) release.wait();
    return Fault::kNone;
  });
  EXPECT_TRUE(process->replicator->Stop(50).ok());
  EXPECT_EQ(process->replicator->status().state, ReplicationState::kStopped);
  release.count_down();
  while (!process->replicator->gone()) std::this_thread::yield();
  w.ExpectLatest();
}

// An exit while another thread's replication_stop() waits for the store.
TEST(Replicator, ACloseDoesNotWaitForAStopThatHangs) {
  World w;
  std::mt19937_64 random(1);
  std::latch inside(1), release(1);
  auto process = w.Open(true);
  ASSERT_TRUE(process->Settled().ok());
  w.store.OnCall([&](const FaultStore::Call& call) {
    if (IsLogPut(call)) {
      inside.count_down();
      release.wait();
    }
    return Fault::kNone;
  });
  w.db.CommitRandom(random);
  inside.wait();
  Status stopped;
  std::thread stopping([&] { stopped = process->replicator->Stop(3'600'000); });
  while (process->replicator->BeforeWriteLock().ok()) std::this_thread::yield();
  process->replicator->Close(20);
  EXPECT_NE(process->replicator->status().state, ReplicationState::kStopped);
  w.store.OnCall(nullptr);
  release.count_down();
  stopping.join();
  EXPECT_TRUE(stopped.ok()) << stopped.ToString();
  w.ExpectLatest();
}

TEST(Replicator, AWaitForAnEarlierEpochsPositionEndsThoughTheStoreHangs) {
  World w;
  std::mt19937_64 random(1);
  std::optional<Position> position;
  {
    auto process = w.Open(true);
    Must(process->Settled());
    w.db.CommitRandom(random);
    position = process->replicator->position();
    w.db.CommitRandom(random);
    Must(process->Sync());
  }
  w.Reboot();
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  ASSERT_TRUE(process->Sync().ok());
  std::latch release(1);
  w.store.OnCall([&](const FaultStore::Call& call) {
    if (call.kind == FaultStore::kGet) release.wait();
    return Fault::kNone;
  });
  for (const int64_t timeout_ms : {0, 30}) {
    const auto waited = process->replicator->Wait(*position, timeout_ms);
    ASSERT_TRUE(waited.ok()) << waited.status().ToString();
    EXPECT_FALSE(*waited) << "not known";
  }
  release.count_down();
  EXPECT_TRUE(Must(process->replicator->Wait(*position, 20'000)));
  EXPECT_TRUE(Must(process->replicator->Wait(*position, 0))) << "known by now";
}

TEST(Replicator, WhatAStrangerWroteWhileClosedIsHealed) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.ReplicatedAndClosed(random);
  w.db.Open();
  for (int i = 0; i < 5; ++i) w.db.CommitRandom(random, 30, /*stranger=*/true);
  w.db.Close(/*stranger=*/true);
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString();
  w.ExpectLatest();
}

TEST(Replicator, AStrangersWriteBetweenTheProofAndTheClaimIsHealed) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.ReplicatedAndClosed(random);
  w.store.SetOutage(Fault::kFail);
  Process process(w.db, w.store, {FastOptions(), false, {}, {}});
  EXPECT_FALSE(process.Settled(50).ok());
  w.db.Open();
  w.db.Stranger({{1, 99}}, w.db.pages());
  w.db.Close(/*stranger=*/true);
  w.store.SetOutage(Fault::kNone);
  process.Connect();
  ASSERT_TRUE(process.Settled().ok());
  w.db.CommitRandom(random);
  const Status synced = process.Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString();
  w.ExpectLatest();
}

// PRAGMA journal_mode=DELETE deletes the WAL after our gate; what follows never passes a WAL.
TEST(Replicator, AWriteInRollbackJournalModeBeforeTheCloseIsHealed) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  {
    auto process = w.Open(true);
    ASSERT_TRUE(process->Settled().ok());
    w.db.Commit({{1, 1}, {2, 2}, {3, 3}}, 3);
    ASSERT_TRUE(process->Sync().ok());
    ASSERT_TRUE(w.db.Close());
    process->replicator->IndexUnmapping(process.get());
    w.db.CommitInPlace({{2, 4711}}, 3);
    process->Disconnect();
  }
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  w.db.CommitRandom(random);
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString();
  w.ExpectLatest();
}

// H15.
TEST(Replicator, ASpoolLostWithoutItsTableLeavesNoHoleInTheLog) {
  for (const bool power_loss : {false, true}) {
    World w;
    std::mt19937_64 random(testing::TestSeed());
    {
      auto process = w.Open(true);
      ASSERT_TRUE(process->Settled().ok());
      for (int i = 0; i < 5; ++i) w.db.CommitRandom(random);
      ASSERT_TRUE(process->Sync().ok());
      w.store.SetOutage(Fault::kFail);
      for (int i = 0; i < 5; ++i) w.db.CommitRandom(random);
      process->Disconnect(20);
    }
    for (const auto& entry :
         std::filesystem::directory_iterator(w.db.path() + "-guildlite/spool")) {
      if (power_loss) {
        std::filesystem::resize_file(entry.path(), std::filesystem::file_size(entry.path()) / 2);
      } else {
        std::filesystem::remove(entry.path());
      }
    }
    if (power_loss) w.Reboot();
    w.store.SetOutage(Fault::kNone);
    auto process = w.Open(false);
    ASSERT_TRUE(process->Settled().ok());
    w.db.CommitRandom(random);
    const Status synced = process->Sync();
    ASSERT_TRUE(synced.ok()) << synced.ToString();
    w.ExpectLatest(power_loss ? "torn" : "gone");
  }
}

// The capture task finds nothing left to do then, and nobody else wakes the shipper.
TEST(Replicator, ACommitCapturedByWhoeverAskedForItsPositionShips) {
  World w;
  auto process = w.Open(true);
  ASSERT_TRUE(process->Settled().ok());
  for (uint64_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(w.db.Commit({{1, i}}, 1));
    const auto position = process->replicator->position();
    ASSERT_TRUE(position);
    const int64_t deadline = SystemClock().MonotonicMs() + 5000;
    while (process->replicator->durable_position() != position) {
      ASSERT_LT(SystemClock().MonotonicMs(), deadline) << "commit " << i << " never ships";
      std::this_thread::yield();
    }
  }
}

// H8: nothing tells whether the WAL had more, so a number handed out is not given away twice.
TEST(Replicator, AfterAPowerLossItGoesOnInANewEpochWithoutAHeal) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  std::optional<Position> shipped;
  std::optional<Position> pending;
  {
    auto process = w.Open(true);
    ASSERT_TRUE(process->Settled().ok());
    for (int i = 0; i < 5; ++i) w.db.CommitRandom(random);
    ASSERT_TRUE(process->Sync().ok());
    shipped = process->replicator->position();
    w.store.SetOutage(Fault::kFail);
    w.db.CommitRandom(random);
    pending = process->replicator->position();
  }
  w.store.SetOutage(Fault::kNone);
  w.Reboot();
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  w.db.CommitRandom(random);
  ASSERT_TRUE(process->Sync().ok());
  EXPECT_EQ(process->replicator->status().epoch, Epoch(2));
  EXPECT_EQ(process->replicator->status().capture.heals, 0u) << process->AllWarnings();
  w.ExpectLatest();
  w.ExpectDenseLog();
  ASSERT_TRUE(shipped && pending);
  auto waited = process->replicator->Wait(*shipped, 1000);
  EXPECT_TRUE(waited.ok() && *waited) << waited.status().ToString();
  EXPECT_EQ(process->replicator->Wait(*pending, 0).status().tag(), Tag::kPositionLost);
}

TEST(Replicator, AMachineStartedAnewAfterACleanCloseGoesOnInItsEpoch) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.ReplicatedAndClosed(random);
  w.Reboot();
  {
    auto process = w.Open(false);
    ASSERT_TRUE(process->Settled().ok());
    EXPECT_EQ(process->replicator->status().epoch, Epoch(1));
    w.db.CommitRandom(random);
    ASSERT_TRUE(process->Sync().ok());
    EXPECT_EQ(process->replicator->status().capture.heals, 0u) << process->AllWarnings();
    // Killed: since it was opened, the close before proves nothing about what was handed out.
  }
  w.Reboot();
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  EXPECT_EQ(process->replicator->status().epoch, Epoch(2));
}

TEST(Replicator, APositionOfAnEarlierProcessIsToldFromAForgedOne) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  std::vector<Position> positions;
  const auto commit = [&](Process& process, int n) {
    w.store.SetOutage(Fault::kFail);  // all of them in one object
    for (int i = 0; i < n; ++i) {
      w.db.CommitRandom(random);
      positions.push_back(*process.replicator->position());
    }
    w.store.SetOutage(Fault::kNone);
    ASSERT_TRUE(process.Sync().ok());
  };
  const auto check = [&](Process& process) {
    for (Position p : positions) {
      // Of an earlier epoch only the store knows: the first to ask waits for it, the second need
      // not.
      for (const int64_t timeout_ms : {20'000, 0}) {
        auto waited = process.replicator->Wait(p, timeout_ms);
        EXPECT_TRUE(waited.ok() && *waited) << p.ToString() << waited.status().ToString();
        Position forged = p;
        forged.check ^= 1;
        EXPECT_EQ(process.replicator->Wait(forged, timeout_ms).status().tag(), Tag::kPositionLost)
            << p.ToString();
      }
    }
  };
  {
    auto process = w.Open(true);
    ASSERT_TRUE(process->Settled().ok());
    for (int i = 0; i < 4; ++i) commit(*process, 1 + i);
    check(*process);
  }
  {
    auto process = w.Open(false);
    ASSERT_TRUE(process->Settled().ok());
    ASSERT_TRUE(process->Sync().ok());
    check(*process);
    commit(*process, 3);
  }
  w.Reboot();
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  ASSERT_TRUE(process->Sync().ok());
  EXPECT_EQ(process->replicator->status().epoch, Epoch(2));
  check(*process);
  Position other = positions.back();
  other.epoch = Epoch(2);
  other.txid = Txid(1);
  EXPECT_EQ(process->replicator->Wait(other, 20'000).status().tag(), Tag::kPositionLost)
      << "the second epoch began later";
}

// H17: in the log, but no snapshot is below it.
TEST(Replicator, APositionOfAnEpochThatNothingRestoresIsNotDurable) {
  World w;
  w.store.OnCall([](const FaultStore::Call& call) {
    return call.kind == FaultStore::kPut && call.key.starts_with("snapshot") ? Fault::kFail
                                                                             : Fault::kNone;
  });
  std::optional<Position> position;
  {
    auto process = w.Open(true);
    ASSERT_TRUE(process->Settled().ok());
    w.db.Commit({{1, 1}, {2, 2}}, 2);
    position = process->replicator->position();
    while (process->replicator->status().ship.puts == 0) std::this_thread::yield();
  }
  w.Reboot();
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  ASSERT_TRUE(position);
  EXPECT_GT(process->replicator->status().epoch, position->epoch);
  auto waited = process->replicator->Wait(*position, 0);
  EXPECT_FALSE(waited.ok() && *waited);
  w.store.OnCall(nullptr);
  ASSERT_TRUE(process->Sync().ok());
  w.ExpectLatest();
}

// Whatever the sidecar remembers of it, and however it came to be: nothing after its begin
// restores.
TEST(Replicator, AHealLeftOpenInTheLogIsEndedByTheNextOpen) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.ReplicatedAndClosed(random);
  {
    w.db.Open();
    w.db.Stranger({{1, 77}}, w.db.pages());
    w.db.Close(/*stranger=*/true);
    std::atomic<bool> begun{false};
    w.store.OnCall([&](const FaultStore::Call& call) {
      if (begun) return Fault::kFail;
      if (IsLogPut(call)) {
        auto walk = WalkLog(w.memory, Must(ReadManifest(w.memory)).manifest, Slot(1));
        begun = walk.ok() && walk->entries.back().header.kind == ObjectKind::kHealBegin;
      }
      return begun ? Fault::kFail : Fault::kNone;
    });
    auto process = w.Open(false);
    ASSERT_TRUE(process->Settled().ok());
    while (process->replicator->status().capture.scan_pages != 0 || !begun) {
      std::this_thread::yield();
    }
  }
  w.store.OnCall(nullptr);
  {
    Sidecar sidecar(w.db.path() + "-guildlite");
    Must(sidecar.Lock());
    Must(sidecar.WriteHealOwed(false));
  }
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  w.db.CommitRandom(random);
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString();
  w.ExpectLatest();
}

// Killed between the swap of the manifest and the FENCE: until that is in the log the old owner
// ships on.
TEST(Replicator, ATakeoverCutShortComparesWithWhatTheOldOwnerShippedMeanwhile) {
  for (const bool shipped_meanwhile : {false, true}) {
    World w;
    std::mt19937_64 random(testing::TestSeed());
    auto owner = w.Open(true);
    ASSERT_TRUE(owner->Settled().ok());
    for (int i = 0; i < 5; ++i) w.db.CommitRandom(random);
    ASSERT_TRUE(owner->Sync().ok());

    TempDir elsewhere;
    SimDatabase copy(elsewhere.File("app.db"));
    Must(RemoveFile(copy.path()));
    Must(ReplaceFile(copy.path(), w.db.content()));
    FaultStore others(w.memory);
    others.OnCall(
        [](const FaultStore::Call& call) { return IsLogPut(call) ? Fault::kFail : Fault::kNone; });
    {
      Process taker(copy, others, {FastOptions(), true, {}, {}});
      taker.Connect();
      while (Must(ReadManifest(w.memory)).manifest.epoch == Epoch(1)) std::this_thread::yield();
    }
    others.OnCall(nullptr);
    if (shipped_meanwhile) {
      w.db.CommitRandom(random);
      ASSERT_TRUE(owner->Sync().ok());
    }
    Process taker(copy, others, {FastOptions(), false, {}, {}});
    taker.Connect();
    const Status settled = taker.Settled();
    if (shipped_meanwhile) {
      EXPECT_EQ(settled.tag(), Tag::kDiverged) << settled.ToString();
      w.ExpectLatest("the old owner's");
      continue;
    }
    ASSERT_TRUE(settled.ok()) << settled.ToString();
    EXPECT_EQ(taker.replicator->status().capture.heals, 0u) << taker.AllWarnings();
    w.db.CommitRandom(random);
    EXPECT_FALSE(owner->Sync().ok()) << "it has met the FENCE";
  }
}

// What was captured while the store was away must not be numbered on when another writer had the
// log in between.
TEST(Replicator, AComparisonAfterAnOutageForgetsWhatWasCapturedMeanwhile) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.Replicated(random);  // killed: the WAL holds the mark of the log's tip
  {
    TempDir elsewhere;
    SimDatabase copy(elsewhere.File("app.db"));
    Must(RemoveFile(copy.path()));
    Must(ReplaceFile(copy.path(), w.db.content()));
    Process successor(copy, w.store, {FastOptions(), true, {}, {}});
    successor.Connect();
    const Status settled = successor.Settled();
    ASSERT_TRUE(settled.ok()) << settled.ToString();
  }
  w.store.SetOutage(Fault::kFail);
  Options options = FastOptions();
  options.open_wait_ms = 10;
  auto process = w.Open(true, options);
  while (process->warnings().empty()) std::this_thread::yield();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(w.db.CommitRandom(random));
  while (process->replicator->status().capture.transactions < 5) std::this_thread::yield();
  w.store.SetOutage(Fault::kNone);
  const Status settled = process->Settled();
  ASSERT_TRUE(settled.ok()) << settled.ToString();
  ASSERT_TRUE(w.db.CommitRandom(random));
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString() << process->AllWarnings();
  EXPECT_EQ(process->replicator->status().capture.heals, 0u) << process->AllWarnings();
  w.ExpectLatest();
  w.ExpectDenseLog();
}

// Within one tick of the file system's clock a write changes no time of the file.
TEST(Replicator, AStrangersWriteRightAfterTheCloseIsHealed) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  for (uint64_t life = 0; life < 8; ++life) {
    auto process = w.Open(true);
    ASSERT_TRUE(process->Settled().ok());
    ASSERT_TRUE(w.db.Commit({{1, life}, {2, life}, {3, life}}, 3));
    ASSERT_TRUE(process->Sync().ok()) << life;
    w.ExpectLatest(std::to_string(life));
    ASSERT_TRUE(w.db.Close());
    process->replicator->IndexUnmapping(process.get());
    process->replicator->LeavingExclusive();
    w.db.Open();
    w.db.Stranger({{2, 1000 + life}}, 3);
    w.db.Close(/*stranger=*/true);
    process->replicator->Close(5000);
  }
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  ASSERT_TRUE(process->Sync().ok());
  w.ExpectLatest();
}

TEST(Replicator, AStoreEmptiedDuringAnOutageGetsANewLogOfEverything) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.ReplicatedAndClosed(random);
  for (const ListEntry& entry : Must(w.memory.List("", "", 1000))) Must(w.memory.Delete(entry.key));
  w.store.SetOutage(Fault::kFail);
  Options options = FastOptions();
  options.open_wait_ms = 10;
  auto process = w.Open(true, options);
  while (process->warnings().empty()) std::this_thread::yield();
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(w.db.CommitRandom(random));
  w.store.SetOutage(Fault::kNone);
  ASSERT_TRUE(process->Settled().ok());
  w.db.CommitRandom(random);
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString();
  w.ExpectLatest();
}

TEST(Replicator, AQueueDroppedBeforeAnythingShippedIsHealed) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.store.OnCall([](const FaultStore::Call& call) {
    return IsLogPut(call) && call.key != LogKey(Slot(1)) ? Fault::kFail : Fault::kNone;
  });
  Options options = FastOptions();
  options.spool_limit_bytes = 60'000;
  auto process = w.Open(true, options);
  ASSERT_TRUE(process->Settled().ok());
  for (int i = 0; i < 150; ++i) {
    w.db.CommitRandom(random);
    w.db.CheckpointRestart();
  }
  w.store.OnCall(nullptr);
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString() << process->AllWarnings();
  w.ExpectLatest();
}

// The pages of batches an earlier process left in the spool are not in the log either.
TEST(Replicator, ADropAlsoHealsWhatAnEarlierProcessHadSpooled) {
  World w;
  {
    auto process = w.Open(true);
    ASSERT_TRUE(process->Settled().ok());
    w.db.Commit({{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}, {6, 6}}, 6);
    ASSERT_TRUE(process->Sync().ok());
    w.store.SetOutage(Fault::kFail);
    for (uint64_t i = 0; i < 5; ++i) w.db.Commit({{2, 100 + i}, {3, 200 + i}}, 6);
    ASSERT_TRUE(process->Disconnect(20));
    w.store.SetOutage(Fault::kNone);
  }
  w.store.OnCall(
      [](const FaultStore::Call& call) { return IsLogPut(call) ? Fault::kFail : Fault::kNone; });
  Options options = FastOptions();
  options.spool_limit_bytes = 60'000;
  auto process = w.Open(false, options);
  ASSERT_TRUE(process->Settled().ok());
  for (uint64_t i = 0; i < 300; ++i) {
    w.db.Commit({{4, 300 + i}}, 6);
    w.db.CheckpointRestart();
  }
  w.store.OnCall(nullptr);
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString() << process->AllWarnings();
  EXPECT_THAT(process->AllWarnings(), ::testing::HasSubstr("limit"));
  w.ExpectLatest();
}

TEST(Replicator, ASnapshotAfterARestartFindsTheFramesOfBefore) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.Replicated(random);
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  auto snapshot = process->replicator->CreateSnapshot("after", 20'000);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status().ToString();
  EXPECT_EQ(process->replicator->status().capture.heals, 0u) << process->AllWarnings();
  w.ExpectLatest();
  auto content = RestoredContent(w.memory, w.dir.path(), "label:after");
  ASSERT_TRUE(content.ok()) << content.status().ToString();
  EXPECT_TRUE(*content == w.db.content());
}

// H4, and a disk older than the store: the new owner's commits are never undone by a returning one.
TEST(Replicator, AZombieThatDroppedItsQueueDoesNotTakeTheLogFromItsSuccessor) {
  World w;
  std::mt19937_64 random(testing::TestSeed());
  w.ReplicatedAndClosed(random);
  TempDir elsewhere;
  SimDatabase copy(elsewhere.File("app.db"));
  Must(RemoveFile(copy.path()));
  Must(ReplaceFile(copy.path(), w.db.content()));
  {
    // The successor, on a copy of the newest state.
    Process successor(copy, w.store, {FastOptions(), true, {}, {}});
    successor.Connect();
    const Status settled = successor.Settled();
    ASSERT_TRUE(settled.ok()) << settled.ToString();
    copy.Commit({{1, 4242}, {2, 4243}}, 2);
    ASSERT_TRUE(successor.Sync().ok());
  }
  w.store.SetOutage(Fault::kFail);
  Options options = FastOptions();
  options.open_wait_ms = 10;
  options.spool_limit_bytes = 10'000;
  auto zombie = w.Open(false, options);
  while (zombie->warnings().empty()) std::this_thread::yield();
  for (int i = 0; i < 100; ++i) {
    w.db.CommitRandom(random);
    w.db.CheckpointRestart();
  }
  w.store.SetOutage(Fault::kNone);
  EXPECT_EQ(zombie->Settled().tag(), Tag::kFenced);
  EXPECT_FALSE(w.db.CommitRandom(random)) << "writes are refused";
  EXPECT_EQ(Must(ReadManifest(w.memory)).manifest.epoch, Epoch(2));
}

// A disk that was copied as a whole, device and inode too: both copies go on from the same clean
// close, in the same epoch and session.
TEST(Replicator, OfTwoCopiesOfOneDiskTheSecondToShipIsFenced) {
  for (const bool second_is_ahead : {false, true}) {
    World w;
    std::mt19937_64 random(testing::TestSeed());
    w.ReplicatedAndClosed(random);
    TempDir elsewhere;
    SimDatabase copy(elsewhere.File("app.db"));
    copy.Become(w.db.content());
    std::filesystem::copy(w.db.path() + "-guildlite", copy.path() + "-guildlite",
                          std::filesystem::copy_options::recursive);
    {
      const FileIdentity file = Must(IdentityOf(copy.path()));
      Sidecar sidecar(copy.path() + "-guildlite");
      Must(sidecar.Lock());
      SidecarState state = *Must(sidecar.ReadState());
      state.device = file.device;
      state.inode = file.inode;
      Must(sidecar.WriteState(state));
      CleanClose clean = *sidecar.ReadClean();
      clean.device = file.device;
      clean.inode = file.inode;
      clean.ctime_ns = file.ctime_ns;
      clean.recorded_ns = file.ctime_ns + kCleanGapNs;
      Must(sidecar.WriteClean(clean));
    }
    Process second(copy, w.store);
    second.Connect();
    Must(second.Settled());
    auto first = w.Open(false);
    Must(first->Settled());
    ASSERT_EQ(second.replicator->status().epoch, Epoch(1));
    for (int i = 0; i < (second_is_ahead ? 1 : 3); ++i) w.db.CommitRandom(random);
    Must(first->Sync());
    for (int i = 0; i < (second_is_ahead ? 3 : 1); ++i) copy.CommitRandom(random);
    EXPECT_EQ(second.Sync().tag(), Tag::kFenced) << second.AllWarnings();
    EXPECT_FALSE(copy.CommitRandom(random)) << "writes are refused";
    Must(second.replicator->WaitKept(20'000));
    EXPECT_THAT(Must(w.memory.List(kOrphanPrefix, "", 10)), ::testing::Not(::testing::IsEmpty()));
    w.db.CommitRandom(random);
    Must(first->Sync());
    EXPECT_EQ(Must(ReadManifest(w.memory)).manifest.epoch, Epoch(1));
    w.ExpectLatest();
  }
}

// kill -9 at random, at any moment of capture, shipping and scanning: nothing committed is missing
// after the next sync, and every restore point is a state that was committed.
TEST(Replicator, KilledAtRandomNothingCommittedIsMissing) {
  const uint64_t seed = testing::TestSeed();
  std::mt19937_64 random(seed);
  World w(random() % 2 == 0 ? 512 : 1024);
  for (int life = 0; life < 25; ++life) {
    Options options = FastOptions();
    options.snapshot_min_bytes = 20'000;
    options.join_slots = 2 + random() % 20;
    options.delete_after_ms = 0;
    auto process = w.Open(random() % 2 == 0, options);
    if (random() % 4 != 0) {
      const Status settled = process->Settled();
      ASSERT_TRUE(settled.ok()) << settled.ToString() << " life " << life;
    }
    const uint64_t commits = random() % 30;
    for (uint64_t i = 0; i < commits; ++i) {
      w.db.CommitRandom(random);
      if (random() % 5 == 0) w.db.Checkpoint();
      if (random() % 10 == 0) w.store.Inject(FaultStore::kAny, 1 + random() % 3, Fault::kLoseReply);
      if (random() % 20 == 0) w.db.CheckpointRestart();
      if (random() % 15 == 0) (void)process->Sync(0);
    }
    switch (random() % 4) {
      case 0: {
        ASSERT_TRUE(process->Settled().ok());
        const Status synced = process->Sync();
        ASSERT_TRUE(synced.ok()) << synced.ToString() << " life " << life;
        w.ExpectLatest("life " + std::to_string(life));
        break;
      }
      case 1:
        ASSERT_TRUE(process->Settled().ok());
        process->Disconnect();
        break;
      default:
        break;  // killed
    }
  }
  auto process = w.Open(false);
  ASSERT_TRUE(process->Settled().ok());
  const Status synced = process->Sync();
  ASSERT_TRUE(synced.ok()) << synced.ToString() << process->AllWarnings();
  w.ExpectLatest();
  w.ExpectDenseLog();
  const uint64_t tip = process->replicator->position()->txid.value;
  for (uint64_t txid = 0; txid <= tip; txid += 1 + random() % 3) {
    auto content = RestoredContent(w.memory, w.dir.path(), std::to_string(txid));
    if (!content.ok()) {
      EXPECT_EQ(content.status().tag(), Tag::kNoSuchPoint) << content.status().ToString();
      continue;
    }
    EXPECT_THAT(w.db.contents(), ::testing::Contains(*content)) << "txid " << txid;
  }
}

}  // namespace
}  // namespace guildlite
