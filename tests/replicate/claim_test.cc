#include "vfs/replicate/claim.h"

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/support/fault_store.h"
#include "tests/support/log_fixture.h"
#include "tests/support/sim_clock.h"
#include "vfs/base/checksum.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

constexpr Lineage kLineage(0x1234);
const Claimant kFirst{Session(11), "first"};
const Claimant kSecond{Session(22), "second"};
const Claimant kThird{Session(33), "third"};

class ClaimTest : public ::testing::Test {
 protected:
  // What an owner at `view` puts next: one DATA object of one transaction.
  Status Ship(ObjectStore& store, StoreView* view, Session session, uint64_t seed = 1) {
    ObjectHeader h;
    h.kind = ObjectKind::kData;
    h.lineage = view->manifest.manifest.lineage;
    h.epoch = view->manifest.manifest.epoch;
    h.session = session;
    h.slot = h.last_slot = view->next;
    h.first_txid = h.last_txid = h.continues_from = view->tip.txid.Next();
    h.page_size = 512;
    h.database_pages = 1;
    h.history_hash = view->tip.history_hash + seed;
    h.previous_hash = view->previous_hash;
    h.time_ms = clock_.NowMs();
    const std::string object = EncodeObject(h, "");
    auto put = store.Put(LogKey(view->next), object, PutCondition::Create());
    if (!put.ok()) return put.status();
    view->previous_hash = ObjectHash(object);
    view->next = view->next.Next();
    view->tip.txid = h.last_txid;
    view->tip.history_hash = h.history_hash;
    return Status::Ok();
  }
  LogWalk Walk(ObjectStore& store) {
    Manifest planned;
    planned.lineage = kLineage;
    auto walk = WalkLog(store, planned, Slot(1));
    EXPECT_TRUE(walk.ok()) << walk.status().ToString();
    return walk.ok() ? *std::move(walk) : LogWalk();
  }
  // Every epoch that has anything in the log begins with a FENCE, and what the manifest says of
  // past epochs is what those fences froze.
  void CheckLog(ObjectStore& store) {
    const LogWalk walk = Walk(store);
    const Manifest& m = walk.manifest.manifest;
    EXPECT_TRUE(m.Validate().ok());
    Epoch epoch;
    for (const LogEntry& e : walk.entries) {
      if (e.header.epoch != epoch) {
        EXPECT_EQ(e.header.kind, ObjectKind::kFence) << "slot " << e.header.slot.value;
      }
      epoch = e.header.epoch;
    }
    for (const PastEpoch& past : m.past_epochs) {
      const LogEntry* fence = nullptr;
      for (const LogEntry& e : walk.entries) {
        if (e.header.slot == past.fence) fence = &e;
      }
      ASSERT_NE(fence, nullptr);
      EXPECT_EQ(fence->header.kind, ObjectKind::kFence);
      EXPECT_GT(fence->header.epoch, past.epoch);
      EXPECT_EQ(past.last_txid, fence->header.last_txid) << "epoch " << past.epoch.value;
      EXPECT_EQ(past.history_hash, fence->header.history_hash) << "epoch " << past.epoch.value;
    }
  }
  Result<StoreView> Resume(ObjectStore& store, const Claimant& claimant,
                           const std::optional<Acknowledged>& hint) {
    auto seen = LookAtStore(store, hint);
    if (!seen.ok()) return seen.status();
    return ClaimResume(store, random_, clock_, claimant, *std::move(seen), hint);
  }
  // As the replicator tries again and again, until it holds or somebody else has it.
  Result<StoreView> Insist(ObjectStore& store, const Claimant& claimant) {
    Result<StoreView> claimed = Status(Tag::kTimeout, "no try");
    for (int tries = 0; tries < 20; ++tries) {
      const auto seen = LookAtStore(store, std::nullopt);
      if (seen.status().tag() == Tag::kNotFound) {
        claimed = ClaimFirst(store, random_, clock_, kLineage, claimant);
      } else if (!seen.ok()) {
        continue;
      } else if (seen->manifest.manifest.session == claimant.session) {
        claimed = ClaimResume(store, random_, clock_, claimant, *seen, std::nullopt);
      } else {
        claimed = ClaimNext(store, random_, clock_, *seen, claimant);
      }
      if (claimed.ok() || claimed.status().tag() == Tag::kFenced) break;
    }
    return claimed;
  }
  StoreView First(ObjectStore& store) {
    auto view = ClaimFirst(store, random_, clock_, kLineage, kFirst);
    EXPECT_TRUE(view.ok()) << view.status().ToString();
    return *view;
  }

