#include "vfs/objects/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/fault_store.h"
#include "tests/support/sim_clock.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;

class Catalog : public ::testing::Test {
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

TEST_F(Catalog, FindsTheTipOfAnEmptyLog) {
  const auto walk = WalkLog(store_, Planned(), Slot(1));
  ASSERT_TRUE(walk.ok()) << walk.status().ToString();
  EXPECT_EQ(walk->next, Slot(1));
  EXPECT_TRUE(walk->entries.empty());
  EXPECT_EQ(walk->manifest.manifest.lineage, kLineage);
}

TEST_F(Catalog, ReadsEverySlotToTheTip) {
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
  EXPECT_EQ(store_.calls(FaultStore::kGet), 7u) << "5 slots, the 404, the manifest";
  EXPECT_EQ(store_.calls(FaultStore::kList), 0u);
}

TEST_F(Catalog, GoesOnFromAKnownSlotAndItsHash) {
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

TEST_F(Catalog, KeepsBytesWithinItsBudgetOnly) {
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
TEST_F(Catalog, A404BelowTheFloorIsNotTheTip) {
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
TEST_F(Catalog, ReadsTheManifestAfterThe404) {
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

TEST_F(Catalog, SlotsBelowTheFloorThatAreStillThereAreRead) {
  FillTo(5);
  SetFloor(Slot(4));
  const auto walk = WalkLog(store_, Planned(), Slot(2));
  ASSERT_TRUE(walk.ok());
  EXPECT_EQ(walk->entries.size(), 4u);
  SetFloor(Slot(6));
  EXPECT_TRUE(WalkLog(store_, Planned(), Slot(6)).ok()) << "floor == the missing slot: the tip";
}

TEST_F(Catalog, EveryDamagedObjectBreaksTheChainByName) {
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

TEST_F(Catalog, SlotOneFollowsNothing) {
  Append(HeaderOf(Slot(1), 5));
  EXPECT_EQ(WalkLog(store_, Planned(), Slot(1)).status().tag(), Tag::kChainBroken);
}

TEST_F(Catalog, AStoreThatWasReplacedIsNotTheTip) {
  FillTo(2);
  EXPECT_EQ(WalkLog(store_, Planned(Lineage(1)), Slot(3)).status().tag(), Tag::kChainBroken);
  ASSERT_TRUE(memory_.Delete(kManifestKey).ok());
  EXPECT_EQ(WalkLog(store_, Planned(), Slot(1)).status().tag(), Tag::kNotFound);
}

TEST_F(Catalog, AnyOtherErrorIsNeverTakenForTheTip) {
  FillTo(3);
  for (uint64_t n = 1; n <= 5; ++n) {
    store_.Inject(FaultStore::kGet, n, n % 2 == 0 ? Fault::kFail : Fault::kDeny);
    const auto walk = WalkLog(store_, Planned(), Slot(1));
    ASSERT_FALSE(walk.ok()) << n;
    EXPECT_EQ(walk.status().tag(), n % 2 == 0 ? Tag::kStoreUnreachable : Tag::kStoreDenied);
  }
  EXPECT_TRUE(WalkLog(store_, Planned(), Slot(1)).ok());
}

TEST_F(Catalog, AHeaderIsReadWhetherOrNotItFitsIntoTheFirstRead) {
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

}  // namespace
}  // namespace guildlite
