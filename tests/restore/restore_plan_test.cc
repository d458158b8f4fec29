#include "vfs/restore/restore_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <ostream>

#include "vfs/base/time_text.h"
#include "vfs/objects/object_key.h"

namespace guildlite {

void PrintTo(const RestoreStep& s, std::ostream* os) {
  *os << s.slot.value << ":" << s.first.value << "-" << s.last.value;
}

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr Lineage kLineage{0x1122334455667788};

RestoreTarget Latest() { return {}; }
RestoreTarget AtTxid(uint64_t n) { return {.kind = RestoreTarget::Kind::kTxid, .txid = Txid(n)}; }
RestoreTarget AtTime(int64_t ms) { return {.kind = RestoreTarget::Kind::kTime, .time_ms = ms}; }
RestoreTarget AtLabel(std::string label) {
  return {.kind = RestoreTarget::Kind::kLabel, .label = std::move(label)};
}
RestoreTarget At(Position p) { return {.kind = RestoreTarget::Kind::kPosition, .position = p}; }
RestoreStep Step(uint64_t slot, uint64_t first, uint64_t last) {
  return {Slot(slot), Txid(first), Txid(last)};
}

// A log told by its headers. Transaction n of epoch e commits at 1000*n ms (+1 per epoch above 1,
// so that rewound numbers have other times) and has the history hash Hash(e, n).
class Sketch {
 public:
  static uint64_t Hash(uint32_t epoch, uint64_t n) {
    return 0xabc000000000u + epoch * 0x10000u + n;
  }
  int64_t TimeOf(uint64_t n) const { return static_cast<int64_t>(1000 * n + epoch_ - 1); }

  Sketch() {
    manifest.lineage = kLineage;
    Fence(1, 0);
  }

  Sketch& Fence(uint32_t epoch, uint64_t continues_from) {
    epoch_ = epoch;
    manifest.epoch = Epoch(epoch);
    ObjectHeader h = Header(ObjectKind::kFence);
    h.continues_from = Txid(continues_from);
    tip_ = continues_from;
    return Push(h, {});
  }
  // Transactions tip+1 .. last in one object; `known` says of each whether its checksum is known.
  Sketch& Data(uint64_t last, std::string known = "") {
    ObjectHeader h = Header(ObjectKind::kData);
    h.first_txid = Txid(tip_ + 1);
    std::vector<Transaction> transactions;
    for (uint64_t n = tip_ + 1; n <= last; n++) {
      Transaction t;
      t.txid = Txid(n);
      t.time_ms = TimeOf(n);
      t.history_hash = Hash(epoch_, n);
      t.rolling_known = known.empty() ? !heal_ : known[static_cast<size_t>(n - tip_ - 1)] == '1';
      t.rolling_checksum = t.rolling_known ? 7 * n : 0;
      t.database_pages = static_cast<uint32_t>(100 + n);
      transactions.push_back(t);
    }
    tip_ = last;
    const Transaction& t = transactions.back();
    h.last_txid = t.txid;
    h.time_ms = t.time_ms;
    h.history_hash = t.history_hash;
    h.rolling_known = t.rolling_known;
    h.rolling_checksum = t.rolling_checksum;
    h.database_pages = t.database_pages;
    return Push(h, transactions);
  }
  Sketch& Void() { return Push(Header(ObjectKind::kVoid), {}); }
  Sketch& Undo(uint64_t first) {
    ObjectHeader h = Header(ObjectKind::kUndo);
    h.first_txid = Txid(first);
    tip_ = first - 1;
    return Push(h, {});
  }
  Sketch& HealBegin() {
    heal_ = true;
    return Push(Header(ObjectKind::kHealBegin), {});
  }
  Sketch& HealEnd() {
    heal_ = false;
    ObjectHeader h = Header(ObjectKind::kHealEnd);
    h.history_hash = Hash(epoch_, tip_);
    h.rolling_known = true;
    h.rolling_checksum = 7 * tip_;
    return Push(h, {});
  }
  // A HEAL_END that brings the last differences itself.
  Sketch& HealEndWith(uint64_t last) {
    Data(last);
    heal_ = false;
    ObjectHeader& h = entries_.back().header;
    h.kind = ObjectKind::kHealEnd;
    h.rolling_known = true;
    h.rolling_checksum = 7 * last;
    return *this;
  }
  // Of the tip as it is now; `usable_from` above the tip is yet to come.
  Sketch& Snapshot(uint64_t usable_from, std::string label = "") {
    const uint64_t e = usable_from;
    manifest.snapshots.push_back({.key = "snapshot/" + std::to_string(manifest.snapshots.size()),
                                  .txid = Txid(tip_),
                                  .usable_from = Txid(e),
                                  .first_slot = Slot(entries_.size() + 1),
                                  // As if other transactions had shared the object of E.
                                  .end_slot = Slot(entries_.size() + 1 + (e > tip_ ? 9 : 0)),
                                  .epoch = Epoch(epoch_),
                                  .history_hash = Hash(epoch_, tip_),
                                  .usable_history_hash = Hash(epoch_, e),
                                  .time_ms = TimeOf(e),
                                  .label = std::move(label)});
    return *this;
  }
  Sketch& Snapshot() { return Snapshot(tip_); }
  // The log from this slot on is lost, or not written yet.
  Sketch& CutAt(uint64_t slot) {
    entries_.resize(slot - 1);
    return *this;
  }

