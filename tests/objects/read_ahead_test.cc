#include "vfs/objects/read_ahead.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/fault_store.h"
#include "tests/support/round_store.h"
#include "vfs/objects/cut_off_store.h"
#include "vfs/objects/memory_store.h"

namespace guildlite {
namespace {

using testing::RoundStore;
using ::testing::SizeIs;

class ReadAheadTest : public ::testing::Test {
 protected:
  static std::string Key(size_t n) { return "k/" + std::to_string(n); }
  void Fill(size_t n) {
    for (size_t i = 0; i < n; ++i) {
      ASSERT_TRUE(memory_.Put(Key(i), std::to_string(i), PutCondition::Create()).ok());
    }
  }

  MemoryStore memory_;
  FaultStore store_{memory_};
};

TEST_F(ReadAheadTest, AnswersInTheOrderOfTheQuestionsWhateverOrderTheyComeIn) {
  Fill(8);
  store_.set_gets_at_once(8);
  // Each waits for the one after it.
  std::mutex mutex;
  std::condition_variable changed;
  size_t last = 8;
  store_.OnCall([&](const FaultStore::Call& call) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return call.key == Key(last - 1); });
    --last;
    changed.notify_all();
    return call.key == Key(5) ? Fault::kDeny : Fault::kNone;
  });
  ReadAhead ahead(store_, ReadAhead::End::kKnown);
  for (size_t i = 0; i < 8; ++i) {
    ASSERT_TRUE(ahead.HasRoom());
    ahead.Ask(Key(i));
  }
  EXPECT_FALSE(ahead.HasRoom());
  for (size_t i = 0; i < 8; ++i) {
    const auto answer = ahead.Answer();
    if (i == 5) {
      EXPECT_EQ(answer.status().tag(), Tag::kStoreDenied);
    } else {
      ASSERT_TRUE(answer.ok()) << answer.status().ToString();
      EXPECT_EQ(answer->bytes, std::to_string(i));
    }
  }
  EXPECT_TRUE(ahead.empty());
}

TEST_F(ReadAheadTest, StaysOnTheCallersThreadWhereTheStoreGainsNothing) {
  Fill(20);
  std::set<std::thread::id> threads;
  store_.OnCall([&](const FaultStore::Call&) {
    threads.insert(std::this_thread::get_id());
    return Fault::kNone;
  });
  ReadAhead ahead(store_, ReadAhead::End::kKnown);
  for (size_t i = 0; i < 20; ++i) {
    ahead.Ask(Key(i));
    EXPECT_FALSE(ahead.HasRoom()) << "one at a time";
    EXPECT_EQ(store_.calls(FaultStore::kGet), i) << "and that when it is wanted";
    ASSERT_TRUE(ahead.Answer().ok());
  }
  EXPECT_EQ(threads, std::set{std::this_thread::get_id()});
}

TEST_F(ReadAheadTest, EachSizeOfRoundComesTwice) {
  store_.set_gets_at_once(6);
  ReadAhead ahead(store_, ReadAhead::End::kUnknown);
  std::vector<size_t> rounds;
  for (int round = 0; round < 8; ++round) {
    size_t asked = 0;
    for (; ahead.HasRoom(); ++asked) ahead.Ask(Key(0));
    rounds.push_back(asked);
    while (!ahead.empty()) (void)ahead.Answer();
  }
  EXPECT_EQ(rounds, (std::vector<size_t>{1, 1, 2, 2, 4, 4, 6, 6}));
  // At its widest it does not wait for the end of a round.
  while (ahead.HasRoom()) ahead.Ask(Key(0));
  (void)ahead.Answer();
  EXPECT_TRUE(ahead.HasRoom());
  ahead.Ask(Key(0));
  EXPECT_FALSE(ahead.HasRoom());
}