  SimClock clock_;
  SimRandom random_{5};
  MemoryStore memory_;
  FaultStore store_{memory_};
};

TEST_F(ClaimTest, AFirstStartMakesManifestAndFence) {
  const StoreView view = First(store_);
  EXPECT_EQ(view.next, Slot(2));
  EXPECT_EQ(view.tip.txid, Txid(0));
  EXPECT_EQ(view.tip.history_hash, HistoryStart(kLineage));
  const Manifest& m = view.manifest.manifest;
  EXPECT_EQ(m.epoch, Epoch(1));
  EXPECT_EQ(m.session, kFirst.session);
  EXPECT_EQ(m.owner, "first");
  const LogWalk walk = Walk(memory_);
  ASSERT_EQ(walk.entries.size(), 1u);
  EXPECT_EQ(walk.entries[0].header.kind, ObjectKind::kFence);
  EXPECT_EQ(walk.entries[0].object_hash, view.previous_hash);
  EXPECT_EQ(ClaimFirst(store_, random_, clock_, Lineage(9), kSecond).status().tag(),
            Tag::kAlreadyExists);
}

TEST_F(ClaimTest, AnEmptyStoreIsNotFound) {
  EXPECT_EQ(LookAtStore(store_, std::nullopt).status().tag(), Tag::kNotFound);
}

TEST_F(ClaimTest, AFirstStartCutShortAtAnyCallIsResumed) {
  for (const Fault fault : {Fault::kFail, Fault::kDrop, Fault::kLoseReply}) {
    for (int n = 1;; ++n) {
      MemoryStore memory;
      FaultStore store(memory);
      store.Inject(FaultStore::kAny, n, fault);
      auto view = ClaimFirst(store, random_, clock_, kLineage, kFirst);
      const bool done = store.calls(FaultStore::kAny) < static_cast<uint64_t>(n);
      if (!view.ok()) {
        if (ReadManifest(memory).ok()) {
          view = Resume(store, kFirst, std::nullopt);
        } else {
          view = ClaimFirst(store, random_, clock_, kLineage, kFirst);
        }
      }
      ASSERT_TRUE(view.ok()) << n << " " << view.status().ToString();
      EXPECT_TRUE(Ship(memory, &*view, kFirst.session).ok());
      CheckLog(memory);
      EXPECT_EQ(Walk(memory).entries.size(), 2u) << "one FENCE, one DATA";
      if (done) break;
      ASSERT_LT(n, 50);
    }
  }
}

TEST_F(ClaimTest, ATakeoverFollowsTheLogToItsEndAndFencesIt) {
  StoreView old_owner = First(store_);
  ASSERT_TRUE(Ship(store_, &old_owner, kFirst.session).ok());
  auto seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok());
  EXPECT_EQ(seen->next, Slot(3));
  EXPECT_EQ(seen->tip.txid, Txid(1));
  auto view = ClaimNext(store_, random_, clock_, *seen, kSecond);
  ASSERT_TRUE(view.ok()) << view.status().ToString();
  EXPECT_EQ(view->manifest.manifest.epoch, Epoch(2));
  EXPECT_EQ(view->next, Slot(4));
  EXPECT_EQ(view->tip.txid, Txid(1));
  EXPECT_EQ(Ship(store_, &old_owner, kFirst.session).tag(), Tag::kAlreadyExists);
  EXPECT_TRUE(Ship(store_, &*view, kSecond.session).ok());
  const auto past = Walk(memory_).manifest.manifest.past_epochs;
  ASSERT_EQ(past.size(), 1u);
  EXPECT_EQ(past[0].last_txid, Txid(1));
  EXPECT_EQ(past[0].fence, Slot(3));
  CheckLog(memory_);
}