  // What Restorer does with the pure parts; nullopt plans go on to the next snapshot.
  Result<RestorePlan> Plan(const RestoreTarget& target) const {
    auto snapshots = SnapshotsFor(manifest, target);
    if (!snapshots.ok()) return snapshots.status();
    for (const SnapshotRecord& s : *snapshots) {
      WalkedLog log;
      if (const auto range = NeededLog(manifest, s, target)) {
        const size_t from = std::min<size_t>(range->first.value - 1, entries_.size());
        const size_t to =
            std::min(range->until.value_or(Slot(UINT64_MAX)).value - 1, uint64_t{entries_.size()});
        log.entries = std::span(entries_).subspan(from, std::max(from, to) - from);
      }
      log.transactions = [this](const LogEntry& e) -> Result<std::vector<Transaction>> {
        opened++;
        return bodies_.at(e.header.slot.value);
      };
      auto plan = PlanRestore(manifest, s, log, target);
      if (!plan.ok()) return plan.status();
      if (*plan) return **plan;
    }
    return NoPlan(manifest, target);
  }

  Position PositionOf(uint32_t epoch, uint64_t n) const {
    return {kLineage, Epoch(epoch), Txid(n), static_cast<uint32_t>(Hash(epoch, n))};
  }

  Manifest manifest;
  std::vector<LogEntry>& entries() { return entries_; }
  mutable int opened = 0;  // objects whose metas were wanted

 private:
  ObjectHeader Header(ObjectKind kind) const {
    ObjectHeader h;
    h.kind = kind;
    h.lineage = kLineage;
    h.epoch = Epoch(epoch_);
    h.slot = Slot(entries_.size() + 1);
    h.last_slot = h.slot;
    h.last_txid = Txid(tip_);
    h.continues_from = h.last_txid;
    return h;
  }
  Sketch& Push(const ObjectHeader& h, std::vector<Transaction> transactions) {
    bodies_[h.slot.value] = std::move(transactions);
    entries_.push_back({.header = h});
    return *this;
  }

