#include "vfs/replicate/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Slots 1..999; a snapshot every hundred slots from `first`, an hour apart; segments as asked.
struct Bucket {
  Bucket() {
    manifest.lineage = Lineage(1);
    manifest.floor = Slot(1000);
  }
  Bucket& Snapshot(uint64_t slot, std::string label = "", uint64_t end = 0) {
    SnapshotRecord s;
    s.key = "snapshot/" + std::to_string(slot);
    s.txid = s.usable_from = Txid(slot * 10);
    if (end != 0) s.usable_from = Txid(end * 10 - 1);
    s.first_slot = Slot(slot);
    s.end_slot = Slot(end != 0 ? end : slot);
    s.epoch = manifest.epoch;
    s.time_ms = static_cast<int64_t>(slot) * 1000;
    s.label = std::move(label);
    manifest.snapshots.push_back(s);
    return *this;
  }
  Bucket& Segment(uint64_t first, uint64_t last) {
    SegmentRecord s;
    s.key = "segments/1/" + std::to_string(first);
    s.first_slot = Slot(first);
    s.last_slot = Slot(last);
    manifest.segments.push_back(s);
    return *this;
  }
  Retirement Plan(int64_t now_ms = 0, int64_t window_ms = 0) {
    EXPECT_TRUE(manifest.Validate().ok()) << manifest.Validate().ToString();
    return PlanRetirement(manifest, now_ms, window_ms);
  }
  Manifest manifest;
};

std::vector<uint64_t> Of(const std::vector<SnapshotRecord>& snapshots) {
  std::vector<uint64_t> slots;
  for (const auto& s : snapshots) slots.push_back(s.first_slot.value);
  return slots;
}
std::vector<uint64_t> Of(const std::vector<SegmentRecord>& segments) {
  std::vector<uint64_t> slots;
  for (const auto& s : segments) slots.push_back(s.first_slot.value);
  return slots;
}
std::vector<uint64_t> Of(const std::vector<Slot>& list) {
  std::vector<uint64_t> slots;
  for (const Slot s : list) slots.push_back(s.value);
  return slots;
}

TEST(Retention, TwoSnapshotsAreTheLeast) {
  Bucket b;
  EXPECT_TRUE(b.Plan().empty(b.manifest));
  b.Snapshot(2).Snapshot(300);
  EXPECT_TRUE(b.Plan().empty(b.manifest));
}

TEST(Retention, WhatLiesBelowTheOlderOfTheTwoNewestGoes) {
  Bucket b;
  b.Snapshot(2).Snapshot(200).Snapshot(300).Segment(2, 100).Segment(102, 198).Segment(205, 290);
  const Retirement r = b.Plan();
  EXPECT_EQ(r.horizon, Slot(199)) << "the slot before tells the state the log goes on from";
  EXPECT_THAT(Of(r.snapshots), ElementsAre(2));
  EXPECT_THAT(Of(r.segments), ElementsAre(2, 102));
  EXPECT_THAT(Of(r.slots), ElementsAre(1, 101));
  EXPECT_FALSE(r.wants_join);
}

TEST(Retention, ASegmentAcrossTheHorizonStays) {
  Bucket b;
  b.Snapshot(2).Snapshot(200).Snapshot(300).Segment(2, 199);
  const Retirement r = b.Plan();
  EXPECT_EQ(r.horizon, Slot(199));
  EXPECT_THAT(Of(r.segments), IsEmpty());
  EXPECT_THAT(Of(r.slots), ElementsAre(1));
  b.manifest.horizon = r.horizon;
  b.Snapshot(400);
  EXPECT_THAT(Of(b.Plan().segments), ElementsAre(2)) << "until the next time";
}