// A live old owner goes on shipping at every moment of the takeover; whatever it got in is
// followed, and it is stopped by the FENCE.
TEST_F(ClaimTest, ATakeoverFromALiveOwnerKeepsWhatThatShipped) {
  for (int every = 1; every <= 4; ++every) {
    MemoryStore memory;
    FaultStore store(memory);
    StoreView old_owner = First(memory);
    uint64_t shipped = 0;
    bool fenced = false;
    int calls = 0;
    store.OnCall([&](const FaultStore::Call&) {
      if (++calls % every == 0 && shipped < 5 && !fenced) {
        if (Ship(memory, &old_owner, kFirst.session).ok()) {
          ++shipped;
        } else {
          fenced = true;
        }
      }
      return Fault::kNone;
    });
    auto seen = LookAtStore(store, std::nullopt);
    ASSERT_TRUE(seen.ok());
    auto view = ClaimNext(store, random_, clock_, *seen, kSecond);
    ASSERT_TRUE(view.ok()) << view.status().ToString();
    store.OnCall(nullptr);
    EXPECT_FALSE(Ship(memory, &old_owner, kFirst.session).ok());
    EXPECT_EQ(view->tip.txid, Txid(shipped));
    EXPECT_TRUE(Ship(store, &*view, kSecond.session).ok());
    CheckLog(memory);
  }
}

TEST_F(ClaimTest, OfTwoThatClaimTheSameEpochOneWins) {
  (void)First(store_);
  auto seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok());
  auto winner = ClaimNext(store_, random_, clock_, *seen, kSecond);
  auto loser = ClaimNext(store_, random_, clock_, *seen, kThird);
  ASSERT_TRUE(winner.ok());
  EXPECT_EQ(loser.status().tag(), Tag::kFenced);
  CheckLog(memory_);
}

// A claim that another one overtakes between its swap and its FENCE is void, wherever that happens.
TEST_F(ClaimTest, AClaimOvertakenAtAnyCallGivesUp) {
  for (int n = 1; n <= 12; ++n) {
    MemoryStore memory;
    FaultStore store(memory);
    StoreView old_owner = First(memory);
    ASSERT_TRUE(Ship(memory, &old_owner, kFirst.session).ok());
    std::optional<Result<StoreView>> overtaker;
    int calls = 0;
    auto seen = LookAtStore(store, std::nullopt);
    ASSERT_TRUE(seen.ok());
    store.OnCall([&](const FaultStore::Call&) {
      if (++calls == n) {
        auto now = LookAtStore(memory, std::nullopt);
        EXPECT_TRUE(now.ok());
        overtaker = ClaimNext(memory, random_, clock_, *now, kThird);
      }
      return Fault::kNone;
    });
    auto view = ClaimNext(store, random_, clock_, *seen, kSecond);
    store.OnCall(nullptr);
    if (!overtaker) {
      EXPECT_TRUE(view.ok());
      break;
    }
    ASSERT_TRUE(overtaker->ok()) << n << " " << overtaker->status().ToString();
    EXPECT_FALSE(view.ok()) << n;
    EXPECT_TRUE(Ship(memory, &**overtaker, kThird.session).ok());
    EXPECT_EQ(ReadManifest(memory)->manifest.session, kThird.session);
    (void)Walk(memory);
  }
}

// Killed or answered nothing at each call: resumed as a whole, it holds, its FENCE is there, and
// the past epoch says what that froze, though the old owner shipped on meanwhile.
TEST_F(ClaimTest, ATakeoverCutShortAtAnyCallIsResumed) {
  for (const Fault fault : {Fault::kFail, Fault::kDrop, Fault::kLoseReply}) {
    for (int n = 1;; ++n) {
      MemoryStore memory;
      FaultStore store(memory);
      StoreView old_owner = First(memory);
      ASSERT_TRUE(Ship(memory, &old_owner, kFirst.session).ok());
      auto seen = LookAtStore(store, std::nullopt);
      ASSERT_TRUE(seen.ok());
      const uint64_t before = store.calls(FaultStore::kAny);
      store.Inject(FaultStore::kAny, n, fault);
      auto view = ClaimNext(store, random_, clock_, *seen, kSecond);
      const bool done = store.calls(FaultStore::kAny) - before < static_cast<uint64_t>(n);
      (void)Ship(memory, &old_owner, kFirst.session, 2);
      if (!view.ok()) {
        if (ReadManifest(memory)->manifest.session == kSecond.session) {
          view = Resume(store, kSecond, std::nullopt);
        } else {
          auto now = LookAtStore(store, std::nullopt);
          ASSERT_TRUE(now.ok());
          view = ClaimNext(store, random_, clock_, *now, kSecond);
        }
      }
      ASSERT_TRUE(view.ok()) << n << " " << view.status().ToString();
      EXPECT_FALSE(Ship(memory, &old_owner, kFirst.session, 3).ok());
      EXPECT_TRUE(Ship(memory, &*view, kSecond.session).ok());
      CheckLog(memory);
      if (done) break;
      ASSERT_LT(n, 50);
    }
  }
}

