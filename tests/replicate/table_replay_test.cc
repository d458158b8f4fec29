// The page table brought forward by the log's metas: whole and at the tip, or refused.

#include "vfs/replicate/table_replay.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/fault_store.h"
#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

constexpr uint32_t kPageSize = 512;
constexpr Lineage kLineage{7};

// A log of one FENCE and then one DATA object a transaction; transaction n writes page n and
// page 1.
class TableReplay : public testing::Test {
 protected:
  void SetUp() override {
    at_.page_size = kPageSize;
    at_.history_hash = HistoryStart(kLineage);
    Put(ObjectKind::kFence, {}, at_.txid);
  }

  void Put(ObjectKind kind, std::string_view body, Txid first, std::vector<BodyPart> parts = {}) {
    ObjectHeader h;
    h.kind = kind;
    h.lineage = kLineage;
    h.epoch = Epoch(1);
    h.slot = h.last_slot = next_;
    h.first_txid = first;
    h.last_txid = h.continues_from = at_.txid;
    h.page_size = kPageSize;
    h.database_pages = at_.database_pages;
    h.history_hash = at_.history_hash;
    h.rolling_known = at_.rolling_known;
    h.rolling_checksum = at_.rolling_checksum;
    h.previous_hash = previous_;
    h.parts = std::move(parts);
    const std::string object = EncodeObject(h, body);
    ASSERT_TRUE(store_.Put(LogKey(next_), object, PutCondition::Create()).ok());
    previous_ = ObjectHash(object);
    next_ = next_.Next();
  }

  std::string Commit() {
    const uint32_t n = static_cast<uint32_t>(at_.txid.value) + 1;
    Transaction t;
    t.txid = at_.txid.Next();
    t.time_ms = n;
    t.database_pages = n;
    if (n != table_.pages()) table_.Resize(n, kPageSize);
    HistoryHash history(at_.history_hash, t.txid, n);
    std::vector<std::pair<Pgno, std::vector<std::byte>>> pages;
    for (const uint32_t p : {n, 1u}) {
      if (!pages.empty() && p == n) continue;
      pages.emplace_back(Pgno(p), std::vector<std::byte>(kPageSize, std::byte(n * 3 + p)));
    }
    for (const auto& [pgno, image] : pages) {
      table_.Set(pgno, PageHash(pgno, image));
      history.Add(pgno, PageHash(pgno, image));
    }
    t.history_hash = history.Finish();
    t.rolling_known = true;
    t.rolling_checksum = table_.sum();
    BatchWriter writer(BatchWriter::Settings{.page_size = kPageSize});
    writer.BeginTransaction(t);
    for (const auto& [pgno, image] : pages) {
      writer.AddPage(pgno, PageHash(pgno, image), image,
                     [](std::span<std::byte>) { return false; });
    }
    writer.EndTransaction();
    at_.txid = t.txid;
    at_.history_hash = t.history_hash;
    at_.database_pages = n;
    at_.rolling_known = true;
    at_.rolling_checksum = t.rolling_checksum;
    return writer.Seal();
  }
  void Ship() {
    const std::string body = Commit();
    Put(ObjectKind::kData, body, at_.txid);
  }
  StoreView View() const {
    StoreView view;
    view.next = next_;
    view.tip = at_;
    return view;
  }

  MemoryStore store_;
  CapturedState at_;
  PageTable table_;
  Slot next_{1};
  uint64_t previous_ = 0;
};

TEST_F(TableReplay, BringsAnOldTableToTheTipWhateverSlotItIsToldToStartFrom) {
  for (int i = 0; i < 3; ++i) Ship();
  const CapturedState old_state = at_;
  const PageTable old_table = table_;
  for (int i = 0; i < 5; ++i) Ship();
  for (uint64_t from = 4; from <= next_.value + 2; ++from) {
    CapturedState state = old_state;
    PageTable table = old_table;
    FaultStore store(store_);
    store.set_gets_at_once(from % 3 * 4 + 1);
    auto replayed = ReplayTable(store, View(), Slot(from), &state, &table);
    ASSERT_TRUE(replayed.ok()) << replayed.status().ToString();
    EXPECT_TRUE(*replayed) << from;
    EXPECT_EQ(state.txid, at_.txid);
    EXPECT_EQ(state.history_hash, at_.history_hash);
    EXPECT_EQ(table.sum(), table_.sum());
    EXPECT_TRUE(table.complete());
  }
}

TEST_F(TableReplay, IsRefusedWhereASlotIsMissing) {
  Ship();
  const CapturedState old_state = at_;
  const PageTable old_table = table_;
  for (int i = 0; i < 3; ++i) Ship();
  ASSERT_TRUE(store_.Delete(LogKey(Slot(4))).ok());
  CapturedState state = old_state;
  PageTable table = old_table;
  auto replayed = ReplayTable(store_, View(), Slot(4), &state, &table);
  ASSERT_TRUE(replayed.ok());
  EXPECT_FALSE(*replayed);
}

TEST_F(TableReplay, IsRefusedWhereABodyIsInParts) {
  Ship();
  const CapturedState old_state = at_;
  const PageTable old_table = table_;
  const std::string body = Commit();
  Put(ObjectKind::kData, {}, at_.txid, {{PartKey(Epoch(1), 3, 0, 1), body.size(), 1}});
  CapturedState state = old_state;
  PageTable table = old_table;
  auto replayed = ReplayTable(store_, View(), Slot(3), &state, &table);
  ASSERT_TRUE(replayed.ok());
  EXPECT_FALSE(*replayed);
}

TEST_F(TableReplay, IsRefusedWhenTheTipIsOfAnotherHistory) {
  Ship();
  const CapturedState old_state = at_;
  const PageTable old_table = table_;
  Ship();
  StoreView view = View();
  view.tip.history_hash ^= 1;
  CapturedState state = old_state;
  PageTable table = old_table;
  auto replayed = ReplayTable(store_, view, Slot(3), &state, &table);
  ASSERT_TRUE(replayed.ok());
  EXPECT_FALSE(*replayed);
}

TEST_F(TableReplay, AnErrorIsAnErrorAndNoRefusal) {
  for (int i = 0; i < 3; ++i) Ship();
  const CapturedState old_state = at_;
  const PageTable old_table = table_;
  for (int i = 0; i < 9; ++i) Ship();
  FaultStore store(store_);
  for (const size_t at_once : {1, 8}) {
    store.set_gets_at_once(at_once);
    for (uint64_t slot = 5; slot < next_.value; ++slot) {
      store.OnCall([&](const FaultStore::Call& call) {
        return call.key == LogKey(Slot(slot)) ? Fault::kFail : Fault::kNone;
      });
      CapturedState state = old_state;
      PageTable table = old_table;
      const auto replayed = ReplayTable(store, View(), Slot(8), &state, &table);
      EXPECT_EQ(replayed.status().tag(), Tag::kStoreUnreachable) << slot;
    }
  }
}

}  // namespace
}  // namespace guildlite
