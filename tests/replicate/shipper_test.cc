#include "vfs/replicate/shipper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/replicate/sim_database.h"
#include "tests/replicate/writer_rig.h"
#include "tests/support/fault_store.h"
#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/format/segment_reader.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"
#include "vfs/objects/orphans.h"

namespace guildlite {
namespace {

using testing::Must;
using testing::RestoredContent;
using testing::RigSettings;
using testing::SimDatabase;
using testing::WriterRig;

class ShipperTest : public ::testing::Test {
 protected:
  ShipperTest() : db_(dir_.File("app.db")) {}
  WriterRig& Begin(const RigSettings& settings = {}) {
    rig_ = std::make_unique<WriterRig>(db_, store_, clock_, random_, settings);
    rig_->BeginFirst();
    rig_->Settle();
    db_.Commit({{1, 1}, {2, 2}, {3, 3}}, 3);
    rig_->Run();
    clock_.Advance(60'000);
    return *rig_;
  }
  Shipper& shipper() { return *rig_->shipper; }
  int64_t Step() { return shipper().Step(clock_.MonotonicMs()); }
  std::string At(Slot slot) { return Must(memory_.Get(LogKey(slot))).bytes; }
  Slot NextSlot() {
    return Must(WalkLog(memory_, Must(ReadManifest(memory_)).manifest, Slot(1))).next;
  }
  void ExpectLatest() {
    auto content = RestoredContent(memory_, dir_.path(), "");
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

TEST_F(ShipperTest, AnIdleDatabaseMakesNoRequests) {
  Begin();
  const uint64_t calls = store_.calls(FaultStore::kAny);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Step(), Task::kIdle);
    clock_.Advance(10'000);
  }
  EXPECT_EQ(store_.calls(FaultStore::kAny), calls);
}

// Until a put is settled the same bytes go to the same slot, however much was committed meanwhile.
TEST_F(ShipperTest, RepeatsTheSameBytesToTheSameSlot) {
  Begin();
  const Slot slot = NextSlot();
  std::vector<std::pair<std::string, std::string>> puts;
  store_.OnCall([&](const FaultStore::Call& call) {
    if (call.kind != FaultStore::kPut) return Fault::kNone;
    puts.push_back({call.key, ""});
    return puts.size() % 2 == 1 ? Fault::kDrop : Fault::kHold;
  });
  for (uint64_t i = 0; i < 6; ++i) {
    db_.Commit({{2, 100 + i}}, 3);
    Step();
    clock_.Advance(60'000);
  }
  store_.OnCall(nullptr);
  for (const auto& put : puts) EXPECT_EQ(put.first, LogKey(slot));
  store_.DeliverHeld();  // three of them, late
  const std::string first = At(slot);
  EXPECT_EQ(OpenObject(first, "")->header.last_txid, Txid(2)) << "what was committed first alone";
  rig_->Run();
  EXPECT_EQ(At(slot), first);
  EXPECT_EQ(shipper().acknowledged().txid, Txid(7));
  EXPECT_FALSE(rig_->stopped.has_value());
  ExpectLatest();
}

TEST_F(ShipperTest, ALostReplyIsAdopted) {
  Begin();
  const Slot slot = NextSlot();
  db_.Commit({{2, 100}}, 3);
  store_.Inject(FaultStore::kPut, 1, Fault::kLoseReply);
  Step();
  EXPECT_EQ(shipper().acknowledged().txid, Txid(1)) << "it cannot know";
  EXPECT_FALSE(shipper().last_error().ok());
  rig_->Run();
  EXPECT_EQ(shipper().acknowledged().txid, Txid(2));
  EXPECT_TRUE(shipper().last_error().ok());
  EXPECT_EQ(NextSlot(), slot.Next());
  ExpectLatest();
}

TEST_F(ShipperTest, NothingIsDecidedFromAFailedRead) {
  Begin();
  db_.Commit({{2, 100}}, 3);
  store_.Inject(FaultStore::kPut, 1, Fault::kLoseReply);
  for (int n = 1; n <= 3; ++n) store_.Inject(FaultStore::kGet, n, Fault::kFail);
  rig_->Run();
  EXPECT_FALSE(rig_->stopped.has_value());
  EXPECT_EQ(shipper().acknowledged().txid, Txid(2));
  ExpectLatest();
}

TEST_F(ShipperTest, AnotherWritersObjectEndsItsLogForGood) {
  auto& rig = Begin();
  auto seen = Must(LookAtStore(memory_, std::nullopt));
  Must(ClaimNext(memory_, random_, clock_, seen, {Session(99), "other"}));
  db_.Commit({{2, 100}}, 3);
  rig.Run();
  ASSERT_TRUE(rig.stopped.has_value());
  EXPECT_EQ(rig.stopped->tag(), Tag::kFenced);
  EXPECT_EQ(shipper().durable()->txid, Txid(1)) << "what is behind the FENCE is not durable";
  const Slot fence = NextSlot();
  db_.Commit({{2, 101}}, 3);
  rig.Run();
  EXPECT_EQ(NextSlot(), fence) << "nothing of it is in the log after the FENCE";
  EXPECT_EQ(shipper().durable()->txid, Txid(1));
  const auto orphan = shipper().orphan();
  ASSERT_TRUE(orphan && orphan->whole && !orphan->lost);
  EXPECT_EQ(orphan->from.txid, Txid(1));
  EXPECT_EQ(orphan->to.txid, Txid(3));
  EXPECT_EQ(Must(ListOrphans(memory_, OrphanPrefix(Epoch(1), shipper().session()))).size(), 2u);
}

// H10: an earlier put of this session, cut so that it ends where one of our batches ends.
TEST_F(ShipperTest, AnEarlierPutThatEndsWhereABatchEndsIsAdopted) {
  auto& rig = Begin();
  const Slot slot = NextSlot();
  db_.Commit({{2, 100}}, 3);
  EXPECT_TRUE(rig.recorder->SecureForDiscard(50, false));  // a batch ends here
  // What the earlier process had on the wire: that batch alone.
  const auto item = Must(rig.recorder->NextToShip(Txid(1), 1 << 20));
  ASSERT_TRUE(item.has_value());
  ObjectHeader h;
  h.lineage = shipper().lineage();
  h.epoch = shipper().epoch();
  h.session = shipper().session();
  h.slot = h.last_slot = slot;
  h.first_txid = item->first;
  h.last_txid = h.continues_from = item->last;
  h.time_ms = item->end.time_ms + 1;  // not the same bytes
  h.page_size = 512;
  h.database_pages = 3;
  h.mark = item->end.mark;
  h.history_hash = item->end.history_hash;
  h.rolling_known = item->end.rolling_known;
  h.rolling_checksum = item->end.rolling_checksum;
  h.previous_hash = OpenObject(At(Slot(slot.value - 1)), "")->object_hash;
  const std::string late = EncodeObject(h, item->body);
  db_.Commit({{3, 101}}, 3);
  Must(rig.recorder->CatchUp(UINT64_MAX));
  Must(memory_.Put(LogKey(slot), late, PutCondition::Create()));
  rig.Run();
  EXPECT_FALSE(rig.stopped.has_value());
  EXPECT_EQ(At(slot), late);
  EXPECT_EQ(shipper().acknowledged().txid, Txid(3));
  EXPECT_EQ(OpenObject(At(slot.Next()), "")->header.first_txid, Txid(3));
  ExpectLatest();
}

// H10: the same, but it ends inside of one of our batches: dropped, a new epoch, healed.
TEST_F(ShipperTest, AnEarlierPutThatEndsElsewhereIsHealedOver) {
  Begin();
  const Slot slot = NextSlot();
  db_.Commit({{2, 100}}, 3);
  store_.Inject(FaultStore::kPut, 1, Fault::kHold);  // on the wire
  Step();
  ASSERT_EQ(store_.held(), 1u);
  // Killed: the next process captures both transactions as one batch.
  const Session session = shipper().session();
  const CapturedState before = shipper().acknowledged();
  PageTable table;
  table.Resize(3, 512);
  for (uint32_t p = 1; p <= 3; ++p) table.Set(Pgno(p), PageHash(Pgno(p), AsBytes(db_.Page(p, p))));
  ASSERT_EQ(table.sum(), before.rolling_checksum);
  rig_.reset();
  db_.Commit({{3, 101}}, 3);
  rig_ = std::make_unique<WriterRig>(db_, store_, clock_, random_);
  const auto hint = rig_->sidecar.ReadAcknowledged();
  StoreView view = Must(ClaimResume(store_, random_, clock_, {session, "rig"},
                                    Must(LookAtStore(store_, hint)), hint));
  rig_->recorder->StartAt(before, table, before.txid, std::nullopt);
  rig_->shipper->Begin(view, session, true);
  rig_->snapshotter->Begin(view.manifest.manifest);
  Must(rig_->recorder->CatchUp(UINT64_MAX));
  store_.DeliverHeld();
  rig_->Run();
  ASSERT_TRUE(rig_->stopped.has_value());
  EXPECT_TRUE(rig_->stopped->ok()) << "a new epoch is needed, nobody took the log";
  EXPECT_TRUE(rig_->recorder->dropped());
  EXPECT_EQ(OpenObject(At(slot), "")->header.last_txid, Txid(2));
  rig_->BeginAgain();
  rig_->Run();
  ExpectLatest();
}

TEST_F(ShipperTest, TheFirstCommitAfterAPauseShipsAtOnceThenOnePutAnInterval) {
  RigSettings settings;
  settings.ship.sync_interval_ms = 1000;
  Begin(settings);
  const auto puts = [&] { return store_.calls(FaultStore::kPut); };
  const uint64_t before = puts();
  db_.Commit({{2, 100}}, 3);
  Step();
  EXPECT_EQ(puts(), before + 1);
  const int64_t first = clock_.MonotonicMs();
  uint64_t seed = 200;
  while (clock_.MonotonicMs() < first + 10'000) {
    db_.Commit({{2, seed++}}, 3);
    Step();
    clock_.Advance(10);
  }
  EXPECT_EQ(puts(), before + 10);
  // Somebody waits.
  shipper().Hurry();
  db_.Commit({{2, seed++}}, 3);
  Step();
  EXPECT_EQ(puts(), before + 11);
  db_.Commit({{2, seed++}}, 3);
  Step();
  EXPECT_EQ(puts(), before + 12);
  shipper().Release();
  db_.Commit({{2, seed++}}, 3);
  Step();
  EXPECT_EQ(puts(), before + 12);
}

// H17.
TEST_F(ShipperTest, NothingIsDurableBeforeTheFirstSnapshotIsInTheManifest) {
  rig_ = std::make_unique<WriterRig>(db_, store_, clock_, random_);
  rig_->BeginFirst();
  db_.Commit({{1, 1}, {2, 2}}, 2);
  for (int i = 0; i < 100; ++i) {
    rig_->shipper->Step(clock_.MonotonicMs());
    clock_.Advance(100);
  }
  EXPECT_EQ(shipper().acknowledged().txid, Txid(1));
  EXPECT_FALSE(shipper().durable().has_value());
  rig_->Run();
  ASSERT_TRUE(shipper().durable().has_value());
  EXPECT_EQ(shipper().durable()->txid, Txid(1));
  ExpectLatest();
}

// H17: at every step of a heal, what is called durable can be restored.
TEST_F(ShipperTest, InsideAHealDurableStaysWhatCanBeRestored) {
  RigSettings settings;
  settings.snapshot.chunk_pages = 1;
  auto& rig = Begin(settings);
  db_.Stranger({{2, 50}}, 3);
  db_.Checkpoint();
  db_.Stranger({{3, 51}}, 3);
  bool healed = false;
  for (int i = 0; i < 400 && !(healed && !rig.recorder->unsettled()); ++i) {
    rig.shipper->Step(clock_.MonotonicMs());
    if (i % 3 == 0) rig.snapshotter->Step(clock_.MonotonicMs());
    if (i % 7 == 0) db_.Commit({{1, 1000u + static_cast<unsigned>(i)}}, 3);
    healed = healed || rig.recorder->healing();
    clock_.Advance(100);
    const auto durable = rig.shipper->durable();
    ASSERT_TRUE(durable.has_value());
    auto content = RestoredContent(memory_, dir_.path(), std::to_string(durable->txid.value));
    ASSERT_TRUE(content.ok()) << content.status().ToString();
    EXPECT_THAT(db_.contents(), ::testing::Contains(*content));
  }
  EXPECT_TRUE(healed);
  rig.Run();
  EXPECT_EQ(rig.shipper->durable()->txid, rig.recorder->captured().txid);
  ExpectLatest();
}

// H17: a new epoch in the middle of a heal does not make what is inside it durable.
TEST_F(ShipperTest, ANewEpochInsideAHealMakesNothingDurable) {
  auto& rig = Begin();
  const Txid before = rig.shipper->durable()->txid;
  db_.Stranger({{2, 50}}, 3);
  db_.Checkpoint();
  db_.Stranger({{3, 51}}, 3);
  for (int i = 0; i < 10; ++i) {
    rig.shipper->Step(clock_.MonotonicMs());
    clock_.Advance(1000);
  }
  ASSERT_TRUE(rig.recorder->healing());
  ASSERT_GT(rig.shipper->acknowledged().txid, before);
  const StoreView seen = Must(LookAtStore(store_, std::nullopt));
  const StoreView view = Must(ClaimNext(store_, random_, clock_, seen, {Session(5), "x"}));
  rig.shipper->Begin(view, Session(5), true);
  const auto durable = rig.shipper->durable();
  EXPECT_TRUE(!durable || durable->txid <= before);
}

TEST_F(ShipperTest, ABodyTooLargeForOneRequestGoesInParts) {
  RigSettings settings;
  settings.ship.body_max = 4000;
  settings.ship.part_bytes = 3000;
  auto& rig = Begin(settings);
  SimDatabase::Pages pages;
  for (uint32_t p = 1; p <= 100; ++p) pages[p] = p + 7;
  db_.Commit(pages, 100);
  // A part that fails is sent again under another name; nothing names the first.
  store_.Inject(FaultStore::kPut, 3, Fault::kLoseReply);
  rig.Run();
  EXPECT_EQ(shipper().acknowledged().txid, Txid(2));
  const ObjectHeader h = OpenObject(At(Slot(NextSlot().value - 1)), "")->header;
  EXPECT_GT(h.parts.size(), 3u);
  uint64_t bytes = 0;
  for (const BodyPart& part : h.parts) {
    EXPECT_LE(part.size, 3000u);
    bytes += part.size;
  }
  EXPECT_GT(bytes, 4000u);
  EXPECT_GT(Must(memory_.List(kPartPrefix, "", 1000)).size(), h.parts.size());
  ExpectLatest();
}

TEST_F(ShipperTest, StopsWhenItsFolderIsDeletedUnderIt) {
  auto& rig = Begin();
  const uint64_t puts = store_.calls(FaultStore::kPut);
  ASSERT_TRUE(RemoveFile(db_.path() + "-guildlite/lock").ok());
  db_.Commit({{2, 100}}, 3);
  rig.Run();
  ASSERT_TRUE(rig.stopped.has_value());
  EXPECT_EQ(rig.stopped->tag(), Tag::kOwned);
  EXPECT_EQ(store_.calls(FaultStore::kPut), puts);
}

TEST_F(ShipperTest, BacksOffWhileTheStoreIsAway) {
  auto& rig = Begin();
  store_.SetOutage(Fault::kFail);
  db_.Commit({{2, 100}}, 3);
  const uint64_t puts = store_.calls(FaultStore::kPut);
  rig.Run(600'000);
  EXPECT_LT(store_.calls(FaultStore::kPut) - puts, 150u);
  EXPECT_GT(store_.calls(FaultStore::kPut) - puts, 40u);
  store_.SetOutage(Fault::kNone);
  rig.Run();
  EXPECT_EQ(shipper().acknowledged().txid, Txid(2));
}

}  // namespace
}  // namespace guildlite
