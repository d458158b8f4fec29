#include "vfs/objects/counted_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "tests/support/fault_store.h"
#include "vfs/objects/memory_store.h"

namespace guildlite {
namespace {

class Counted : public ::testing::Test {
 protected:
  Counted() {
    auto faulty = std::make_unique<FaultStore>(memory_);
    faults_ = faulty.get();
    store_ = std::make_unique<CountedStore>(std::move(faulty), counts_);
  }
  // puts gets lists deletes bytes
  std::string Counts() const {
    return std::to_string(counts_->puts) + " " + std::to_string(counts_->gets) + " " +
           std::to_string(counts_->lists) + " " + std::to_string(counts_->deletes) + " " +
           std::to_string(counts_->bytes_sent);
  }

  MemoryStore memory_;
  FaultStore* faults_;
  const std::shared_ptr<RequestCounts> counts_ = std::make_shared<RequestCounts>();
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(Counted, EachRequestOnceByItsKind) {
  EXPECT_EQ(Counts(), "0 0 0 0 0");
  ASSERT_TRUE(store_->Put("k", "12345", PutCondition::Create()).ok());
  EXPECT_EQ(Counts(), "1 0 0 0 5");
  ASSERT_TRUE(store_->Get("k").ok());
  ASSERT_TRUE(store_->Get("k", ByteRange{1, 2}).ok());
  EXPECT_EQ(Counts(), "1 2 0 0 5");
  ASSERT_TRUE(store_->List("", "", 10).ok());
  EXPECT_EQ(Counts(), "1 2 1 0 5");
  ASSERT_TRUE(store_->Delete("k").ok());
  EXPECT_EQ(Counts(), "1 2 1 1 5");
}

// A refused request was one all the same: it took its time, and a bucket's owner pays for it.
TEST_F(Counted, WhatFailsIsCountedToo) {
  EXPECT_EQ(store_->Get("k").status().tag(), Tag::kNotFound);
  ASSERT_TRUE(store_->Put("k", "1", PutCondition::Create()).ok());
  EXPECT_EQ(store_->Put("k", "23", PutCondition::Create()).status().tag(), Tag::kAlreadyExists);
  faults_->SetOutage(Fault::kFail);
  EXPECT_FALSE(store_->List("", "", 1).ok());
  EXPECT_FALSE(store_->Delete("k").ok());
  EXPECT_EQ(Counts(), "2 1 1 1 3");
}

TEST_F(Counted, OnlyWhatWasAcknowledgedIsStored) {
  ASSERT_TRUE(store_->Put("k", "123", PutCondition::Create()).ok());
  EXPECT_FALSE(store_->Put("k", "4567", PutCondition::Create()).ok());
  faults_->SetOutage(Fault::kDrop);
  EXPECT_FALSE(store_->Put("l", "89", PutCondition::Create()).ok());
  EXPECT_EQ(counts_->bytes_sent, 9u);
  EXPECT_EQ(counts_->bytes_stored, 3u);
}

TEST_F(Counted, HandsEverythingThroughAsItIs) {
  const auto version = store_->Put("k", "12345", PutCondition::Create());
  ASSERT_TRUE(version.ok());
  const auto got = store_->Get("k", ByteRange{1, 2});
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->bytes, "23");
  EXPECT_EQ(got->size, 5u);
  EXPECT_EQ(store_->Put("k", "6", PutCondition::Match("other")).status().tag(), Tag::kPrecondition);
  EXPECT_TRUE(store_->Put("k", "6", PutCondition::Match(*version)).ok());
  EXPECT_EQ(memory_.Get("k")->bytes, "6");
  ASSERT_TRUE(store_->Put("l", "7", PutCondition::Overwrite()).ok());
  const auto list = store_->List("", "k", 10);
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ(list->front().key, "l");
  EXPECT_EQ(store_->Describe(), faults_->Describe());
  faults_->set_gets_at_once(7);
  EXPECT_EQ(store_->gets_at_once(), 7u);
}

}  // namespace
}  // namespace guildlite