// Hazard H10: a request whose outcome nobody knows may land at any later moment, when the next try
// is under way or has come to its end. It is our own, and never fences us.
TEST_F(ClaimTest, ARequestThatLandsAtAnyLaterCallNeverFencesItsSender) {
  for (const bool takeover : {false, true}) {
    for (int n = 1, last = 0; n == 1 || n <= last; ++n) {
      for (int later = 1; later <= 12; ++later) {
        const std::string when = std::string(takeover ? "takeover" : "first start") + ", call " +
                                 std::to_string(n) + " lands " + std::to_string(later) + " later";
        MemoryStore memory;
        FaultStore store(memory);
        std::optional<StoreView> old_owner;
        if (takeover) {
          old_owner = First(memory);
          ASSERT_TRUE(Ship(memory, &*old_owner, kFirst.session).ok());
        }
        int calls = 0;
        store.OnCall([&](const FaultStore::Call&) {
          ++calls;
          if (calls == n + later) store.DeliverHeld();
          return calls == n ? Fault::kHold : Fault::kNone;
        });
        auto view = Insist(store, kSecond);
        store.OnCall(nullptr);
        ASSERT_TRUE(view.ok()) << when << ": " << view.status().ToString();
        last = std::max(last, calls);
        store.DeliverHeld();
        if (old_owner) {
          EXPECT_FALSE(Ship(memory, &*old_owner, kFirst.session, 3).ok()) << when;
        }
        EXPECT_TRUE(Ship(memory, &*view, kSecond.session).ok()) << when;
        const Manifest m = ReadManifest(memory)->manifest;
        EXPECT_EQ(m.session, kSecond.session) << when;
        EXPECT_EQ(m.epoch, Epoch(takeover ? 2 : 1)) << when << ": one claim is one epoch";
        EXPECT_EQ(Walk(memory).entries.size(), takeover ? 4u : 2u) << when << ": one FENCE";
        CheckLog(memory);
      }
    }
  }
}

// Two that claim at once, and a swap of one of them lands late: the log has one owner, the other is
// fenced, and nobody is fenced by itself.
TEST_F(ClaimTest, OfTwoWhoseRequestsLandLateOneWins) {
  for (int n = 1; n <= 8; ++n) {
    for (int later = 1; later <= 8; ++later) {
      MemoryStore memory;
      FaultStore store(memory);
      (void)First(memory);
      int calls = 0;
      std::optional<Result<StoreView>> other;
      store.OnCall([&](const FaultStore::Call&) {
        ++calls;
        if (calls == n + 1) other = Insist(memory, kThird);
        if (calls == n + later) store.DeliverHeld();
        return calls == n ? Fault::kHold : Fault::kNone;
      });
      const auto view = Insist(store, kSecond);
      store.OnCall(nullptr);
      store.DeliverHeld();
      if (!other) continue;
      ASSERT_TRUE(other->ok());
      const Session owner = ReadManifest(memory)->manifest.session;
      EXPECT_EQ(owner, view.ok() ? kSecond.session : kThird.session) << n << " " << later;
      if (!view.ok()) {
        EXPECT_EQ(view.status().tag(), Tag::kFenced) << view.status().ToString();
      }
      StoreView third = **other;
      EXPECT_EQ(Ship(memory, &third, kThird.session).ok(), !view.ok());
      (void)Walk(memory);
    }
  }
}

// The old owner goes on until it meets the FENCE, and changes the manifest too: that is no claim.
TEST_F(ClaimTest, AManifestThatItsOwnerChangedMeanwhileIsNoReasonToGiveUp) {
  (void)First(store_);
  const auto seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok());
  ASSERT_TRUE(UpdateManifest(memory_, random_, [](Manifest&) { return Status::Ok(); }).ok());
  EXPECT_EQ(ClaimNext(store_, random_, clock_, *seen, kSecond).status().tag(), Tag::kBusy);
  EXPECT_TRUE(Insist(store_, kSecond).ok());
  CheckLog(memory_);
}

