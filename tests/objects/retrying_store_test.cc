#include "vfs/objects/retrying_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/fault_store.h"
#include "tests/support/sim_clock.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/memory_store.h"

namespace guildlite {
namespace {

class Retrying : public ::testing::Test {
 protected:
  Retrying() {
    auto faulty = std::make_unique<FaultStore>(memory_);
    faults_ = faulty.get();
    RetrySettings settings;
    settings.wait = [this](int64_t ms) {
      waits_.push_back(ms);
      clock_.Advance(ms);
      return !closing_;
    };
    store_ = std::make_unique<RetryingStore>(std::move(faulty), clock_, random_, settings);
  }
  std::string Content(const std::string& key) {
    const auto object = memory_.Get(key);
    return object.ok() ? object->bytes : "none";
  }

  MemoryStore memory_;
  SimClock clock_;
  SimRandom random_{7};
  FaultStore* faults_;
  std::vector<int64_t> waits_;
  bool closing_ = false;
  std::unique_ptr<RetryingStore> store_;
};

TEST_F(Retrying, AsksOnceWhereTheAnswerIsFinal) {
  EXPECT_EQ(store_->Get("k").status().tag(), Tag::kNotFound);
  ASSERT_TRUE(store_->Put("k", "v", PutCondition::Create()).ok());
  EXPECT_EQ(store_->Put("k", "v", PutCondition::Create()).status().tag(), Tag::kAlreadyExists)
      << "equal bytes are not ours if no attempt of ours failed";
  EXPECT_EQ(store_->Put("k", "v", PutCondition::Match("x")).status().tag(), Tag::kPrecondition);
  faults_->SetOutage(Fault::kDeny);
  EXPECT_EQ(store_->Get("k").status().tag(), Tag::kStoreDenied);
  EXPECT_EQ(store_->Delete("k").tag(), Tag::kStoreDenied);
  EXPECT_EQ(store_->List("", "", 1).status().tag(), Tag::kStoreDenied);
  EXPECT_EQ(store_->Put("k", "v", PutCondition::Overwrite()).status().tag(), Tag::kStoreDenied);
  EXPECT_TRUE(waits_.empty());
}

TEST_F(Retrying, EveryCallSurvivesPassingFaults) {
  for (const Fault fault : {Fault::kFail, Fault::kDrop, Fault::kLoseReply}) {
    ASSERT_TRUE(memory_.Delete("k").ok());
    for (const auto kind :
         {FaultStore::kPut, FaultStore::kGet, FaultStore::kList, FaultStore::kDelete}) {
      for (uint64_t n = 1; n <= 3; ++n) faults_->Inject(kind, n, fault);
    }
    ASSERT_TRUE(store_->Put("k", "v", PutCondition::Create()).ok());
    const auto object = store_->Get("k");
    ASSERT_TRUE(object.ok());
    EXPECT_EQ(object->bytes, "v");
    const auto listed = store_->List("", "", 9);
    ASSERT_TRUE(listed.ok());
    EXPECT_EQ(listed->size(), 1u);
    EXPECT_TRUE(store_->Delete("k").ok());
    EXPECT_EQ(Content("k"), "none");
  }
}

TEST_F(Retrying, BacksOffWithFullJitterUntilTheDeadline) {
  faults_->SetOutage(Fault::kFail);
  const int64_t start_ms = clock_.MonotonicMs();
  const auto object = store_->Get("k");
  EXPECT_EQ(object.status().tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(object.status().retryable());
  EXPECT_EQ(clock_.MonotonicMs() - start_ms, RetrySettings().deadline_ms);
  ASSERT_GT(waits_.size(), 6u);
  int64_t backoff_ms = 100;
  for (const int64_t ms : waits_) {
    EXPECT_GE(ms, 0);
    EXPECT_LE(ms, backoff_ms);
    backoff_ms = std::min<int64_t>(backoff_ms * 2, 5000);
  }
  EXPECT_EQ(faults_->calls(FaultStore::kGet), waits_.size())
      << "the last wait reached the deadline";
}

TEST_F(Retrying, StopsWaitingWhenTheProgramCloses) {
  faults_->SetOutage(Fault::kFail);
  closing_ = true;
  EXPECT_EQ(store_->Get("k").status().tag(), Tag::kStoreUnreachable);
  EXPECT_EQ(waits_.size(), 1u);
}

TEST_F(Retrying, WaitsOnTheClockByDefault) {
  auto faulty = std::make_unique<FaultStore>(memory_);
  faulty->Inject(FaultStore::kGet, 1, Fault::kFail);
  RetryingStore store(std::move(faulty), clock_, random_);
  EXPECT_EQ(store.Get("k").status().tag(), Tag::kNotFound);
  EXPECT_EQ(clock_.waits(), 1);
}

// The state table in the header, row by row.

TEST_F(Retrying, ACreateThatCollidesWithItselfSucceeds) {
  faults_->Inject(FaultStore::kPut, 1, Fault::kLoseReply);
  const auto put = store_->Put("k", "mine", PutCondition::Create());
  ASSERT_TRUE(put.ok()) << put.status().ToString();
  const auto there = memory_.Get("k");
  ASSERT_TRUE(there.ok());
  EXPECT_EQ(*put, there->version);
  EXPECT_EQ(faults_->calls(FaultStore::kPut), 2u);
}

TEST_F(Retrying, ASwapThatCollidesWithItselfSucceeds) {
  const auto first = memory_.Put("k", "one", PutCondition::Create());
  ASSERT_TRUE(first.ok());
  faults_->Inject(FaultStore::kPut, 1, Fault::kLoseReply);
  const auto put = store_->Put("k", "two", PutCondition::Match(*first));
  ASSERT_TRUE(put.ok()) << put.status().ToString();
  EXPECT_TRUE(store_->Put("k", "three", PutCondition::Match(*put)).ok());
}

TEST_F(Retrying, ACreateThatSomebodyElseWonIsLost) {
  faults_->OnCall([&](const FaultStore::Call& call) {
    if (call.kind != FaultStore::kPut || call.number > 1) return Fault::kNone;
    EXPECT_TRUE(memory_.Put("k", "theirs", PutCondition::Create()).ok());
    return Fault::kDrop;
  });
  EXPECT_EQ(store_->Put("k", "mine", PutCondition::Create()).status().tag(), Tag::kAlreadyExists);
  EXPECT_EQ(Content("k"), "theirs");
}

TEST_F(Retrying, ASwapThatMayHaveBeenReplacedSinceIsUnknown) {
  const auto first = memory_.Put("k", "one", PutCondition::Create());
  ASSERT_TRUE(first.ok());
  faults_->OnCall([&](const FaultStore::Call& call) {
    if (call.kind != FaultStore::kPut) return Fault::kNone;
    if (call.number == 1) return Fault::kLoseReply;
    EXPECT_TRUE(memory_.Put("k", "theirs", PutCondition::Overwrite()).ok());
    return Fault::kNone;
  });
  EXPECT_EQ(store_->Put("k", "mine", PutCondition::Match(*first)).status().tag(),
            Tag::kOutcomeUnknown);
}

TEST_F(Retrying, ACreateThatIsGoneAgainIsUnknown) {
  faults_->Inject(FaultStore::kPut, 1, Fault::kLoseReply);
  faults_->OnCall([&](const FaultStore::Call& call) {
    EXPECT_TRUE(call.kind != FaultStore::kGet || memory_.Delete("k").ok());
    return Fault::kNone;
  });
  EXPECT_EQ(store_->Put("k", "mine", PutCondition::Create()).status().tag(), Tag::kOutcomeUnknown);
}

TEST_F(Retrying, WithoutAnAnswerToTheGetItIsUnknown) {
  faults_->OnCall([&](const FaultStore::Call& call) {
    if (call.kind == FaultStore::kGet) return Fault::kFail;
    return call.number == 1 ? Fault::kLoseReply : Fault::kNone;
  });
  EXPECT_EQ(store_->Put("k", "mine", PutCondition::Create()).status().tag(), Tag::kOutcomeUnknown);
  EXPECT_GT(faults_->calls(FaultStore::kGet), 1u) << "the GET has the same patience";
}

TEST_F(Retrying, AFinalErrorSaysNothingOfTheAttemptsBefore) {
  for (const Fault fault : {Fault::kLoseReply, Fault::kFail}) {
    faults_->Inject(FaultStore::kPut, 1, fault);
    faults_->Inject(FaultStore::kPut, 2, Fault::kDeny);
    EXPECT_EQ(store_->Put("k", "v", PutCondition::Create()).status().tag(), Tag::kOutcomeUnknown);
  }
  EXPECT_EQ(store_->Put("", "v", PutCondition::Create()).status().tag(), Tag::kBadArgument);
  faults_->Inject(FaultStore::kPut, 1, Fault::kFail);
  EXPECT_EQ(store_->Put("", "v", PutCondition::Create()).status().tag(), Tag::kBadArgument);
}

TEST_F(Retrying, AtTheDeadlineOneUnknownMakesAllUnknown) {
  faults_->SetOutage(Fault::kFail);
  EXPECT_EQ(store_->Put("k", "v", PutCondition::Create()).status().tag(), Tag::kStoreUnreachable);
  faults_->Inject(FaultStore::kPut, 2, Fault::kDrop);
  const auto put = store_->Put("k", "v", PutCondition::Create());
  EXPECT_EQ(put.status().tag(), Tag::kOutcomeUnknown);
  EXPECT_TRUE(put.status().retryable());
}

// A create-only put under every pattern of faults on its first calls: whatever it answers is true.
TEST_F(Retrying, NeverLiesAboutACreate) {
  constexpr Fault kFaults[] = {Fault::kNone, Fault::kFail, Fault::kDrop, Fault::kLoseReply};
  constexpr int kCalls = 4;
  for (int pattern = 0; pattern < 256; ++pattern) {
    for (const bool other : {false, true}) {
      ASSERT_TRUE(memory_.Delete("k").ok());
      int code = pattern;
      for (uint64_t n = 1; n <= kCalls; ++n, code /= 4) {
        faults_->Inject(FaultStore::kAny, n, kFaults[code % 4]);
      }
      bool theirs = false;
      faults_->OnCall([&](const FaultStore::Call& call) {
        if (other && !theirs && call.kind == FaultStore::kPut && random_.OneIn(2)) {
          theirs = memory_.Put("k", "theirs", PutCondition::Create()).ok();
        }
        return Fault::kNone;
      });
      const auto put = store_->Put("k", "mine", PutCondition::Create());
      if (put.ok()) {
        EXPECT_EQ(Content("k"), "mine") << pattern;
      } else if (put.status().tag() == Tag::kAlreadyExists) {
        EXPECT_EQ(Content("k"), "theirs") << pattern;
      } else {
        ADD_FAILURE() << put.status().ToString();
      }
    }
  }
}

// Both layers together: no swap of the manifest is lost or done twice, whatever replies are.
TEST_F(Retrying, TheManifestSettlesThroughIt) {
  ASSERT_TRUE(CreateManifest(*store_, Manifest{}, random_).ok());
  const uint64_t seed = TestSeed(99);
  SCOPED_TRACE("GUILDLITE_TEST_SEED=" + std::to_string(seed));
  SimRandom chance(seed);
  faults_->OnCall([&](const FaultStore::Call&) {
    switch (chance.Below(6)) {
      case 0:
        return Fault::kFail;
      case 1:
        return Fault::kDrop;
      case 2:
        return Fault::kLoseReply;
      default:
        return Fault::kNone;
    }
  });
  for (int i = 0; i < 200; ++i) {
    const std::string key = "k" + std::to_string(i);
    const auto updated = UpdateManifest(*store_, random_, [&](Manifest& m) {
      for (const Tombstone& t : m.tombstones) {
        if (t.key == key) return Status::Ok();
      }
      m.tombstones.push_back({key, Slot(0), i, ""});
      return Status::Ok();
    });
    ASSERT_TRUE(updated.ok()) << updated.status().ToString();
  }
  const auto now = ReadManifest(memory_);
  ASSERT_TRUE(now.ok());
  EXPECT_EQ(now->manifest.tombstones.size(), 200u);
}

}  // namespace
}  // namespace guildlite
