// What becomes of a writer whose log another one took: nothing it committed is lost, nothing of it
// reaches the log after the FENCE, and whatever fails on the way, trying again ends the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/replicate/process_rig.h"
#include "tests/replicate/sim_database.h"
#include "tests/support/fault_store.h"
#include "tests/support/temp_dir.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"
#include "vfs/objects/orphans.h"
#include "vfs/replicate/claim.h"
#include "vfs/replicate/replicator.h"

namespace guildlite {
namespace {

using testing::FastOptions;
using ::testing::HasSubstr;
using testing::Must;
using testing::Process;
using testing::ProcessSettings;
using testing::RestoredContent;
using testing::SimDatabase;

struct World {
  explicit World(uint64_t seed = 7) : random(seed), db(dir.File("app.db"), 512) {}

  std::unique_ptr<Process> Open(bool asked, const Options& options = FastOptions()) {
    auto process = std::make_unique<Process>(db, store, ProcessSettings{options, asked, {}, {}});
    process->Connect();
    return process;
  }
  // Commits that the store never hears of, and where each of them is.
  void CommitAlone(Process& process, int commits) {
    store.SetOutage(Fault::kFail);
    for (int i = 0; i < commits; ++i) {
      ASSERT_TRUE(db.CommitRandom(random));
      if (random() % 3 == 0) db.Checkpoint();
      const auto position = process.replicator->position();
      ASSERT_TRUE(position);
      alone.push_back({position->ToString(), db.content()});
    }
  }
  // Another writer begins the next epoch, and writes nothing.
  void Succeed() {
    const StoreView seen = Must(LookAtStore(memory, std::nullopt));
    const StoreView claimed = Must(ClaimNext(memory, SystemRandom(), SystemClock(), seen,
                                             {Session(SystemRandom().Next64()), "successor"}));
    fence = Slot(claimed.next.value - 1);
    store.SetOutage(Fault::kNone);
  }
  void ExpectAllAlone(const std::string& when = "") {
    for (const auto& [position, content] : alone) {
      const auto restored = RestoredContent(memory, dir.path(), position);
      ASSERT_TRUE(restored.ok()) << when << " " << restored.status().ToString();
      EXPECT_TRUE(*restored == content) << when << " " << position;
    }
  }
  void ExpectLogEndsInTheFence() {
    const StoreView seen = Must(LookAtStore(memory, std::nullopt));
    EXPECT_EQ(seen.next, fence.Next());
  }
  std::vector<OrphanName> Orphans() { return Must(ListOrphans(memory, kOrphanPrefix)); }