// From a log that was read, until it may be written to: what a hand-over waits for.
TEST_F(ClaimTest, AClaimOfALogThatWasReadTakesFourRequests) {
  StoreView owner = First(store_);
  for (const Claimant& next : {kSecond, kThird, Claimant{Session(44), "fourth"}}) {
    ASSERT_TRUE(Ship(store_, &owner, owner.manifest.manifest.session).ok());
    const uint64_t before = store_.calls(FaultStore::kAny);
    const auto seen = LookAtStore(store_, std::nullopt);
    ASSERT_TRUE(seen.ok());
    EXPECT_EQ(store_.calls(FaultStore::kAny) - before, 1 + seen->next.value + 1)
        << "the manifest, each object, the missing one, the manifest";
    const uint64_t read = store_.calls(FaultStore::kAny);
    const auto claimed = ClaimNext(store_, random_, clock_, *seen, next);
    ASSERT_TRUE(claimed.ok()) << claimed.status().ToString();
    EXPECT_EQ(store_.calls(FaultStore::kAny) - read, 4u)
        << "the swap, the FENCE, the manifest again, the end of the epoch before";
    owner = *claimed;
  }
  CheckLog(memory_);
}

TEST_F(ClaimTest, AResumeWithNothingNewTakesTwoRequests) {
  StoreView view = First(store_);
  ASSERT_TRUE(Ship(store_, &view, kFirst.session).ok());
  const Acknowledged hint{view.next, view.previous_hash, view.tip.txid, view.tip.history_hash,
                          false,     kLineage,           Epoch(1)};
  const uint64_t before = store_.calls(FaultStore::kAny);
  const auto seen = LookAtTip(store_, hint);
  ASSERT_TRUE(seen.ok() && *seen);
  const auto resumed = ClaimResume(store_, random_, clock_, kFirst, **seen, hint);
  ASSERT_TRUE(resumed.ok());
  EXPECT_EQ(store_.calls(FaultStore::kAny) - before, 2u);
  EXPECT_EQ(resumed->next, view.next);
  ASSERT_TRUE(Ship(memory_, &view, kFirst.session).ok());
  const auto more = LookAtTip(store_, hint);
  EXPECT_TRUE(more.ok() && !*more) << "the log went on";
}

// H2: the slot that is missing may be one that was joined or retired.
TEST_F(ClaimTest, ATipBelowTheFloorIsNotTakenForTheEnd) {
  StoreView view = First(store_);
  const Acknowledged hint{view.next, view.previous_hash, view.tip.txid, view.tip.history_hash,
                          false,     kLineage,           Epoch(1)};
  ASSERT_TRUE(Ship(store_, &view, kFirst.session).ok());
  ASSERT_TRUE(UpdateManifest(memory_, random_, [&](Manifest& m) {
                m.floor = view.next;
                return Status::Ok();
              }).ok());
  ASSERT_TRUE(memory_.Delete(LogKey(hint.next_slot)).ok());
  const auto tip = LookAtTip(store_, hint);
  EXPECT_TRUE(tip.ok() && !*tip);
}

// The hint is of the epoch before: it does not prove that this one's FENCE is in the log.
TEST_F(ClaimTest, AHintOfAnEarlierEpochDoesNotStandForTheFence) {
  StoreView old_owner = First(store_);
  ASSERT_TRUE(Ship(store_, &old_owner, kFirst.session).ok());
  Acknowledged hint{old_owner.next,
                    old_owner.previous_hash,
                    old_owner.tip.txid,
                    old_owner.tip.history_hash,
                    false,
                    kLineage,
                    Epoch(1)};
  auto seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok());
  store_.OnCall([](const FaultStore::Call& call) {
    return call.kind == FaultStore::kPut && call.key.starts_with(kLogPrefix) ? Fault::kFail
                                                                             : Fault::kNone;
  });
  EXPECT_FALSE(ClaimNext(store_, random_, clock_, *seen, kSecond).ok());
  store_.OnCall(nullptr);
  auto view = Resume(store_, kSecond, hint);
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(Walk(memory_).entries.back().header.kind, ObjectKind::kFence);
  EXPECT_FALSE(Ship(store_, &old_owner, kFirst.session).ok());
  CheckLog(memory_);
}