TEST(Retention, AWindowKeepsWhatWasMadeInItAndTheOneBefore) {
  Bucket b;
  b.Snapshot(100).Snapshot(200).Snapshot(300).Snapshot(400).Snapshot(500);
  EXPECT_THAT(Of(b.Plan(500000, 0).snapshots), ElementsAre(100, 200, 300));
  EXPECT_THAT(Of(b.Plan(500000, 150000).snapshots), ElementsAre(100, 200)) << "350 is from 300";
  EXPECT_THAT(Of(b.Plan(500000, 400000).snapshots), IsEmpty()) << "100 is from 100";
}

// snapshot_create() by cron on a database nobody writes to.
TEST(Retention, OfSnapshotsThatBeginAtOneSlotTheTwoNewestStayAndThoseWithLabels) {
  Bucket b;
  b.Snapshot(200).Snapshot(300).Snapshot(300, "kept").Snapshot(300).Snapshot(300).Snapshot(300);
  for (size_t i = 0; i < b.manifest.snapshots.size(); ++i) {
    b.manifest.snapshots[i].key += "/" + std::to_string(i);
  }
  b.manifest.horizon = Slot(250);
  const auto keys = [](const Retirement& r) {
    std::vector<std::string> all;
    for (const auto& s : r.snapshots) all.push_back(s.key);
    return all;
  };
  Retirement r = b.Plan();
  EXPECT_THAT(keys(r), ::testing::UnorderedElementsAre("snapshot/300/1", "snapshot/300/3",
                                                       "snapshot/200/0"));
  b.manifest.horizon = r.horizon;
  std::erase_if(b.manifest.snapshots, [&](const SnapshotRecord& s) {
    return std::find(r.snapshots.begin(), r.snapshots.end(), s) != r.snapshots.end();
  });
  EXPECT_TRUE(b.Plan().empty(b.manifest));
  // The horizon may be where it stays.
  b.Snapshot(300);
  r = b.Plan();
  EXPECT_THAT(keys(r), ElementsAre("snapshot/300/4"));
  EXPECT_FALSE(r.empty(b.manifest));
}

TEST(Retention, ALabelledSnapshotStaysWithWhatItNeeds) {
  Bucket b;
  b.Snapshot(100, "alone").Snapshot(150, "not alone", 160).Snapshot(200);
  b.Snapshot(700).Snapshot(800);
  b.Segment(90, 120).Segment(121, 155).Segment(158, 170).Segment(171, 500);
  const Retirement r = b.Plan();
  EXPECT_EQ(r.horizon, Slot(699));
  EXPECT_THAT(Of(r.snapshots), ElementsAre(200));
  EXPECT_THAT(Of(r.segments), ElementsAre(90, 171));
  const auto slots = Of(r.slots);
  EXPECT_THAT(slots, ::testing::Not(::testing::Contains(156)));
  EXPECT_THAT(slots, ::testing::Not(::testing::Contains(157)));
  EXPECT_THAT(slots, ::testing::Contains(501));
  EXPECT_EQ(slots.size(), 89u + (698 - 501 + 1));
}

// The newest history does not go through a snapshot that was rewound over: it does not count.
TEST(Retention, ASnapshotOfAnAbandonedHistoryIsNotOneOfTheTwo) {
  Bucket b;
  b.Snapshot(100).Snapshot(200).Snapshot(300);
  b.manifest.epoch = Epoch(2);
  PastEpoch past;
  past.epoch = Epoch(1);
  past.last_txid = Txid(2500);
  past.fence = Slot(350);
  b.manifest.past_epochs = {past};
  EXPECT_TRUE(b.Plan().empty(b.manifest));
  b.Snapshot(400);
  EXPECT_EQ(b.Plan().horizon, Slot(199));
}

TEST(Retention, NothingAboveTheFloorGoes) {
  Bucket b;
  b.Snapshot(100).Snapshot(200).Snapshot(300);
  b.manifest.floor = Slot(150);
  const Retirement r = b.Plan();
  EXPECT_TRUE(r.wants_join);
  EXPECT_EQ(r.horizon, Slot(150));
  EXPECT_EQ(Of(r.slots).back(), 149u);
}

}  // namespace
}  // namespace guildlite