TEST_F(ReadAheadTest, ReadsALongObjectInTwo) {
  std::string bytes(3 * ReadAhead::kFirstBytes, 'x');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 8);
  for (const uint64_t size : {ReadAhead::kFirstBytes, ReadAhead::kFirstBytes + 1, bytes.size()}) {
    ASSERT_TRUE(memory_.Put("k", bytes.substr(0, size), PutCondition::Overwrite()).ok());
    for (const size_t at_once : {1, 4}) {
      store_.set_gets_at_once(at_once);
      const uint64_t before = store_.calls(FaultStore::kGet);
      ReadAhead ahead(store_, ReadAhead::End::kUnknown);
      ahead.Ask("k");
      EXPECT_TRUE(ahead.Answer()->bytes == bytes.substr(0, size));
      EXPECT_EQ(store_.calls(FaultStore::kGet) - before,
                at_once > 1 && size > ReadAhead::kFirstBytes ? 2u : 1u);
      ahead.Ask("k", size);
      EXPECT_TRUE(ahead.Answer()->bytes == bytes.substr(0, size));
    }
  }
  // The object is gone when the rest is asked for.
  store_.Inject(FaultStore::kGet, 2, Fault::kFail);
  ReadAhead ahead(store_, ReadAhead::End::kUnknown);
  ahead.Ask("k");
  EXPECT_EQ(ahead.Answer().status().tag(), Tag::kStoreUnreachable);
}

TEST_F(ReadAheadTest, HoldsNoMoreThanItsBytesButAlwaysOneObject) {
  store_.set_gets_at_once(8);
  ReadAhead ahead(store_, ReadAhead::End::kKnown);
  EXPECT_TRUE(ahead.HasRoom(UINT64_MAX));
  ahead.Ask(Key(0), UINT64_MAX);
  EXPECT_FALSE(ahead.HasRoom(0));
  (void)ahead.Answer();
  ahead.Ask(Key(0), ReadAhead::kBytesMax - 10);
  EXPECT_FALSE(ahead.HasRoom(11));
  EXPECT_FALSE(ahead.HasRoom(UINT64_MAX));
  EXPECT_TRUE(ahead.HasRoom(10));
  ahead.Ask(Key(0), 10);
  (void)ahead.Answer();
  EXPECT_TRUE(ahead.HasRoom(ReadAhead::kBytesMax - 10));
}

TEST_F(ReadAheadTest, WaitsForWhatIsUnderWayWhenItEnds) {
  Fill(3);
  RoundStore rounds(memory_, 3);
  std::atomic<bool> ended{false};
  std::thread reader([&] {
    {
      ReadAhead ahead(rounds, ReadAhead::End::kKnown);
      for (size_t i = 0; i < 3; ++i) ahead.Ask(Key(i));
      EXPECT_TRUE(ahead.Answer().ok());
    }
    ended = true;
  });
  rounds.Round(3);
  reader.join();
  EXPECT_TRUE(ended);
}

// A Step that waits for its read-ahead is inside the store, once (Replicator's close counts them).
TEST_F(ReadAheadTest, CountsAsTheStepItIsMadeFrom) {
  auto faults = std::make_unique<FaultStore>(memory_);
  faults->set_gets_at_once(4);
  FaultStore& inner = *faults;
  CutOffStore store(std::move(faults));
  std::mutex mutex;
  std::condition_variable all;
  size_t inside = 0;
  std::vector<size_t> seen;
  inner.OnCall([&](const FaultStore::Call&) {
    std::unique_lock lock(mutex);
    ++inside;
    all.notify_all();
    all.wait(lock, [&] { return inside == 4; });
    seen.push_back(store.waiting());
    return Fault::kNone;
  });
  class Reads : public Task {
   public:
    explicit Reads(ObjectStore& store) : store_(store) {}
    int64_t Step(int64_t) override {
      ReadAhead ahead(store_, ReadAhead::End::kKnown);
      for (size_t i = 0; i < 4; ++i) ahead.Ask(Key(i));
      while (!ahead.empty()) (void)ahead.Answer();
      done = true;
      return kIdle;
    }
    std::atomic<bool> done{false};

   private:
    ObjectStore& store_;
  };
  Reads reads(store);
  {
    WorkerPool pool(SystemClock(), 1);
    ASSERT_TRUE(pool.Add(&reads).ok());
    while (!reads.done) std::this_thread::yield();
    pool.Remove(&reads);
  }
  EXPECT_THAT(seen, SizeIs(4));
  for (const size_t n : seen) EXPECT_EQ(n, 1u);
  EXPECT_EQ(store.waiting(), 0u);
}

}  // namespace
}  // namespace guildlite