// H10: the reply was lost, or the process killed; what it put is found by whoever resumes.
TEST_F(ClaimTest, AResumeAdoptsWhatItPutAndNeverHeardOf) {
  StoreView view = First(store_);
  const Acknowledged hint{view.next, view.previous_hash, view.tip.txid, view.tip.history_hash,
                          false,     kLineage,           Epoch(1)};
  ASSERT_TRUE(Ship(store_, &view, kFirst.session).ok());
  ASSERT_TRUE(Ship(store_, &view, kFirst.session).ok());
  for (const auto& h : {std::optional<Acknowledged>(hint), std::optional<Acknowledged>()}) {
    auto resumed = Resume(store_, kFirst, h);
    ASSERT_TRUE(resumed.ok()) << resumed.status().ToString();
    EXPECT_EQ(resumed->next, view.next);
    EXPECT_EQ(resumed->previous_hash, view.previous_hash);
    EXPECT_EQ(resumed->tip.txid, Txid(2));
    EXPECT_EQ(resumed->tip.history_hash, view.tip.history_hash);
  }
}

TEST_F(ClaimTest, AResumeOfALogThatWasTakenIsFenced) {
  (void)First(store_);
  auto seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(ClaimNext(store_, random_, clock_, *seen, kSecond).ok());
  EXPECT_EQ(Resume(store_, kFirst, std::nullopt).status().tag(), Tag::kFenced);
}

// H2: a 404 is the end only if the manifest read after it says that the slot was not retired.
TEST_F(ClaimTest, ASlotRetiredMeanwhileIsNotTakenForTheEnd) {
  StoreView view = First(store_);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Ship(store_, &view, kFirst.session).ok());
  bool armed = true;
  store_.OnCall([&](const FaultStore::Call& call) {
    if (armed && call.kind == FaultStore::kGet && call.key == LogKey(Slot(3))) {
      armed = false;
      for (uint64_t s = 1; s <= 4; ++s) EXPECT_TRUE(memory_.Delete(LogKey(Slot(s))).ok());
      EXPECT_TRUE(UpdateManifest(memory_, random_, [](Manifest& m) {
                    m.horizon = m.floor = Slot(5);
                    return Status::Ok();
                  }).ok());
    }
    return Fault::kNone;
  });
  auto seen = LookAtStore(store_, std::nullopt);
  EXPECT_EQ(seen.status().tag(), Tag::kNotFound);
  seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok()) << seen.status().ToString();
  EXPECT_EQ(seen->next, Slot(7));
}

TEST_F(ClaimTest, SeesAHealThatIsOpenAndWhereItBegan) {
  testing::LogFixture log(memory_, {});
  std::mt19937_64 random(3);
  log.CommitRandom(random);
  log.Ship();
  log.Snapshot();
  log.CommitRandom(random);
  log.Ship();
  const Txid before = log.tip();
  log.HealBegin();
  log.CommitRandom(random);
  log.Ship();
  auto seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok()) << seen.status().ToString();
  EXPECT_TRUE(seen->heal_open);
  EXPECT_EQ(seen->before_heal.txid, before);
  log.Fence();  // another epoch alone does not end it
  seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok()) << seen.status().ToString();
  EXPECT_TRUE(seen->heal_open);
}

