#include "vfs/objects/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/fault_store.h"
#include "tests/support/round_store.h"
#include "tests/support/sim_clock.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;

class LogTest : public ::testing::Test {
 protected:
  static constexpr Lineage kLineage{77};

  void SetUp() override {
    Manifest m;
    m.lineage = kLineage;
    auto created = CreateManifest(memory_, m, random_);
    ASSERT_TRUE(created.ok());
  }

  // An object without a body is enough: what is inside is the reader's business.
  ObjectHeader HeaderOf(Slot slot, uint64_t previous_hash) const {
    ObjectHeader h;
    h.kind = slot.value == 1 ? ObjectKind::kFence : ObjectKind::kVoid;
    h.lineage = kLineage;
    h.epoch = Epoch(1);
    h.session = Session(5);
    h.slot = h.last_slot = slot;
    h.time_ms = 1000;
    h.previous_hash = previous_hash;
    return h;
  }
  // Puts slots 1..n, chained.
  void FillTo(uint64_t n) {
    for (uint64_t i = 1; i <= n; ++i) {
      Append(HeaderOf(Slot(i), hashes_.empty() ? 0 : hashes_.back()));
    }
  }
  void Append(const ObjectHeader& header) {
    const std::string object = EncodeObject(header, "");
    ASSERT_TRUE(memory_.Put(LogKey(header.slot), object, PutCondition::Create()).ok());
    hashes_.push_back(ObjectHash(object));
    sizes_.push_back(object.size());
  }
  void SetFloor(Slot floor) {
    const auto updated = UpdateManifest(memory_, random_, [&](Manifest& m) {
      m.floor = floor;
      return Status::Ok();
    });
    ASSERT_TRUE(updated.ok());
  }

  static Manifest Planned(Lineage lineage = kLineage) {
    Manifest m;
    m.lineage = lineage;
    return m;
  }

  MemoryStore memory_;
  FaultStore store_{memory_};
  SimRandom random_{1};
  std::vector<uint64_t> hashes_;
  std::vector<uint64_t> sizes_;
};