  std::mt19937_64 random;
  TempDir dir;
  MemoryStore memory;
  FaultStore store{memory};
  SimDatabase db;
  Slot fence;
  std::vector<std::pair<std::string, std::string>> alone;  // position, content
};

// Replicated, then three commits of which the store knows nothing.
std::unique_ptr<Process> WithTail(World& w, int tail = 3) {
  auto process = w.Open(true);
  Must(process->Settled());
  for (int i = 0; i < 4; ++i) w.db.CommitRandom(w.random);
  Must(process->Sync());
  w.CommitAlone(*process, tail);
  return process;
}

TEST(Deposed, SavesItsTailAndSaysWhere) {
  World w;
  auto process = WithTail(w);
  const auto durable = process->replicator->durable_position();
  w.Succeed();
  EXPECT_EQ(process->Sync().tag(), Tag::kFenced);
  Must(process->replicator->WaitKept(20'000));
  EXPECT_EQ(process->replicator->durable_position(), durable);
  EXPECT_EQ(process->replicator->status().state, ReplicationState::kFenced);
  EXPECT_THAT(process->replicator->last_error(), HasSubstr(w.alone.back().first));
  EXPECT_THAT(process->replicator->last_error(), HasSubstr("3 transactions"));
  EXPECT_THAT(process->AllWarnings(), HasSubstr(w.alone.back().first));
  EXPECT_FALSE(w.db.CommitRandom(w.random)) << "writes are refused";
  w.ExpectLogEndsInTheFence();
  w.ExpectAllAlone();
}

// What the tail continues is retired one day; its last point needs nothing else.
TEST(Deposed, LeavesItsLastPointRestorableWithoutTheLog) {
  World w;
  auto process = WithTail(w);
  w.Succeed();
  EXPECT_EQ(process->Sync().tag(), Tag::kFenced);
  Must(process->replicator->WaitKept(20'000));
  Must(UpdateManifest(w.memory, SystemRandom(), [&](Manifest& m) {
    for (SnapshotRecord& s : m.snapshots) {
      s.epoch = m.epoch;
      s.first_slot = s.end_slot = w.fence.Next();
    }
    return Status::Ok();
  }));
  const auto [position, content] = w.alone.back();
  EXPECT_TRUE(Must(RestoredContent(w.memory, w.dir.path(), position)) == content);
  const auto before = RestoredContent(w.memory, w.dir.path(), w.alone.front().first);
  EXPECT_EQ(before.status().tag(), Tag::kNoSuchPoint) << before.status().ToString();
  EXPECT_THAT(before.status().message(), HasSubstr("not kept any more"));
}

TEST(Deposed, NamesWhatIsMissingOfTheLogThatItsTailContinues) {
  World w;
  auto process = WithTail(w);
  w.Succeed();
  EXPECT_EQ(process->Sync().tag(), Tag::kFenced);
  Must(process->replicator->WaitKept(20'000));
  process.reset();
  for (Slot slot(1); slot < w.fence; slot = slot.Next()) Must(w.memory.Delete(LogKey(slot)));
  const auto restored = RestoredContent(w.memory, w.dir.path(), w.alone.front().first);
  EXPECT_EQ(restored.status().tag(), Tag::kChainBroken) << restored.status().ToString();
  EXPECT_THAT(restored.status().message(), HasSubstr("missing"));
}

TEST(Deposed, IsRestorableBesideAnotherSessionsDamage) {
  World w;
  auto process = WithTail(w);
  w.Succeed();
  EXPECT_EQ(process->Sync().tag(), Tag::kFenced);
  Must(process->replicator->WaitKept(20'000));
  const std::string damaged = OrphanKey(w.Orphans().front().epoch, Session(1), w.fence);
  Must(w.memory.Put(damaged, "no object", PutCondition::Create()));
  w.ExpectAllAlone();
  Position nowhere = Position::Parse(w.alone.back().first).value();
  nowhere.txid = Txid(nowhere.txid.value + 100);
  const auto restored = RestoredContent(w.memory, w.dir.path(), nowhere.ToString());
  EXPECT_EQ(restored.status().tag(), Tag::kChainBroken) << restored.status().ToString();
  EXPECT_THAT(restored.status().message(), HasSubstr(damaged));
}

TEST(Deposed, ByOneWhoDiedBeforeTheFenceSavesASnapshot) {
  World w;
  auto process = WithTail(w);
  process.reset();
  {
    FaultStore dying(w.memory);
    dying.OnCall([](const FaultStore::Call& call) {
      return call.kind == FaultStore::kPut && call.key.starts_with(kLogPrefix) ? Fault::kFail
                                                                               : Fault::kNone;
    });
    const StoreView seen = Must(LookAtStore(w.memory, std::nullopt));
    EXPECT_FALSE(ClaimNext(dying, SystemRandom(), SystemClock(), seen,
                           {Session(SystemRandom().Next64()), "successor"})
                     .ok());
  }
  w.store.SetOutage(Fault::kNone);
  process = w.Open(false);
  EXPECT_EQ(process->Settled().tag(), Tag::kFenced);
  Must(process->replicator->WaitKept(20'000));
  const auto names = w.Orphans();
  ASSERT_EQ(names.size(), 1u);
  const Manifest m = Must(ReadManifest(w.memory)).manifest;
  const LogEntry last = Must(ReadOrphan(w.memory, m.lineage, names.back()));
  EXPECT_EQ(last.header.kind, ObjectKind::kSnapshot);
  EXPECT_TRUE(Must(RestoredContent(w.memory, w.dir.path(), EndPosition(last.header).ToString())) ==
              w.db.content());
}

TEST(Deposed, WithNothingOfItsOwnLeavesNothing) {
  World w;
  auto process = WithTail(w, 0);
  w.Succeed();
  process.reset();
  process = w.Open(false);
  EXPECT_EQ(process->Settled().tag(), Tag::kFenced);
  Must(process->replicator->WaitKept(20'000));
  EXPECT_TRUE(w.Orphans().empty());
  EXPECT_THAT(process->replicator->last_error(), HasSubstr("is in the log"));
}

TEST(Deposed, KilledBeforeItKnewSavesItsTailAtTheNextOpen) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    World w(seed);
    auto process = WithTail(w, 5);
    if (seed % 3 == 0) w.db.CheckpointRestart();
    if (seed % 3 == 1) (void)process->Disconnect(1);
    process.reset();
    w.Succeed();
    process = w.Open(false);
    EXPECT_EQ(process->Settled().tag(), Tag::kFenced);
    Must(process->replicator->WaitKept(20'000));
    EXPECT_FALSE(w.db.CommitRandom(w.random));
    w.ExpectLogEndsInTheFence();
    w.ExpectAllAlone("seed " + std::to_string(seed));
    // Once more: it is all there.
    const auto before = w.Orphans();
    process.reset();
    process = w.Open(false);
    EXPECT_EQ(process->Settled().tag(), Tag::kFenced);
    Must(process->replicator->WaitKept(20'000));
    EXPECT_EQ(w.Orphans(), before);
  }
}

// In environment mode the reopened database is compared, and is DIVERGED.
TEST(Deposed, AskedForAgainIsDivergedAndSavesItsTailToo) {
  World w;
  auto process = WithTail(w);
  w.db.CheckpointRestart();
  process.reset();
  w.Succeed();
  // So that the log's end is not in the WAL: else the tail would follow it, and be shipped.
  w.db.CommitRandom(w.random);
  w.alone.clear();
  process = w.Open(true);
  const Status settled = process->Settled();
  ASSERT_EQ(settled.tag(), Tag::kDiverged) << settled.ToString();
  Must(process->replicator->WaitKept(20'000));
  const auto names = w.Orphans();
  ASSERT_FALSE(names.empty());
  const Manifest m = Must(ReadManifest(w.memory)).manifest;
  const LogEntry last = Must(ReadOrphan(w.memory, m.lineage, names.back()));
  EXPECT_TRUE(Must(RestoredContent(w.memory, w.dir.path(), EndPosition(last.header).ToString())) ==
              w.db.content());
}

TEST(Deposed, WithoutItsFolderSavesTheWholeDatabaseWhenTheStoreIsToReplaceIt) {
  World w;
  auto process = WithTail(w);
  process.reset();
  std::filesystem::remove_all(w.db.path() + "-guildlite");
  w.Succeed();
  Options options = FastOptions();
  options.on_diverged = "use_store";
  for (int i = 0; i < 2; ++i) {  // again: nothing more is saved
    process = w.Open(true, options);
    const Status settled = process->Settled();
    if (settled.ok()) GTEST_SKIP() << "the log's end was in the WAL";
    ASSERT_EQ(settled.tag(), Tag::kDiverged) << settled.ToString();
    Must(process->replicator->WaitKept(20'000));
    ASSERT_EQ(w.Orphans().size(), 1u);
    const Manifest m = Must(ReadManifest(w.memory)).manifest;
    const LogEntry last = Must(ReadOrphan(w.memory, m.lineage, w.Orphans().back()));
    EXPECT_EQ(last.header.kind, ObjectKind::kSnapshot);
    EXPECT_TRUE(Must(RestoredContent(w.memory, w.dir.path(),
                                     EndPosition(last.header).ToString())) == w.db.content());
    process.reset();
  }
}

TEST(Deposed, BeforeTheFirstScanEndedSavesTheWholeDatabase) {
  World w;
  // The snapshot cannot be stored, so nothing is restorable when the log is taken.
  w.store.OnCall([](const FaultStore::Call& call) {
    return call.key.starts_with(kSnapshotPrefix) ? Fault::kFail : Fault::kNone;
  });
  auto process = w.Open(true);
  Must(process->Settled());
  w.db.CommitRandom(w.random);
  w.Succeed();
  w.db.CommitRandom(w.random);
  EXPECT_EQ(process->Sync().tag(), Tag::kFenced);
  Must(process->replicator->WaitKept(20'000));
  EXPECT_FALSE(process->replicator->durable_position());
  const auto names = w.Orphans();
  ASSERT_EQ(names.size(), 1u);
}

// The tail's place depends on the log; without its folder's table it is not known, and a snapshot
// depends on nothing.
TEST(Deposed, WhoseTableIsGoneSavesASnapshot) {
  World w;
  auto process = WithTail(w);
  process.reset();
  std::filesystem::remove(w.db.path() + "-guildlite/pages");
  w.Succeed();
  process = w.Open(false);
  EXPECT_EQ(process->Settled().tag(), Tag::kFenced);
  Must(process->replicator->WaitKept(20'000));
  const auto names = w.Orphans();
  ASSERT_EQ(names.size(), 1u);
  const Manifest m = Must(ReadManifest(w.memory)).manifest;
  const LogEntry last = Must(ReadOrphan(w.memory, m.lineage, names.back()));
  EXPECT_EQ(last.header.kind, ObjectKind::kSnapshot);
  EXPECT_TRUE(Must(RestoredContent(w.memory, w.dir.path(), EndPosition(last.header).ToString())) ==
              w.db.content());
}

// Every call to the store on the way fails once, in every way a call can, and the process dies
// there or goes on: what is under orphans/ in the end is all of it.
TEST(Deposed, AFaultAtEveryStoreCallEndsTheSame) {
  for (const Fault fault : {Fault::kFail, Fault::kDrop, Fault::kLoseReply}) {
    for (const bool dies : {false, true}) {
      bool reached = true;
      for (uint64_t n = 1; reached && n < 60; ++n) {
        SCOPED_TRACE("fault " + std::to_string(static_cast<int>(fault)) + " at call " +
                     std::to_string(n) + (dies ? ", killed" : ""));
        World w(n);
        auto process = WithTail(w);
        process.reset();
        w.Succeed();
        uint64_t calls = 0;
        std::atomic<bool> hit{false};
        std::mutex mutex;
        w.store.OnCall([&](const FaultStore::Call&) {
          const std::lock_guard lock(mutex);
          if (dies && hit) return Fault::kFail;
          if (++calls != n) return Fault::kNone;
          hit = true;
          return fault;
        });
        process = w.Open(false);
        if (dies) {
          // Until the call was made, or there was none of that number.
          while (!hit && !process->replicator->WaitKept(20).ok()) {
          }
          process.reset();
          w.store.OnCall(nullptr);
          process = w.Open(false);
        }
        EXPECT_EQ(process->Settled().tag(), Tag::kFenced);
        Must(process->replicator->WaitKept(20'000));
        reached = hit;
        w.store.OnCall(nullptr);
        w.ExpectLogEndsInTheFence();
        w.ExpectAllAlone();
        std::set<uint64_t> slots;
        for (const OrphanName& name : w.Orphans())
          EXPECT_TRUE(slots.insert(name.slot.value).second);
        EXPECT_FALSE(slots.empty());
      }
    }
  }
}

}  // namespace
}  // namespace guildlite