// The heal was begun two epochs ago and never ended; what was restored is from before it.
TEST_F(ClaimTest, ARewindTakesBackTheEndsOfEarlierEpochs) {
  StoreView view = First(store_);
  ASSERT_TRUE(Ship(store_, &view, kFirst.session).ok());
  ObjectHeader begin;
  begin.kind = ObjectKind::kHealBegin;
  begin.lineage = kLineage;
  begin.epoch = Epoch(1);
  begin.session = kFirst.session;
  begin.slot = begin.last_slot = view.next;
  begin.first_txid = begin.last_txid = begin.continues_from = view.tip.txid;
  begin.previous_hash = view.previous_hash;
  const std::string object = EncodeObject(begin, "");
  ASSERT_TRUE(store_.Put(LogKey(view.next), object, PutCondition::Create()).ok());
  view.previous_hash = ObjectHash(object);
  view.next = view.next.Next();
  ASSERT_TRUE(Ship(store_, &view, kFirst.session).ok());
  auto seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok());
  auto second = ClaimNext(store_, random_, clock_, *seen, kSecond);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->manifest.manifest.past_epochs[0].last_txid, Txid(2));
  seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok());
  ASSERT_TRUE(seen->heal_open);
  EXPECT_EQ(seen->before_heal.txid, Txid(1));
  auto third = ClaimNext(store_, random_, clock_, *seen, kThird, std::optional(seen->before_heal));
  ASSERT_TRUE(third.ok()) << third.status().ToString();
  const Manifest& m = third->manifest.manifest;
  ASSERT_EQ(m.past_epochs.size(), 2u);
  for (const PastEpoch& past : m.past_epochs) {
    EXPECT_EQ(past.last_txid, Txid(1)) << "epoch " << past.epoch.value;
    EXPECT_EQ(past.history_hash, seen->before_heal.history_hash);
  }
  EXPECT_EQ(LookAtStore(store_, std::nullopt)->tip.txid, Txid(1));
  EXPECT_TRUE(Ship(store_, &*third, kThird.session).ok());
}

// The old owner's heal ends while we claim: what it acknowledged since is not taken back.
TEST_F(ClaimTest, ARewindNeverTakesBackAHealThatEndedMeanwhile) {
  testing::LogFixture log(memory_, {});
  std::mt19937_64 random(3);
  log.Snapshot();
  log.CommitRandom(random);
  log.Ship();
  log.HealBegin();
  log.CommitRandom(random);
  log.Ship();
  const auto seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok()) << seen.status().ToString();
  ASSERT_TRUE(seen->heal_open);
  bool armed = true;
  store_.OnCall([&](const FaultStore::Call& call) {
    if (armed && call.kind == FaultStore::kPut && call.key == LogKey(seen->next)) {
      armed = false;
      log.HealEnd();
      log.CommitRandom(random);
      log.Ship();
    }
    return Fault::kNone;
  });
  const auto claimed =
      ClaimNext(store_, random_, clock_, *seen, kSecond, std::optional(seen->before_heal));
  EXPECT_FALSE(armed);
  EXPECT_EQ(claimed.status().tag(), Tag::kBusy) << claimed.status().ToString();
  EXPECT_EQ(LookAtStore(store_, std::nullopt)->tip.txid, log.tip());
}

// Neither claim came to recording where the epoch before it ended.
TEST_F(ClaimTest, TheEndsOfEpochsThatNobodyRecordedAreRecordedByTheNext) {
  for (const bool fence_put : {false, true}) {
    MemoryStore memory;
    FaultStore store(memory);
    StoreView owner = First(memory);
    ASSERT_TRUE(Ship(memory, &owner, kFirst.session).ok());
    auto seen = LookAtStore(store, std::nullopt);
    ASSERT_TRUE(seen.ok());
    int fences = 0;
    store.OnCall([&](const FaultStore::Call& call) {
      if (call.kind != FaultStore::kPut) return Fault::kNone;
      if (call.key.starts_with(kLogPrefix)) {
        ++fences;
        return fence_put ? Fault::kNone : Fault::kFail;
      }
      return fences > 0 ? Fault::kFail : Fault::kNone;
    });
    ASSERT_FALSE(ClaimNext(store, random_, clock_, *seen, kSecond).ok());
    store.OnCall(nullptr);
    seen = LookAtStore(store, std::nullopt);
    ASSERT_TRUE(seen.ok());
    EXPECT_EQ(seen->manifest.manifest.epoch, Epoch(2));
    auto view = ClaimNext(store, random_, clock_, *seen, kThird);
    ASSERT_TRUE(view.ok()) << view.status().ToString();
    CheckLog(memory);
    // And what is recorded stays so.
    ASSERT_TRUE(Ship(memory, &*view, kThird.session).ok());
    seen = LookAtStore(store, std::nullopt);
    ASSERT_TRUE(ClaimNext(store, random_, clock_, *seen, kFirst).ok());
    CheckLog(memory);
  }
}