  std::vector<LogEntry> entries_;
  std::map<uint64_t, std::vector<Transaction>> bodies_;
  uint32_t epoch_ = 1;
  uint64_t tip_ = 0;
  bool heal_ = false;
};

void ExpectFails(const Result<RestorePlan>& plan, Tag tag, const std::string& says) {
  ASSERT_FALSE(plan.ok()) << "planned txid " << plan->target.value;
  EXPECT_EQ(TagName(plan.status().tag()), TagName(tag)) << plan.status().ToString();
  EXPECT_THAT(plan.status().message(), HasSubstr(says));
}

#define EXPECT_PLAN(plan_expr, snapshot_key, target_txid, steps_matcher)       \
  do {                                                                         \
    const auto plan_ = (plan_expr);                                            \
    ASSERT_TRUE(plan_.ok()) << plan_.status().ToString();                      \
    EXPECT_EQ(plan_->snapshot.key, std::string("snapshot/") + (snapshot_key)); \
    EXPECT_EQ(plan_->target, Txid(target_txid));                               \
    EXPECT_THAT(plan_->steps, steps_matcher);                                  \
  } while (0)

// ---- RestoreTarget::Parse ----------------------------------------------------------------------

TEST(RestoreTarget, IsReadFromText) {
  EXPECT_EQ(*RestoreTarget::Parse(""), Latest());
  EXPECT_EQ(*RestoreTarget::Parse("0"), AtTxid(0));
  EXPECT_EQ(*RestoreTarget::Parse("2026"), AtTxid(2026));
  EXPECT_EQ(*RestoreTarget::Parse("18446744073709551615"), AtTxid(UINT64_MAX));
  EXPECT_EQ(*RestoreTarget::Parse("label:before the purge"), AtLabel("before the purge"));
  EXPECT_EQ(*RestoreTarget::Parse("label:7"), AtLabel("7"));
  EXPECT_EQ(*RestoreTarget::Parse("2026-11-23 15:00:00"), AtTime(1795446000000));
  const Position p{kLineage, Epoch(3), Txid(77), 0xdeadbeef};
  EXPECT_EQ(*RestoreTarget::Parse(p.ToString()), At(p));
}

TEST(RestoreTarget, RefusesWhatItCannotRead) {
  for (const char* text : {"18446744073709551616", "label:", "latest", "-1", "1.0", " 7", "7 ",
                           "0x10", "2026-02-30", "1122334455667788-00000001-0000000000000001"}) {
    const auto target = RestoreTarget::Parse(text);
    ASSERT_FALSE(target.ok()) << text;
    EXPECT_EQ(target.status().tag(), Tag::kBadArgument) << text;
  }
}

TEST(RestoreTarget, SaysItselfAsItIsRead) {
  for (const char* text : {"label:x", "2026-11-23T15:00:00.000Z"}) {
    EXPECT_EQ(RestoreTarget::Parse(text)->ToString(), text);
  }
}

// ---- Which snapshot, which slots ---------------------------------------------------------------

// Slots: 1 FENCE, 2 data 1-3, 3 data 4, [snapshot 1 at 4], 4 data 5-9, [snapshot 2 at 9], 5
// data 10.
Sketch Plain() {
  Sketch s;
  s.Snapshot().Data(3).Data(4).Snapshot(4, "first").Data(9).Snapshot(9, "second").Data(10);
  return s;
}

TEST(RestorePlan, LatestStartsFromTheNewestSnapshot) {
  const Sketch s = Plain();
  EXPECT_PLAN(s.Plan(Latest()), "2", 10, ElementsAre(Step(5, 10, 10)));
  const auto plan = s.Plan(Latest());
  EXPECT_EQ(plan->epoch, Epoch(1));
  EXPECT_EQ(plan->history_hash, Sketch::Hash(1, 10));
  EXPECT_TRUE(plan->rolling_known);
  EXPECT_EQ(plan->rolling_checksum, 70u);
  EXPECT_EQ(plan->database_pages, 110u);
  EXPECT_EQ(plan->time_ms, 10000);
  EXPECT_EQ(s.opened, 0) << "headers are enough";
}

TEST(RestorePlan, ATxidStartsFromTheNewestSnapshotUsableThere) {
  const Sketch s = Plain();
  EXPECT_PLAN(s.Plan(AtTxid(0)), "0", 0, IsEmpty());
  EXPECT_PLAN(s.Plan(AtTxid(2)), "0", 2, ElementsAre(Step(2, 1, 2)));
  EXPECT_PLAN(s.Plan(AtTxid(3)), "0", 3, ElementsAre(Step(2, 1, 3)));
  EXPECT_PLAN(s.Plan(AtTxid(4)), "1", 4, IsEmpty());
  EXPECT_PLAN(s.Plan(AtTxid(7)), "1", 7, ElementsAre(Step(4, 5, 7)));
  EXPECT_PLAN(s.Plan(AtTxid(9)), "2", 9, IsEmpty());
  EXPECT_PLAN(s.Plan(AtTxid(10)), "2", 10, ElementsAre(Step(5, 10, 10)));
  EXPECT_FALSE(s.Plan(AtTxid(9))->rolling_known) << "the snapshot's header has it";
}

TEST(RestorePlan, ATimeIsInclusiveAndMeansTheLastCommitAtOrBefore) {
  const Sketch s = Plain();
  EXPECT_PLAN(s.Plan(AtTime(3999)), "0", 3, ElementsAre(Step(2, 1, 3)));
  EXPECT_PLAN(s.Plan(AtTime(4000)), "1", 4, IsEmpty());
  EXPECT_PLAN(s.Plan(AtTime(6999)), "1", 6, ElementsAre(Step(4, 5, 6)));
  EXPECT_PLAN(s.Plan(AtTime(7000)), "1", 7, ElementsAre(Step(4, 5, 7)));
  EXPECT_PLAN(s.Plan(AtTime(10000)), "2", 10, ElementsAre(Step(5, 10, 10)));
  EXPECT_PLAN(s.Plan(AtTime(99999999)), "2", 10, ElementsAre(Step(5, 10, 10)));
  ExpectFails(s.Plan(AtTime(-1)), Tag::kNoSuchPoint, "the nearest after is txid 0 (1970-01-01T");
}

TEST(RestorePlan, ATimeOpensOneObject) {
  Sketch s;
  s.Snapshot();
  for (uint64_t n = 1; n <= 100; n++) s.Data(10 * n);
  EXPECT_PLAN(s.Plan(AtTime(555'500)), "0", 555, Not(IsEmpty()));
  EXPECT_EQ(s.opened, 1);
}

TEST(RestorePlan, ALabelIsItsSnapshotAndNeedsNoLog) {
  Sketch s = Plain();
  EXPECT_PLAN(s.Plan(AtLabel("first")), "1", 4, IsEmpty());
  EXPECT_PLAN(s.Plan(AtLabel("second")), "2", 9, IsEmpty());
  ExpectFails(s.Plan(AtLabel("third")), Tag::kNoSuchPoint, "there are \"first\", \"second\"");
  s.Snapshot(10, "first");
  EXPECT_PLAN(s.Plan(AtLabel("first")), "3", 10, IsEmpty());
  EXPECT_FALSE(NeededLog(s.manifest, s.manifest.snapshots[3], AtLabel("first")).has_value());
}

TEST(RestorePlan, APointPastTheEndNamesTheNewest) {
  const Sketch s = Plain();
  ExpectFails(s.Plan(AtTxid(11)), Tag::kNoSuchPoint,
              "the newest is txid 10 (1970-01-01T00:00:10.000Z, " + s.PositionOf(1, 10).ToString());
  ExpectFails(s.Plan(At(s.PositionOf(1, 11))), Tag::kNoSuchPoint, "the newest is txid 10");
}

TEST(RestorePlan, WithoutASnapshotThereIsNoBackup) {
  Sketch s;
  s.Data(3);
  for (const auto& target : {Latest(), AtTxid(3), AtTime(1), AtLabel("x")}) {
    ExpectFails(s.Plan(target), Tag::kNoBackup, "first snapshot");
  }
}

// ---- Snapshots taken while transactions ran ----------------------------------------------------

// Snapshot of S=2, usable from E=5; checksums unknown until E.
Sketch FirstScan() {
  Sketch s;
  s.Data(2, "00").Snapshot(5).Data(4, "00").Data(7, "011").Data(8);
  return s;
}

TEST(RestorePlan, NothingBelowUsableFromIsARestorePoint) {
  const Sketch s = FirstScan();
  for (uint64_t n = 0; n < 5; n++) {
    ExpectFails(s.Plan(AtTxid(n)), Tag::kNoSuchPoint, "the nearest after is txid 5");
  }
  EXPECT_PLAN(s.Plan(AtTxid(6)), "0", 6, ElementsAre(Step(3, 3, 4), Step(4, 5, 6)));
  EXPECT_PLAN(s.Plan(Latest()), "0", 8, ElementsAre(Step(3, 3, 4), Step(4, 5, 7), Step(5, 8, 8)));
  EXPECT_PLAN(s.Plan(AtTime(7500)), "0", 7, ElementsAre(Step(3, 3, 4), Step(4, 5, 7)));
}

TEST(RestorePlan, TheUsablePointOfAFirstScanIsProvenByTheSnapshot) {
  Sketch s = FirstScan();
  EXPECT_PLAN(s.Plan(AtTxid(5)), "0", 5, ElementsAre(Step(3, 3, 4), Step(4, 5, 5)));
  EXPECT_FALSE(s.Plan(AtTxid(5))->rolling_known) << "the snapshot's header has it";
  EXPECT_EQ(s.Plan(AtTxid(5))->database_pages, 105u);
  EXPECT_PLAN(s.Plan(AtTime(5999)), "0", 5, Not(IsEmpty()));
  // Not if that is another transaction of the same number.
  s.manifest.snapshots[0].usable_history_hash ^= 1;
  ExpectFails(s.Plan(AtTxid(5)), Tag::kNoSuchPoint, "the nearest after is txid 6 ");
}

TEST(RestorePlan, LatestIsTheUsablePointWhileNothingElseIsKnown) {
  Sketch s;
  s.Data(2, "00").Snapshot(5).Data(5, "000");
  EXPECT_PLAN(s.Plan(Latest()), "0", 5, ElementsAre(Step(3, 3, 5)));
}

TEST(RestorePlan, AnUnknownChecksumIsNotARestorePointAndTheNeighboursAreNamed) {
  Sketch s;
  s.Snapshot().Data(5, "10011").Data(8, "000");
  ExpectFails(s.Plan(AtTxid(3)), Tag::kNoSuchPoint, "the nearest before is txid 1 ");
  ExpectFails(s.Plan(AtTxid(3)), Tag::kNoSuchPoint, "the nearest after is txid 4 ");
  EXPECT_PLAN(s.Plan(Latest()), "0", 5, ElementsAre(Step(2, 1, 5)));
  EXPECT_PLAN(s.Plan(AtTime(3500)), "0", 1, ElementsAre(Step(2, 1, 1)));
  EXPECT_PLAN(s.Plan(AtTime(8000)), "0", 5, ElementsAre(Step(2, 1, 5)));
  ExpectFails(s.Plan(AtTxid(8)), Tag::kNoSuchPoint, "the nearest before is txid 5 ");
}

TEST(RestorePlan, ASnapshotWhoseUsablePointTheLogNeverReachesRevealsALoss) {
  Sketch s = FirstScan();
  s.CutAt(4);
  ExpectFails(s.Plan(Latest()), Tag::kChainBroken, LogKey(Slot(4)));
}

// ---- Heals -------------------------------------------------------------------------------------

TEST(RestorePlan, LatestStopsBeforeAnOpenHeal) {
  Sketch s;
  s.Snapshot().Data(4).HealBegin().Data(6).Data(9);
  EXPECT_PLAN(s.Plan(Latest()), "0", 4, ElementsAre(Step(2, 1, 4)));
  EXPECT_EQ(s.opened, 0) << "the inside of a heal is of no interest";
  EXPECT_PLAN(s.Plan(AtTime(9000)), "0", 4, ElementsAre(Step(2, 1, 4)));
  ExpectFails(s.Plan(AtTxid(6)), Tag::kNoSuchPoint, "the nearest before is txid 4 ");
  ExpectFails(s.Plan(AtTxid(9)), Tag::kNoSuchPoint, "heal");
}

TEST(RestorePlan, AChecksumClaimedInsideAHealIsNotBelieved) {
  Sketch s;
  s.Snapshot().Data(4).HealBegin().Data(6, "11");
  EXPECT_PLAN(s.Plan(Latest()), "0", 4, ElementsAre(Step(2, 1, 4)));
}

TEST(RestorePlan, AClosedHealIsARestorePointAtItsEnd) {
  Sketch s;
  s.Snapshot().Data(4).HealBegin().Data(6).Data(9).HealEnd();
  EXPECT_PLAN(s.Plan(Latest()), "0", 9, ElementsAre(Step(2, 1, 4), Step(4, 5, 6), Step(5, 7, 9)));
  EXPECT_EQ(s.Plan(Latest())->rolling_checksum, 63u) << "from the HEAL_END";
  ExpectFails(s.Plan(AtTxid(8)), Tag::kNoSuchPoint, "the nearest after is txid 9 ");
  EXPECT_PLAN(s.Plan(AtTxid(9)), "0", 9, Not(IsEmpty()));
  EXPECT_PLAN(s.Plan(AtTime(8999)), "0", 4, ElementsAre(Step(2, 1, 4)));
  s.Data(10);
  EXPECT_PLAN(s.Plan(Latest()), "0", 10, Not(IsEmpty()));
  EXPECT_PLAN(s.Plan(AtTime(9500)), "0", 9, Not(IsEmpty()));
}

TEST(RestorePlan, AHealEndMayBringTheLastDifferences) {
  Sketch s;
  s.Snapshot().Data(4).HealBegin().Data(6).HealEndWith(8);
  EXPECT_PLAN(s.Plan(Latest()), "0", 8, ElementsAre(Step(2, 1, 4), Step(4, 5, 6), Step(5, 7, 8)));
  ExpectFails(s.Plan(AtTxid(7)), Tag::kNoSuchPoint, "txid 8 ");
}

TEST(RestorePlan, AHealBegunAgainAfterAKillIsStillOpen) {
  Sketch s;
  s.Snapshot().Data(4).HealBegin().Data(6).Fence(2, 6).HealBegin().Data(7);
  EXPECT_PLAN(s.Plan(Latest()), "0", 4, ElementsAre(Step(2, 1, 4)));
  s.HealEnd();
  EXPECT_PLAN(s.Plan(Latest()), "0", 7, Not(IsEmpty()));
}

TEST(RestorePlan, RewindingToBeforeAHealEndsIt) {
  Sketch s;
  s.Snapshot().Data(4).HealBegin().Data(6).Fence(2, 4);
  s.Data(5, "1");
  EXPECT_PLAN(s.Plan(Latest()), "0", 5, ElementsAre(Step(2, 1, 4), Step(6, 5, 5)));
}

TEST(RestorePlan, AHealEndOfAnotherHistoryIsDamage) {
  Sketch s;
  s.Snapshot().Data(4).HealBegin().Data(6).HealEnd();
  s.entries().back().header.history_hash ^= 1;
  ExpectFails(s.Plan(Latest()), Tag::kChainBroken, LogKey(Slot(5)));
}

// ---- VOID, UNDO, FENCE -------------------------------------------------------------------------

TEST(RestorePlan, VoidIsSkipped) {
  Sketch s;
  s.Snapshot().Data(2).Void().Void().Data(3).Void();
  EXPECT_PLAN(s.Plan(Latest()), "0", 3, ElementsAre(Step(2, 1, 2), Step(5, 3, 3)));
}

TEST(RestorePlan, UndoneTransactionsNeverHappened) {
  Sketch s;
  s.Snapshot().Data(2).Data(3);
  const Position undone = s.PositionOf(1, 3);
  s.Undo(3);
  EXPECT_PLAN(s.Plan(Latest()), "0", 2, ElementsAre(Step(2, 1, 2)));
  ExpectFails(s.Plan(AtTxid(3)), Tag::kNoSuchPoint, "the newest is txid 2 ");
  ExpectFails(s.Plan(At(undone)), Tag::kNoSuchPoint, "the newest is txid 2 ");
  s.Data(4);
  EXPECT_PLAN(s.Plan(Latest()), "0", 4, ElementsAre(Step(2, 1, 2), Step(5, 3, 4)));
}

TEST(RestorePlan, AnUndoMayTakeBackTheEndOfAnObjectAndWholeOnes) {
  Sketch s;
  s.Snapshot().Data(5).Data(6).Data(8).Undo(4).Data(4);
  EXPECT_PLAN(s.Plan(Latest()), "0", 4, ElementsAre(Step(2, 1, 3), Step(6, 4, 4)));
  EXPECT_PLAN(s.Plan(AtTxid(3)), "0", 3, ElementsAre(Step(2, 1, 3)));
}

TEST(RestorePlan, AnUndoOfSomethingElseThanTheTipIsDamage) {
  Sketch s;
  s.Snapshot().Data(5).Undo(4);
  s.entries().back().header.last_txid = Txid(4);
  ExpectFails(s.Plan(Latest()), Tag::kChainBroken, LogKey(Slot(3)));
}

TEST(RestorePlan, ATakeoverGoesOn) {
  Sketch s;
  s.Snapshot().Data(5).Fence(2, 5).Data(6);
  EXPECT_PLAN(s.Plan(Latest()), "0", 6, ElementsAre(Step(2, 1, 5), Step(4, 6, 6)));
  EXPECT_EQ(s.Plan(Latest())->epoch, Epoch(2));
  EXPECT_EQ(s.Plan(AtTxid(5))->epoch, Epoch(1));
  EXPECT_PLAN(s.Plan(At(s.PositionOf(1, 5))), "0", 5, ElementsAre(Step(2, 1, 5)));
  EXPECT_PLAN(s.Plan(At(s.PositionOf(2, 6))), "0", 6, Not(IsEmpty()));
  // The new owner's first position, before its first commit.
  Position claimed = s.PositionOf(1, 5);
  claimed.epoch = Epoch(2);
  EXPECT_PLAN(s.Plan(At(claimed)), "0", 5, ElementsAre(Step(2, 1, 5)));
}

TEST(RestorePlan, WhatWasRewoundOverIsNotPartOfTheLaterHistory) {
  Sketch s;
  s.Snapshot().Data(5).Data(9).Fence(2, 4).Data(6).Data(7);
  EXPECT_PLAN(s.Plan(Latest()), "0", 7, ElementsAre(Step(2, 1, 4), Step(5, 5, 6), Step(6, 7, 7)));
  EXPECT_PLAN(s.Plan(AtTxid(5)), "0", 5, ElementsAre(Step(2, 1, 4), Step(5, 5, 5)));
  EXPECT_EQ(s.Plan(AtTxid(5))->history_hash, Sketch::Hash(2, 5));
  ExpectFails(s.Plan(AtTxid(9)), Tag::kNoSuchPoint, "the newest is txid 7 ");
}

TEST(RestorePlan, WhatWasRewoundOverStaysRestorableByItsPosition) {
  Sketch s;
  s.Snapshot().Data(5).Snapshot().Data(9).Fence(2, 4).Data(6).Snapshot().Data(7);
  EXPECT_PLAN(s.Plan(At(s.PositionOf(1, 8))), "1", 8, ElementsAre(Step(3, 6, 8)));
  EXPECT_PLAN(s.Plan(At(s.PositionOf(1, 5))), "1", 5, IsEmpty());
  EXPECT_PLAN(s.Plan(At(s.PositionOf(2, 5))), "0", 5, ElementsAre(Step(2, 1, 4), Step(5, 5, 5)));
  EXPECT_PLAN(s.Plan(At(s.PositionOf(2, 7))), "2", 7, ElementsAre(Step(6, 7, 7)));
}

TEST(RestorePlan, ASnapshotThatWasRewoundOverIsNotUsedForWhatFollows) {
  Sketch s;
  s.Snapshot().Data(5).Snapshot().Data(9).Fence(2, 4).Data(8);
  EXPECT_PLAN(s.Plan(Latest()), "0", 8, ElementsAre(Step(2, 1, 4), Step(5, 5, 8)));
  EXPECT_PLAN(s.Plan(AtTxid(7)), "0", 7, ElementsAre(Step(2, 1, 4), Step(5, 5, 7)));
  s.manifest.snapshots.erase(s.manifest.snapshots.begin());
  ExpectFails(s.Plan(Latest()), Tag::kNoSuchPoint, "no snapshot that is kept");
}

TEST(RestorePlan, ASnapshotRewoundBetweenItsEndsIsNotUsed) {
  // S=2, E=5; the rewind to 4 leaves pages out that only txid 5 had.
  Sketch s;
  s.Snapshot().Data(2).Snapshot(5).Data(5).Fence(2, 4).Data(8);
  EXPECT_PLAN(s.Plan(Latest()), "0", 8, Not(IsEmpty()));
}

TEST(RestorePlan, TheLogIsReadInItsOrder) {
  const struct {
    const char* what;
    std::function<void(Sketch&)> damage;
  } kCases[] = {
      {"a gap in the txids", [](Sketch& s) { s.entries()[2].header.first_txid = Txid(5); }},
      {"an overlap", [](Sketch& s) { s.entries()[2].header.first_txid = Txid(3); }},
      {"an empty range", [](Sketch& s) { s.entries()[2].header.last_txid = Txid(3); }},
      {"an older epoch", [](Sketch& s) { s.entries()[2].header.epoch = Epoch(0); }},
      {"an epoch without its FENCE", [](Sketch& s) { s.entries()[2].header.epoch = Epoch(2); }},
      {"a snapshot", [](Sketch& s) { s.entries()[2].header.kind = ObjectKind::kSnapshot; }},
      {"a segment that begins before the object before it ends",
       [](Sketch& s) {
         s.entries()[2].header.kind = ObjectKind::kSegment;
         s.entries()[2].header.first_txid = Txid(3);
       }},
      {"a FENCE ahead of the log",
       [](Sketch& s) {
         s.entries()[2].header.kind = ObjectKind::kFence;
         s.entries()[2].header.continues_from = Txid(4);
       }},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.what);
    Sketch s;
    s.Snapshot().Data(3).Data(4);
    c.damage(s);
    ExpectFails(s.Plan(Latest()), Tag::kChainBroken, LogKey(Slot(3)));
  }
}

// ---- Positions ---------------------------------------------------------------------------------

TEST(RestorePlan, APositionOfAnotherHistoryIsLost) {
  const Sketch s = Plain();
  const Position good = s.PositionOf(1, 7);
  EXPECT_PLAN(s.Plan(At(good)), "1", 7, ElementsAre(Step(4, 5, 7)));
  Position p = good;
  p.lineage = Lineage(1);
  ExpectFails(s.Plan(At(p)), Tag::kPositionLost, "another database's");
  p = good;
  p.epoch = Epoch(2);
  ExpectFails(s.Plan(At(p)), Tag::kPositionLost, "the newest epoch is 1");
  p = good;
  p.check ^= 1;
  ExpectFails(s.Plan(At(p)), Tag::kPositionLost, "another transaction there");
  p = s.PositionOf(1, 4);
  p.check ^= 1;
  ExpectFails(s.Plan(At(p)), Tag::kPositionLost, "another transaction there");
}

TEST(RestorePlan, APositionBeyondWhatItsEpochFrozeIsLost) {
  Sketch s;
  s.Snapshot().Data(5).Fence(2, 5).Data(6);
  ExpectFails(s.Plan(At(s.PositionOf(1, 7))), Tag::kPositionLost, "epoch 1 ended at txid 5");
  Position p = s.PositionOf(2, 6);
  p.epoch = Epoch(1);
  ExpectFails(s.Plan(At(p)), Tag::kPositionLost, "epoch 1 ended at txid 5");
}

TEST(RestorePlan, APositionIsFoundInASnapshotALaterEpochMade) {
  Sketch s;
  s.Data(5).Fence(2, 5).Snapshot().Data(6);
  s.manifest.snapshots[0].history_hash = Sketch::Hash(1, 5);
  s.manifest.snapshots[0].usable_history_hash = Sketch::Hash(1, 5);
  EXPECT_PLAN(s.Plan(At(s.PositionOf(1, 5))), "0", 5, IsEmpty());
  ExpectFails(s.Plan(At(s.PositionOf(1, 4))), Tag::kNoSuchPoint, "the nearest after is txid 5 ");
}

TEST(RestorePlan, APositionThatOnlyALaterEpochsSnapshotProvesIsFoundThere) {
  // The scan of epoch 1 never ended for txid 5; epoch 2 begins with a snapshot of it.
  Sketch s;
  s.Snapshot().Data(5, "11000").Fence(2, 5).Snapshot().Data(6);
  s.manifest.snapshots[1].history_hash = Sketch::Hash(1, 5);
  s.manifest.snapshots[1].usable_history_hash = Sketch::Hash(1, 5);
  EXPECT_PLAN(s.Plan(At(s.PositionOf(1, 5))), "1", 5, IsEmpty());
  EXPECT_PLAN(s.Plan(At(s.PositionOf(1, 2))), "0", 2, ElementsAre(Step(2, 1, 2)));
}

TEST(RestorePlan, APositionProvenByAHealThatALaterEpochEndedIsARestorePoint) {
  Sketch s;
  s.Snapshot().Data(4).HealBegin().Data(6);
  const Position p = s.PositionOf(1, 6);
  s.Fence(2, 6);
  s.HealEnd();
  s.entries().back().header.history_hash = Sketch::Hash(1, 6);
  EXPECT_PLAN(s.Plan(At(p)), "0", 6, Not(IsEmpty()));
  s.Fence(3, 5);
  s.Data(7, "11");
  EXPECT_PLAN(s.Plan(At(p)), "0", 6, ElementsAre(Step(2, 1, 4), Step(4, 5, 6)));
}

// ---- Retired logs and lost ones ----------------------------------------------------------------

TEST(RestorePlan, ASnapshotWhoseLogIsRetiredIsAPointByItself) {
  Sketch s = Plain();
  s.manifest.horizon = s.manifest.floor = Slot(5);
  EXPECT_PLAN(s.Plan(AtTxid(4)), "1", 4, IsEmpty());
  EXPECT_PLAN(s.Plan(AtLabel("first")), "1", 4, IsEmpty());
  EXPECT_PLAN(s.Plan(AtTime(4000)), "1", 4, IsEmpty());
  EXPECT_PLAN(s.Plan(At(s.PositionOf(1, 4))), "1", 4, IsEmpty());
  EXPECT_PLAN(s.Plan(Latest()), "2", 10, ElementsAre(Step(5, 10, 10)));
  ExpectFails(s.Plan(AtTxid(6)), Tag::kNoSuchPoint, "the nearest before is txid 4 ");
  ExpectFails(s.Plan(AtTxid(6)), Tag::kNoSuchPoint, "the nearest after is txid 9 ");
}

// Transactions 5 to 8 were committed after it, and nothing that is kept can bring them back.
TEST(RestorePlan, ATimeWhoseLogIsRetiredIsNotAnsweredWithSomethingOlder) {
  Sketch s = Plain();
  s.manifest.horizon = s.manifest.floor = Slot(5);
  for (const int64_t time_ms : {4001, 8000, 8999}) {
    const auto plan = s.Plan(AtTime(time_ms));
    ExpectFails(plan, Tag::kNoSuchPoint, "the nearest before is txid 4 ");
    ExpectFails(plan, Tag::kNoSuchPoint, "the nearest after is txid 9 ");
  }
  EXPECT_PLAN(s.Plan(AtTime(9000)), "2", 9, IsEmpty());
  ExpectFails(s.Plan(AtTime(3999)), Tag::kNoSuchPoint, "the nearest before is txid 0 ");
}

// The snapshot of transaction 6 says when transaction 5 ceased to be the newest.
TEST(RestorePlan, ASnapshotWithoutItsLogHoldsUntilTheNextTransactionIfThatIsKnown) {
  Sketch s;
  s.Snapshot().Data(5).Snapshot().Data(6).Snapshot().Data(7);
  s.manifest.horizon = s.manifest.floor = s.manifest.snapshots[2].first_slot;
  EXPECT_PLAN(s.Plan(AtTime(5999)), "1", 5, IsEmpty());
  EXPECT_PLAN(s.Plan(AtTime(6000)), "2", 6, IsEmpty());
  ExpectFails(s.Plan(AtTime(4999)), Tag::kNoSuchPoint, "the nearest after is txid 5 ");
  s.manifest.snapshots[2].usable_from = Txid(7);
  ExpectFails(s.Plan(AtTime(5999)), Tag::kNoSuchPoint, "the nearest before is txid 5 ");
}

TEST(RestorePlan, ASnapshotWithoutItsLogIsNeverTheLatest) {
  Sketch s = Plain();
  s.manifest.horizon = s.manifest.floor = Slot(6);
  ExpectFails(s.Plan(Latest()), Tag::kNoBackup, "txid 9 ");
}

// What it needs of the log is kept with it, and says nothing about what came later.
TEST(RestorePlan, ASnapshotUsableLaterIsItsOwnPointAlone) {
  Sketch s = FirstScan();
  s.manifest.horizon = s.manifest.floor = Slot(5);
  ExpectFails(s.Plan(Latest()), Tag::kNoBackup, "txid 5 ");
  EXPECT_PLAN(s.Plan(AtTxid(5)), "0", 5, ElementsAre(Step(3, 3, 4), Step(4, 5, 5)));
  ExpectFails(s.Plan(AtTxid(6)), Tag::kNoSuchPoint, "txid 5 ");
}

TEST(RestorePlan, AHoleTheManifestRevealsIsNotTheEnd) {
  // Slots 2: 1-3, 3: 4, 4: 5, 5: 6; a snapshot at txid 6 says slot 5 existed. Slot 4 is lost.
  Sketch s;
  s.Snapshot().Data(3).Data(4).Data(5).Data(6).Snapshot();
  s.CutAt(4);
  s.manifest.snapshots[1].usable_from = Txid(6);
  const std::string lost = LogKey(Slot(4));
  ExpectFails(s.Plan(AtTxid(5)), Tag::kChainBroken, lost);
  ExpectFails(s.Plan(AtTime(5999)), Tag::kChainBroken, lost);
  ExpectFails(s.Plan(At(s.PositionOf(1, 5))), Tag::kChainBroken, lost);
  // What is certain without the lost part can be had.
  EXPECT_PLAN(s.Plan(AtTxid(4)), "0", 4, Not(IsEmpty()));
  EXPECT_PLAN(s.Plan(AtTime(3500)), "0", 3, ElementsAre(Step(2, 1, 3)));
  ExpectFails(s.Plan(AtTime(4000)), Tag::kChainBroken, lost);
}

TEST(RestorePlan, AFenceTheManifestNamesRevealsAHoleToo) {
  Sketch s;
  s.Snapshot().Data(3).Data(4).Data(5).Fence(2, 5);
  s.manifest.past_epochs.push_back({.epoch = Epoch(1), .last_txid = Txid(5), .fence = Slot(5)});
  EXPECT_PLAN(s.Plan(Latest()), "0", 5, Not(IsEmpty()));
  s.CutAt(4);
  ExpectFails(s.Plan(Latest()), Tag::kChainBroken, LogKey(Slot(4)));
}

TEST(RestorePlan, ALogBehindTheManifestsNewestSnapshotIsALossEvenForLatest) {
  Sketch s;
  s.Snapshot().Data(3).Snapshot(6).Data(5).Data(6);
  s.CutAt(4);
  ExpectFails(s.Plan(Latest()), Tag::kChainBroken, "usable from txid 6");
}

}  // namespace
}  // namespace guildlite
