// Merging copies: what is in a segment is byte for byte what was in the objects.
#include "vfs/format/segment_merge.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/support/log_fixture.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using testing::LogFixture;

class SegmentMergeTest : public ::testing::Test {
 protected:
  SegmentMergeTest() {
    std::mt19937_64 random(1);
    for (int i = 0; i < 6; ++i) {
      log_.CommitRandom(random);
      if (i == 3) log_.CutBatch();
      if (i % 2 == 1) log_.Ship();
    }
  }
  std::string Object(uint64_t slot) { return store_.Get(LogKey(Slot(slot)))->bytes; }

  MemoryStore store_;
  LogFixture log_{store_, {.page_size = 512}};
};

TEST_F(SegmentMergeTest, TheBodyIsTheBodiesOneAfterTheOther) {
  SegmentMerge merge;
  std::string bodies;
  std::vector<std::string> objects = {Object(2), Object(3), Object(4)};
  for (size_t i = 0; i < objects.size(); ++i) {
    const auto view = OpenObject(objects[i], "object");
    ASSERT_TRUE(view.ok());
    EXPECT_EQ(merge.Continues(view->header), i != 0);
    merge.Add(*view);
    bodies.append(reinterpret_cast<const char*>(view->inline_body.data()),
                  view->inline_body.size());
  }
  EXPECT_EQ(merge.objects(), 3u);
  EXPECT_EQ(merge.last_object_hash(), OpenObject(objects[2], "object")->object_hash);
  const auto segment = merge.Finish(Session(9));
  ASSERT_TRUE(segment.ok()) << segment.status().ToString();
  const auto view = OpenObject(*segment, "segment");
  ASSERT_TRUE(view.ok()) << view.status().ToString();
  // Three objects of at least a block each, in order, nothing between them but batch framing.
  ASSERT_GE(view->index.size(), 3u);
  uint64_t end = 0;
  for (const IndexEntry& block : view->index) {
    EXPECT_GT(block.offset, end);
    const auto mark = static_cast<uint8_t>(view->inline_body[block.offset]);
    EXPECT_TRUE(mark == kBlockMark || mark == kPackedBlockMark);
    end = block.offset + block.size;
  }
  EXPECT_LT(end, view->inline_body.size());
  EXPECT_EQ(view->index.back().last_txid, log_.tip());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(view->inline_body.data()),
                        view->inline_body.size()),
            bodies);
  const ObjectHeader first = OpenObject(objects[0], "object")->header;
  ObjectHeader expected = OpenObject(objects[2], "object")->header;
  expected.kind = ObjectKind::kSegment;
  expected.session = Session(9);
  expected.slot = first.slot;
  expected.first_txid = first.first_txid;
  expected.previous_hash = first.previous_hash;
  EXPECT_TRUE(view->header == expected);
  EXPECT_EQ(merge.objects(), 0u);
}

TEST_F(SegmentMergeTest, OnlyNeighboursOfOneEpochContinue) {
  const std::string second = Object(2), third = Object(3), fourth = Object(4);
  SegmentMerge merge;
  merge.Add(*OpenObject(second, "object"));
  ObjectHeader h = OpenObject(third, "object")->header;
  EXPECT_TRUE(merge.Continues(h));
  EXPECT_FALSE(merge.Continues(OpenObject(fourth, "object")->header));
  const auto without = [&](auto change) {
    ObjectHeader changed = h;
    change(changed);
    return merge.Continues(changed);
  };
  EXPECT_FALSE(without([](ObjectHeader& x) { x.epoch = Epoch(2); }));
  EXPECT_FALSE(without([](ObjectHeader& x) { x.page_size = 1024; }));
  EXPECT_FALSE(without([](ObjectHeader& x) { x.first_txid = x.first_txid.Next(); }));
  EXPECT_FALSE(without([](ObjectHeader& x) { x.previous_hash ^= 1; }));
  EXPECT_FALSE(without([](ObjectHeader& x) { x.lineage = Lineage(2); }));
}

TEST_F(SegmentMergeTest, WhatSettlesSomethingOrHasPartsStaysAsItIs) {
  ObjectHeader h = OpenObject(Object(2), "object")->header;
  EXPECT_TRUE(SegmentMerge::Joinable(h, 100, 100));
  EXPECT_FALSE(SegmentMerge::Joinable(h, 101, 100));
  h.parts.push_back({"parts/x", 1, 1});
  EXPECT_FALSE(SegmentMerge::Joinable(h, 100, 100));
  h.parts.clear();
  for (const ObjectKind kind :
       {ObjectKind::kFence, ObjectKind::kVoid, ObjectKind::kUndo, ObjectKind::kHealBegin,
        ObjectKind::kHealEnd, ObjectKind::kSnapshot, ObjectKind::kSegment}) {
    h.kind = kind;
    EXPECT_FALSE(SegmentMerge::Joinable(h, 100, 100)) << static_cast<int>(kind);
  }
}

}  // namespace
}  // namespace guildlite
