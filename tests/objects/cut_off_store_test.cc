#include "vfs/objects/cut_off_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "tests/support/fault_store.h"
#include "vfs/objects/memory_store.h"

namespace guildlite {
namespace {

class CutOff : public ::testing::Test {
 protected:
  CutOff() {
    auto faulty = std::make_unique<FaultStore>(memory_);
    faults_ = faulty.get();
    store_ = std::make_unique<CutOffStore>(std::move(faulty));
  }
  MemoryStore memory_;
  FaultStore* faults_;
  std::unique_ptr<CutOffStore> store_;
};

TEST_F(CutOff, PassesEverythingOnBefore) {
  const auto version = store_->Put("a", "1", PutCondition::Create());
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(store_->Get("a", std::nullopt)->bytes, "1");
  EXPECT_EQ(store_->List("", "", 10)->size(), 1u);
  EXPECT_EQ(store_->Put("a", "2", PutCondition::Create()).status().tag(), Tag::kAlreadyExists);
  EXPECT_TRUE(store_->Delete("a").ok());
  EXPECT_EQ(store_->Get("a", std::nullopt).status().tag(), Tag::kNotFound);
  EXPECT_EQ(store_->Describe(), faults_->Describe());
  faults_->set_gets_at_once(7);
  EXPECT_EQ(store_->gets_at_once(), 7u);
}

TEST_F(CutOff, AsksNothingAfter) {
  store_->CutOff();
  EXPECT_EQ(store_->Put("a", "1", PutCondition::Create()).status().tag(), Tag::kOutcomeUnknown);
  EXPECT_EQ(store_->Get("a", std::nullopt).status().tag(), Tag::kStoreUnreachable);
  EXPECT_EQ(store_->List("", "", 10).status().tag(), Tag::kStoreUnreachable);
  EXPECT_EQ(store_->Delete("a").tag(), Tag::kOutcomeUnknown);
  EXPECT_EQ(faults_->calls(FaultStore::kAny), 0u);
}

// What was done is done, but nobody acts on hearing of it.
TEST_F(CutOff, AnAnswerThatComesAfterIsNotHeard) {
  faults_->OnCall([&](const FaultStore::Call&) {
    EXPECT_EQ(store_->waiting(), 0u) << "this is no Step";
    store_->CutOff();
    return Fault::kNone;
  });
  EXPECT_EQ(store_->Put("a", "1", PutCondition::Create()).status().tag(), Tag::kOutcomeUnknown);
  EXPECT_EQ(store_->waiting(), 0u);
  EXPECT_TRUE(memory_.Get("a").ok());
}

TEST_F(CutOff, CountsTheStepsThatAreInside) {
  class Asks : public Task {
   public:
    explicit Asks(ObjectStore& store) : store_(store) {}
    int64_t Step(int64_t) override {
      (void)store_.Get("a");
      return kIdle;
    }

   private:
    ObjectStore& store_;
  };
  size_t seen = 0;
  faults_->OnCall([&](const FaultStore::Call&) {
    seen = store_->waiting();
    return Fault::kNone;
  });
  Asks asks(*store_);
  {
    WorkerPool pool(SystemClock(), 1);
    ASSERT_TRUE(pool.Add(&asks).ok());
    while (faults_->calls(FaultStore::kGet) == 0) std::this_thread::yield();
    pool.Remove(&asks);
  }
  EXPECT_EQ(seen, 1u);
  EXPECT_EQ(store_->waiting(), 0u);
}

}  // namespace
}  // namespace guildlite