// vfs/restore/restore_plan.cc takes both back in the same way.
TEST_F(ClaimTest, WhatAnUndoTookBackIsNotTheTip) {
  testing::LogFixture log(store_, {});
  std::mt19937_64 random(7);
  for (int i = 0; i < 4; ++i) {
    log.CommitRandom(random);
    log.Ship();
  }
  const auto expect_tip = [&](uint64_t txid) {
    auto view = LookAtStore(store_, std::nullopt);
    ASSERT_TRUE(view.ok()) << view.status().ToString();
    EXPECT_EQ(view->tip.txid, Txid(txid));
    EXPECT_EQ(view->tip.history_hash, log.LivePoint(Txid(txid)).history_hash);
    EXPECT_EQ(view->next, log.next_slot());
  };
  expect_tip(4);
  log.Undo(Txid(4));
  expect_tip(3);
  log.Fence(Txid(2));
  expect_tip(2);
  log.CommitRandom(random);
  log.Ship();
  expect_tip(3);
}

// As from a bucket, where slots are asked for ahead of their turn.
TEST_F(ClaimTest, ATakeoverOfAShortLogTakesNoMoreRequestsForReadingAhead) {
  store_.set_gets_at_once(32);
  StoreView view = First(store_);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Ship(store_, &view, kFirst.session).ok());
  const uint64_t before = store_.calls(FaultStore::kAny);
  const auto seen = LookAtStore(store_, std::nullopt);
  ASSERT_TRUE(seen.ok());
  ASSERT_TRUE(ClaimNext(store_, random_, clock_, *seen, kSecond).ok());
  EXPECT_EQ(store_.calls(FaultStore::kAny) - before, 10u)
      << "the manifest, three objects, the missing one, the manifest, and four to claim";
}

// A FENCE in a hole would be followed by slots of the old epoch.
TEST_F(ClaimTest, AHoleThatIsSeenIsNotTakenOver) {
  store_.set_gets_at_once(32);
  StoreView view = First(store_);
  for (int i = 0; i < 9; ++i) ASSERT_TRUE(Ship(store_, &view, kFirst.session).ok());
  ASSERT_TRUE(memory_.Delete(LogKey(Slot(9))).ok());
  EXPECT_EQ(LookAtStore(store_, std::nullopt).status().tag(), Tag::kChainBroken);
}

// The look begins one slot before the newest snapshot's, and nothing is asked for beyond the first
// that is missing: the manifest alone tells.
TEST_F(ClaimTest, AHoleThatTheManifestRevealsIsNotTakenOver) {
  for (const uint64_t behind : {0u, 1u}) {  // slots after the one that is lost
    SCOPED_TRACE(behind);
    MemoryStore memory;
    StoreView view = First(memory);
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(Ship(memory, &view, kFirst.session).ok());
    const Slot lost(view.next.value - 1 - behind);
    ASSERT_TRUE(UpdateManifest(memory, random_, [&](Manifest& m) {
                  SnapshotRecord snapshot;
                  snapshot.key = "snap/1";
                  snapshot.epoch = Epoch(1);
                  snapshot.first_slot = snapshot.end_slot = lost.Next();
                  snapshot.txid = snapshot.usable_from = Txid(view.tip.txid.value - behind);
                  m.snapshots.push_back(snapshot);
                  return Status::Ok();
                }).ok());
    ASSERT_TRUE(memory.Delete(LogKey(lost)).ok());
    const auto seen = LookAtStore(memory, std::nullopt);
    if (behind == 0) {
      EXPECT_EQ(seen.status().tag(), Tag::kChainBroken) << "nothing tells the state of the tip";
      continue;
    }
    ASSERT_TRUE(seen.ok()) << seen.status().ToString();
    EXPECT_EQ(seen->next, view.next);
    EXPECT_EQ(seen->tip.txid, view.tip.txid);
    EXPECT_EQ(seen->tip.history_hash, view.tip.history_hash);
    const auto claimed = ClaimNext(memory, random_, clock_, *seen, kSecond);
    ASSERT_TRUE(claimed.ok()) << claimed.status().ToString();
    EXPECT_EQ(claimed->fence->slot, view.next);
    EXPECT_EQ(claimed->fence->previous_hash, view.previous_hash);
  }
}

}  // namespace
}  // namespace guildlite