// Whatever number of slots is asked for at once.
class Catalog : public LogTest, public ::testing::WithParamInterface<size_t> {
 protected:
  Catalog() { store_.set_gets_at_once(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(GetsAtOnce, Catalog, ::testing::Values(1, 2, 3, 32));

TEST_P(Catalog, FindsTheTipOfAnEmptyLog) {
  const auto walk = WalkLog(store_, Planned(), Slot(1));
  ASSERT_TRUE(walk.ok()) << walk.status().ToString();
  EXPECT_EQ(walk->next, Slot(1));
  EXPECT_TRUE(walk->entries.empty());
  EXPECT_EQ(walk->manifest.manifest.lineage, kLineage);
}

TEST_P(Catalog, ReadsEverySlotToTheTip) {
  FillTo(5);
  const auto walk = WalkLog(store_, Planned(), Slot(1));
  ASSERT_TRUE(walk.ok()) << walk.status().ToString();
  EXPECT_EQ(walk->next, Slot(6));
  ASSERT_EQ(walk->entries.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    const LogEntry& entry = walk->entries[i];
    EXPECT_EQ(entry.header.slot, Slot(i + 1));
    EXPECT_EQ(entry.object_hash, hashes_[i]);
    EXPECT_EQ(entry.size, sizes_[i]);
    EXPECT_EQ(entry.bytes.size(), sizes_[i]);
  }
  EXPECT_EQ(store_.calls(FaultStore::kGet), GetParam() == 2 ? 8u : 7u)
      << "5 slots, the 404, the manifest; with two always under way slot 7";
  EXPECT_EQ(store_.calls(FaultStore::kList), 0u);
}

TEST_P(Catalog, GoesOnFromAKnownSlotAndItsHash) {
  FillTo(5);
  const auto walk = WalkLog(store_, Planned(), Slot(4), {.previous_hash = hashes_[2]});
  ASSERT_TRUE(walk.ok()) << walk.status().ToString();
  EXPECT_EQ(walk->entries.size(), 2u);
  const auto tip = WalkLog(store_, Planned(), Slot(6), {.previous_hash = hashes_[4]});
  ASSERT_TRUE(tip.ok());
  EXPECT_EQ(tip->next, Slot(6));
  const auto forked = WalkLog(store_, Planned(), Slot(4), {.previous_hash = 1});
  EXPECT_EQ(forked.status().tag(), Tag::kChainBroken);
  EXPECT_THAT(forked.status().message(), HasSubstr(LogKey(Slot(4))));
}

TEST_P(Catalog, KeepsBytesWithinItsBudgetOnly) {
  FillTo(3);
  const auto walk = WalkLog(store_, Planned(), Slot(1), {.keep_bytes_max = sizes_[0] + sizes_[1]});
  ASSERT_TRUE(walk.ok());
  EXPECT_FALSE(walk->entries[0].bytes.empty());
  EXPECT_FALSE(walk->entries[1].bytes.empty());
  EXPECT_TRUE(walk->entries[2].bytes.empty());
  EXPECT_EQ(walk->entries[2].size, sizes_[2]);
  const auto none = WalkLog(store_, Planned(), Slot(1), {.keep_bytes_max = 0});
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->entries[0].bytes.empty());
}

// H2: the owner retires slots between a reader's manifest and its 404.
TEST_P(Catalog, A404BelowTheFloorIsNotTheTip) {
  FillTo(5);
  store_.OnCall([&](const FaultStore::Call& call) {
    if (call.key == LogKey(Slot(3))) {
      SetFloor(Slot(5));
      for (uint64_t i = 1; i < 5; ++i) EXPECT_TRUE(memory_.Delete(LogKey(Slot(i))).ok());
    }
    return Fault::kNone;
  });
  const auto walk = WalkLog(store_, Planned(), Slot(1));
  ASSERT_FALSE(walk.ok()) << "answered with slots 1 and 2 as if they were all";
  EXPECT_EQ(walk.status().tag(), Tag::kNotFound);
  store_.OnCall(nullptr);
  EXPECT_TRUE(WalkLog(store_, Planned(), Slot(5)).ok());
}

// The same with the retirement between the 404 and the manifest's answer: a manifest read before
// the 404 would have said floor 1.
TEST_P(Catalog, ReadsTheManifestAfterThe404) {
  FillTo(2);
  bool missed = false;
  store_.OnCall([&](const FaultStore::Call& call) {
    if (call.key == LogKey(Slot(3))) missed = true;
    if (call.key == kManifestKey) {
      EXPECT_TRUE(missed);
      SetFloor(Slot(4));
    }
    return Fault::kNone;
  });
  EXPECT_EQ(WalkLog(store_, Planned(), Slot(1)).status().tag(), Tag::kNotFound);
}

TEST_P(Catalog, SlotsBelowTheFloorThatAreStillThereAreRead) {
  FillTo(5);
  SetFloor(Slot(4));
  const auto walk = WalkLog(store_, Planned(), Slot(2));
  ASSERT_TRUE(walk.ok());
  EXPECT_EQ(walk->entries.size(), 4u);
  SetFloor(Slot(6));
  EXPECT_TRUE(WalkLog(store_, Planned(), Slot(6)).ok()) << "floor == the missing slot: the tip";
}

TEST_P(Catalog, EveryDamagedObjectBreaksTheChainByName) {
  struct Case {
    const char* name;
    std::function<void(ObjectHeader&)> damage;
  };
  const Case cases[] = {
      {"another lineage", [](ObjectHeader& h) { h.lineage = Lineage(78); }},
      {"made for slot 4", [](ObjectHeader& h) { h.slot = h.last_slot = Slot(4); }},
      {"does not follow", [](ObjectHeader& h) { h.previous_hash ^= 1; }},
      {"after epoch 2", [](ObjectHeader& h) { h.epoch = Epoch(1); }},
  };
  FillTo(1);
  ObjectHeader second = HeaderOf(Slot(2), hashes_.back());
  second.kind = ObjectKind::kFence;
  second.epoch = Epoch(2);
  Append(second);
  ObjectHeader good = HeaderOf(Slot(3), hashes_.back());
  good.epoch = Epoch(2);
  for (const Case& c : cases) {
    ObjectHeader bad = good;
    c.damage(bad);
    ASSERT_TRUE(
        memory_.Put(LogKey(Slot(3)), EncodeObject(bad, ""), PutCondition::Overwrite()).ok());
    const auto walk = WalkLog(store_, Planned(), Slot(1));
    EXPECT_EQ(walk.status().tag(), Tag::kChainBroken) << c.name;
    EXPECT_THAT(walk.status().message(), HasSubstr(c.name));
    EXPECT_THAT(walk.status().message(), HasSubstr(LogKey(Slot(3))));
  }
  const std::string whole = EncodeObject(good, "");
  for (size_t cut = 0; cut < whole.size(); cut += 7) {
    ASSERT_TRUE(memory_.Put(LogKey(Slot(3)), whole.substr(0, cut), PutCondition::Overwrite()).ok());
    EXPECT_EQ(WalkLog(store_, Planned(), Slot(1)).status().tag(), Tag::kChainBroken) << cut;
  }
  ASSERT_TRUE(memory_.Put(LogKey(Slot(3)), whole, PutCondition::Overwrite()).ok());
  EXPECT_TRUE(WalkLog(store_, Planned(), Slot(1)).ok());
}

TEST_P(Catalog, SlotOneFollowsNothing) {
  Append(HeaderOf(Slot(1), 5));
  EXPECT_EQ(WalkLog(store_, Planned(), Slot(1)).status().tag(), Tag::kChainBroken);
}

TEST_P(Catalog, AStoreThatWasReplacedIsNotTheTip) {
  FillTo(2);
  EXPECT_EQ(WalkLog(store_, Planned(Lineage(1)), Slot(3)).status().tag(), Tag::kChainBroken);
  ASSERT_TRUE(memory_.Delete(kManifestKey).ok());
  EXPECT_EQ(WalkLog(store_, Planned(), Slot(1)).status().tag(), Tag::kNotFound);
}

TEST_P(Catalog, AnyOtherErrorIsNeverTakenForTheTip) {
  FillTo(3);
  const std::string keys[] = {LogKey(Slot(1)), LogKey(Slot(2)), LogKey(Slot(3)), LogKey(Slot(4)),
                              std::string(kManifestKey)};
  for (const std::string& key : keys) {
    for (const Fault fault : {Fault::kFail, Fault::kDeny}) {
      store_.OnCall(
          [&](const FaultStore::Call& call) { return call.key == key ? fault : Fault::kNone; });
      const auto walk = WalkLog(store_, Planned(), Slot(1));
      ASSERT_FALSE(walk.ok()) << key;
      EXPECT_EQ(walk.status().tag(),
                fault == Fault::kFail ? Tag::kStoreUnreachable : Tag::kStoreDenied);
    }
  }
  store_.OnCall(nullptr);
  EXPECT_TRUE(WalkLog(store_, Planned(), Slot(1)).ok());
}

TEST_P(Catalog, AnErrorBeyondTheTipMattersOnlyToWhoLooksThere) {
  FillTo(3);
  store_.OnCall([&](const FaultStore::Call& call) {
    return call.key == LogKey(Slot(5)) ? Fault::kDeny : Fault::kNone;
  });
  EXPECT_EQ(WalkLog(store_, Planned(), Slot(1))->next, Slot(4));
  EXPECT_EQ(WalkLog(store_, Planned(), Slot(1), {.look_beyond = true}).status().tag(),
            Tag::kStoreDenied);
}

TEST_P(Catalog, StopsBeforeTheSlotItIsTold) {
  FillTo(9);
  store_.OnCall([&](const FaultStore::Call& call) {
    EXPECT_LT(call.key, LogKey(Slot(7))) << "nor asks for it";
    return Fault::kNone;
  });
  const auto walk = WalkLog(store_, Planned(), Slot(2), {.until = Slot(7)});
  ASSERT_TRUE(walk.ok()) << walk.status().ToString();
  EXPECT_EQ(walk->entries.size(), 5u);
  EXPECT_EQ(walk->next, Slot(7));
}

// A slot is written only once the one before it is there.
TEST_P(Catalog, WhoLooksBeyondTheTipSeesAHole) {
  FillTo(9);
  for (uint64_t lost = 2; lost <= 8; ++lost) {
    const std::string key = LogKey(Slot(lost));
    const std::string object = memory_.Get(key)->bytes;
    ASSERT_TRUE(memory_.Delete(key).ok());
    const auto walk = WalkLog(store_, Planned(), Slot(1), {.look_beyond = true});
    ASSERT_TRUE(walk.ok()) << walk.status().ToString();
    EXPECT_EQ(walk->next, Slot(lost));
    EXPECT_EQ(walk->beyond, Slot(lost + 1));
    const auto others = WalkLog(store_, Planned(), Slot(1));
    if (others.ok()) {
      EXPECT_EQ(others->next, Slot(lost));
    } else {
      EXPECT_EQ(others.status().tag(), Tag::kChainBroken);
      EXPECT_THAT(others.status().message(), HasSubstr(key + ": missing"));
    }
    ASSERT_TRUE(memory_.Put(key, object, PutCondition::Create()).ok());
  }
  EXPECT_FALSE(WalkLog(store_, Planned(), Slot(1), {.look_beyond = true})->beyond);
}

// As a join leaves it: the floor is beyond a slot that was lost before, and no segment holds that.
TEST_P(Catalog, WhoLooksBeyondAHoleBelowTheFloorGetsWhatIsBeforeIt) {
  FillTo(9);
  SetFloor(Slot(6));
  ASSERT_TRUE(memory_.Delete(LogKey(Slot(4))).ok());
  const Manifest planned = ReadManifest(memory_)->manifest;
  const auto walk = WalkLog(store_, planned, Slot(1), {.look_beyond = true});
  ASSERT_TRUE(walk.ok()) << walk.status().ToString();
  EXPECT_EQ(walk->next, Slot(4));
  EXPECT_EQ(walk->entries.size(), 3u);
  EXPECT_EQ(walk->beyond, Slot(6));
  EXPECT_EQ(walk->manifest.manifest.floor, Slot(6));
  EXPECT_EQ(WalkLog(store_, planned, Slot(1)).status().tag(), Tag::kChainBroken);
  EXPECT_EQ(
      WalkLog(store_, planned, Slot(1), {.until = Slot(5), .look_beyond = true}).status().tag(),
      Tag::kChainBroken);
}

TEST_P(Catalog, AHeaderIsReadWhetherOrNotItFitsIntoTheFirstRead) {
  for (const uint64_t parts : {0u, 3u, 30u, 60u, 500u}) {
    ObjectHeader header = HeaderOf(Slot(1), 0);
    header.kind = ObjectKind::kSnapshot;
    for (uint64_t i = 0; i < parts; ++i) {
      header.parts.push_back({"parts/" + std::string(60, 'x') + std::to_string(i), 1 + i, i});
    }
    const std::string key = "snapshot/" + std::to_string(parts);
    const std::string object = EncodeObject(header, std::string(100000, 'b'));
    ASSERT_TRUE(memory_.Put(key, object, PutCondition::Create()).ok());
    const auto read = ReadHeader(memory_, key);
    ASSERT_TRUE(read.ok()) << parts << ": " << read.status().ToString();
    EXPECT_EQ(*read, header);
  }
  EXPECT_EQ(ReadHeader(memory_, "snapshot/none").status().tag(), Tag::kNotFound);
}

// ---- Slots that are asked for ahead of their turn ----------------------------------------------

class ReadingAhead : public LogTest {
 protected:
  // As FaultStore, with a word after the answer.
  class Interrupted : public FaultStore {
   public:
    using FaultStore::FaultStore;
    std::function<void(std::string_view key)> after_get;
    Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
      auto answer = FaultStore::Get(key, range);
      if (after_get) after_get(key);
      return answer;
    }
  };
};

// Slots 7 to 10 are asked for at once; the writer comes between the answers to 7 and to the others.
TEST_F(ReadingAhead, ASlotWrittenBetweenTwoAnswersIsReadAgainAndNoTip) {
  FillTo(6);
  Interrupted store(memory_);
  store.set_gets_at_once(8);
  std::mutex mutex;
  std::condition_variable changed;
  bool written = false;
  store.after_get = [&](std::string_view key) {
    const std::lock_guard lock(mutex);
    if (key != LogKey(Slot(7)) || written) return;
    for (uint64_t i = 7; i <= 9; ++i) Append(HeaderOf(Slot(i), hashes_.back()));
    written = true;
    changed.notify_all();
  };
  store.OnCall([&](const FaultStore::Call& call) {
    std::unique_lock lock(mutex);
    const auto slot = ParseLogKey(call.key);
    if (slot && *slot > Slot(7)) changed.wait(lock, [&] { return written; });
    return Fault::kNone;
  });
  const auto walk = WalkLog(store, Planned(), Slot(1));
  ASSERT_TRUE(walk.ok()) << walk.status().ToString();
  EXPECT_EQ(walk->next, Slot(10)) << "with slots 8 and 9 there, slot 7 cannot be the tip";
  EXPECT_EQ(walk->entries.size(), 9u);
  EXPECT_EQ(walk->entries.back().object_hash, hashes_.back());
  EXPECT_EQ(store.calls(FaultStore::kGet), 12u) << "10 slots, one of them twice, the manifest";
}

TEST_F(ReadingAhead, AHoleInTheMiddleOfARoundIsNoTip) {
  FillTo(10);
  ASSERT_TRUE(memory_.Delete(LogKey(Slot(8))).ok());
  store_.set_gets_at_once(8);
  const auto walk = WalkLog(store_, Planned(), Slot(1));
  ASSERT_FALSE(walk.ok()) << "a FENCE in the hole would be answered with success";
  EXPECT_EQ(walk.status().tag(), Tag::kChainBroken);
  EXPECT_THAT(walk.status().message(),
              HasSubstr(LogKey(Slot(8)) + ": missing, but there is " + LogKey(Slot(9))));
}

TEST_F(ReadingAhead, WhatIsRetiredBetweenTwoAnswersIsPlannedAgain) {
  FillTo(12);
  store_.set_gets_at_once(8);
  std::once_flag once;
  store_.OnCall([&](const FaultStore::Call& call) {
    if (call.key == LogKey(Slot(8))) {
      std::call_once(once, [&] {
        SetFloor(Slot(10));
        for (uint64_t i = 1; i < 10; ++i) EXPECT_TRUE(memory_.Delete(LogKey(Slot(i))).ok());
      });
    }
    return Fault::kNone;
  });
  EXPECT_EQ(WalkLog(store_, Planned(), Slot(1)).status().tag(), Tag::kNotFound);
}

TEST_F(ReadingAhead, AsksForFewerSlotsBeyondTheTipThanItFinds) {
  FillTo(70);
  store_.set_gets_at_once(16);
  for (uint64_t n = 0; n <= 70; ++n) {
    const uint64_t before = store_.calls(FaultStore::kGet);
    ASSERT_EQ(WalkLog(store_, Planned(), Slot(71 - n))->entries.size(), n);
    const uint64_t asked = store_.calls(FaultStore::kGet) - before - 1;  // the manifest
    EXPECT_LE(asked, n + 1 + std::min<uint64_t>(n * 2 / 3, 15)) << n;
  }
}

TEST_F(ReadingAhead, AHundredSlotsTakeTheTimeOfFifteenAnswers) {
  FillTo(100);
  testing::RoundStore store(memory_, 16);
  Result<LogWalk> walk = LogWalk();
  std::thread reader([&] { walk = WalkLog(store, Planned(), Slot(1)); });
  for (const size_t gets : {1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 16, 16, 16}) store.Round(gets);
  store.Round(6);  // asked for with the last slots that were found
  store.Round(1);  // the manifest
  store.Open();
  reader.join();
  ASSERT_TRUE(walk.ok()) << walk.status().ToString();
  EXPECT_EQ(walk->entries.size(), 100u);
}

// A writer and a sweeper at work at every request: an answer is dense, chained, and not older than
// the log was at the beginning, or there is none.
TEST_F(ReadingAhead, NoInterleavingMakesTheLogShorter) {
  const uint64_t seed = TestSeed(1);
  SCOPED_TRACE("GUILDLITE_TEST_SEED=" + std::to_string(seed));
  SimRandom dice(seed);
  FillTo(5);
  uint64_t floor = 1;
  std::mutex mutex;
  store_.OnCall([&](const FaultStore::Call&) {
    uint64_t yields;
    {
      const std::lock_guard lock(mutex);
      for (uint64_t n = dice.OneIn(3) ? dice.Below(3) : 0; n > 0; --n) {
        Append(HeaderOf(Slot(hashes_.size() + 1), hashes_.back()));
      }
      if (dice.OneIn(20)) {
        const uint64_t retired = std::min(hashes_.size(), floor + dice.Below(20));
        SetFloor(Slot(retired));
        for (; floor < retired; ++floor) EXPECT_TRUE(memory_.Delete(LogKey(Slot(floor))).ok());
      }
      yields = dice.Below(4);
    }
    for (; yields > 0; --yields) std::this_thread::yield();
    return Fault::kNone;
  });
  int whole = 0;
  for (int i = 0; i < 200; ++i) {
    store_.set_gets_at_once(1 + static_cast<size_t>(i) % 16);
    const uint64_t from = floor;
    const uint64_t tip = hashes_.size();
    const auto manifest = ReadManifest(memory_);
    const auto walk = WalkLog(store_, manifest->manifest, Slot(from));
    if (!walk.ok()) {
      EXPECT_EQ(walk.status().tag(), Tag::kNotFound) << walk.status().ToString();
      continue;
    }
    ++whole;
    EXPECT_GT(walk->next.value, tip);
    for (size_t k = 0; k < walk->entries.size(); ++k) {
      ASSERT_EQ(walk->entries[k].header.slot, Slot(from + k));
      ASSERT_EQ(walk->entries[k].object_hash, hashes_[from + k - 1]);
    }
    EXPECT_EQ(walk->next, Slot(from + walk->entries.size()));
  }
  EXPECT_GT(whole, 0);
}

}  // namespace
}  // namespace guildlite
