#include "vfs/replicate/log_history.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/support/fault_store.h"
#include "tests/support/log_fixture.h"
#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"
#include "vfs/replicate/compactor.h"
#include "vfs/replicate/sweeper.h"

namespace guildlite {
namespace {

using testing::LogFixture;

struct Epochs {
  // Three epochs, of objects of one to five transactions, in batches of one or more.
  Epochs(ObjectStore& store, const LogFixture::Settings& settings) : log(store, settings) {
    std::mt19937_64 random(3);
    for (int epoch = 1; epoch <= 3; ++epoch) {
      if (epoch > 1) log.Fence();
      slots.push_back({epoch == 1 ? Slot(1) : Slot(log.next_slot().value - 1), Slot()});
      if (epoch > 1) slots[slots.size() - 2].end = slots.back().first;
      for (int object = 0; object < 7; ++object) {
        for (int i = 0; i <= object % 5; ++i) {
          log.CommitRandom(random);
          if (i % 2 == 1) log.CutBatch();
        }
        log.Ship();
        if (object == 3) log.Void();
      }
    }
  }
  LogFixture log;
  std::vector<EpochSlots> slots;
};

TEST(LogHistory, KnowsEveryTransactionOfAnEpochAndNoOther) {
  for (const uint64_t part_bytes : {UINT64_MAX, uint64_t{600}}) {
    MemoryStore memory;
    Epochs epochs(memory, {.part_bytes = part_bytes});
    for (const LogFixture::Point& p : epochs.log.points()) {
      int known = 0;
      for (size_t epoch = 0; epoch < epochs.slots.size(); ++epoch) {
        auto history = HistoryInLog(memory, epochs.slots[epoch], p.position.txid);
        ASSERT_TRUE(history.ok()) << history.status().ToString();
        if (!*history) continue;
        ++known;
        EXPECT_EQ(**history, p.history_hash) << p.position.ToString();
        EXPECT_GE(epoch + 1, p.position.epoch.value) << "a FENCE names the end of the one before";
      }
      EXPECT_GE(known, 1) << p.position.ToString();
    }
    auto beyond = HistoryInLog(memory, epochs.slots.back(), epochs.log.tip().Next());
    ASSERT_TRUE(beyond.ok());
    EXPECT_FALSE(*beyond);
  }
}

// The same with what could be joined in segments, and its slots deleted.
TEST(LogHistory, KnowsWhatWasJoined) {
  MemoryStore memory;
  Epochs epochs(memory, {.part_bytes = 4000});
  TempDir dir(TempDir::Where::kMemory);
  SimClock clock;
  SimRandom random(1);
  Sweeper sweeper(clock, random, memory, {.grace_ms = 0});
  Compactor compactor(clock, random, memory, dir.File("join"),
                      {.join_slots = 1, .segment_bytes = 8000}, [&] { sweeper.TombstonesSet(); });
  const Manifest manifest = ReadManifest(memory)->manifest;
  sweeper.Begin(manifest);
  compactor.Begin(manifest, epochs.log.next_slot());
  const int64_t now = clock.MonotonicMs();
  while (compactor.Step(now) <= now || sweeper.Step(now) <= now) {
  }
  ASSERT_GT(sweeper.counters().deleted, 5u);
  for (const LogFixture::Point& p : epochs.log.points()) {
    const auto history =
        HistoryInLog(memory, epochs.slots[p.position.epoch.value - 1], p.position.txid);
    ASSERT_TRUE(history.ok()) << history.status().ToString();
    ASSERT_TRUE(*history) << p.position.ToString();
    EXPECT_EQ(**history, p.history_hash) << p.position.ToString();
  }
}

TEST(LogHistory, AsksAFewTimesHoweverLongTheLogIs) {
  MemoryStore memory;
  FaultStore store(memory);
  LogFixture log(memory, {});
  std::mt19937_64 random(3);
  for (int i = 0; i < 500; ++i) {
    log.CommitRandom(random, 3);
    log.Ship();
  }
  for (const uint64_t txid : {1u, 17u, 250u, 499u, 500u}) {
    const uint64_t before = store.calls(FaultStore::kGet);
    auto history = HistoryInLog(store, {Slot(1), Slot()}, Txid(txid));
    ASSERT_TRUE(history.ok() && *history);
    EXPECT_EQ(**history, log.LivePoint(Txid(txid)).history_hash);
    EXPECT_LT(store.calls(FaultStore::kGet) - before, 20u) << txid;
  }
}

TEST(LogHistory, AnErrorIsAnError) {
  MemoryStore memory;
  FaultStore store(memory);
  Epochs epochs(memory, {});
  const Txid txid = epochs.log.points()[5].position.txid;
  for (int n = 1;; ++n) {
    const uint64_t before = store.calls(FaultStore::kAny);
    store.Inject(FaultStore::kAny, n, Fault::kFail);
    auto history = HistoryInLog(store, epochs.slots[0], txid);
    if (store.calls(FaultStore::kAny) - before < static_cast<uint64_t>(n)) {
      EXPECT_TRUE(history.ok() && *history);
      break;
    }
    EXPECT_EQ(history.status().tag(), Tag::kStoreUnreachable) << n;
  }
}

}  // namespace
}  // namespace guildlite
