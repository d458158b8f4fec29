// What every ObjectStore must do (object_store_suite.h says how to take part), asked of each store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/conformance/object_store_suite.h"
#include "tests/support/fault_store.h"
#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/objects/local_store.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/retrying_store.h"

namespace guildlite {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Keys(const Result<std::vector<ListEntry>>& listed) {
  std::vector<std::string> keys;
  if (!listed.ok()) return {listed.status().ToString()};
  for (const ListEntry& entry : *listed) keys.push_back(entry.key);
  return keys;
}

std::string Content(ObjectStore& store, std::string_view key) {
  auto object = store.Get(key);
  return object.ok() ? object->bytes : std::string(TagName(object.status().tag()));
}

TEST_P(ObjectStoreSuite, HasNothingAtFirst) {
  EXPECT_EQ(store_.Get("manifest.json").status().tag(), Tag::kNotFound);
  EXPECT_EQ(store_.Get("log/0000000000000001").status().tag(), Tag::kNotFound);
  EXPECT_THAT(Keys(store_.List("", "", 10)), IsEmpty());
  EXPECT_TRUE(store_.Delete("log/0000000000000001").ok());
  EXPECT_FALSE(store_.Describe().empty());
}

TEST_P(ObjectStoreSuite, GivesBackWhatWasPut) {
  std::string binary;
  for (int i = 0; i < 1024; ++i) binary += static_cast<char>(i * 7);
  const std::string large(3 << 20, 'x');
  for (const std::string& bytes : {std::string(), std::string("text"), binary, large}) {
    const auto version = store_.Put("a/b/c", bytes, PutCondition::Overwrite());
    ASSERT_TRUE(version.ok()) << version.status().ToString();
    const auto object = store_.Get("a/b/c");
    ASSERT_TRUE(object.ok()) << object.status().ToString();
    EXPECT_TRUE(object->bytes == bytes) << bytes.size();
    EXPECT_EQ(object->size, bytes.size());
    EXPECT_EQ(object->version, *version);
  }
}

TEST_P(ObjectStoreSuite, CreateHasOneWinner) {
  ASSERT_TRUE(store_.Put("k", "first", PutCondition::Create()).ok());
  EXPECT_EQ(store_.Put("k", "second", PutCondition::Create()).status().tag(), Tag::kAlreadyExists);
  EXPECT_EQ(store_.Put("k", "", PutCondition::Create()).status().tag(), Tag::kAlreadyExists);
  EXPECT_EQ(Content(store_, "k"), "first");
}

TEST_P(ObjectStoreSuite, MatchReplacesOnlyTheVersionNamed) {
  const auto v1 = store_.Put("k", "one", PutCondition::Create());
  ASSERT_TRUE(v1.ok());
  const auto v2 = store_.Put("k", "two", PutCondition::Match(*v1));
  ASSERT_TRUE(v2.ok()) << v2.status().ToString();
  EXPECT_NE(*v1, *v2);
  EXPECT_EQ(TagOf(store_.Put("k", "three", PutCondition::Match(*v1))), Tag::kPrecondition);
  EXPECT_EQ(Content(store_, "k"), "two");
  const auto read = store_.Get("k");
  ASSERT_TRUE(read.ok());
  EXPECT_TRUE(store_.Put("k", "three", PutCondition::Match(read->version)).ok());
  EXPECT_EQ(Content(store_, "k"), "three");
}

TEST_P(ObjectStoreSuite, MatchOfWhatIsNotThereOrHasNoVersionFails) {
  EXPECT_EQ(TagOf(store_.Put("k", "x", PutCondition::Match("1"))), Tag::kPrecondition);
  EXPECT_EQ(store_.Get("k").status().tag(), Tag::kNotFound);
  ASSERT_TRUE(store_.Put("k", "one", PutCondition::Create()).ok());
  EXPECT_EQ(TagOf(store_.Put("k", "x", PutCondition::Match(""))), Tag::kPrecondition);
  const auto gone = store_.Get("k");
  ASSERT_TRUE(gone.ok());
  ASSERT_TRUE(store_.Delete("k").ok());
  EXPECT_EQ(TagOf(store_.Put("k", "x", PutCondition::Match(gone->version))), Tag::kPrecondition);
}

TEST_P(ObjectStoreSuite, ReadsRanges) {
  ASSERT_TRUE(store_.Put("k", "0123456789", PutCondition::Create()).ok());
  const auto range = [&](uint64_t offset, uint64_t length) {
    const auto object = store_.Get("k", ByteRange{offset, length});
    if (!object.ok()) return object.status().ToString();
    EXPECT_EQ(object->size, 10u);
    return object->bytes;
  };
  EXPECT_EQ(range(0, 10), "0123456789");
  EXPECT_EQ(range(0, 1), "0");
  EXPECT_EQ(range(3, 4), "3456");
  EXPECT_EQ(range(8, 5), "89");
  EXPECT_EQ(range(9, UINT64_MAX), "9");
  EXPECT_EQ(range(10, 1), "");
  EXPECT_EQ(range(UINT64_MAX, 1), "");
  EXPECT_EQ(store_.Get("missing", ByteRange{0, 1}).status().tag(), Tag::kNotFound);
}

TEST_P(ObjectStoreSuite, ListsByPrefixInByteOrder) {
  for (const char* key :
       {"log/2", "log/1", "log-x", "log.x", "log/10", "a", "parts/1", "log/sub/1"}) {
    ASSERT_TRUE(store_.Put(key, key, PutCondition::Create()).ok()) << key;
  }
  EXPECT_THAT(Keys(store_.List("", "", 100)), ElementsAre("a", "log-x", "log.x", "log/1", "log/10",
                                                          "log/2", "log/sub/1", "parts/1"));
  EXPECT_THAT(Keys(store_.List("log/", "", 100)),
              ElementsAre("log/1", "log/10", "log/2", "log/sub/1"));
  EXPECT_THAT(Keys(store_.List("log/1", "", 100)), ElementsAre("log/1", "log/10"));
  EXPECT_THAT(Keys(store_.List("log/", "log/10", 100)), ElementsAre("log/2", "log/sub/1"));
  EXPECT_THAT(Keys(store_.List("log/", "log/2", 1)), ElementsAre("log/sub/1"));
  EXPECT_THAT(Keys(store_.List("log/", "log/15", 1)), ElementsAre("log/2"));
  EXPECT_THAT(Keys(store_.List("log/", "log/sub/0", 9)), ElementsAre("log/sub/1"));
  EXPECT_THAT(Keys(store_.List("log/", "a", 1)), ElementsAre("log/1"));
  EXPECT_THAT(Keys(store_.List("log/", "z", 1)), IsEmpty());
  EXPECT_THAT(Keys(store_.List("log/sub/1/x", "", 9)), IsEmpty());
  EXPECT_THAT(Keys(store_.List("none/", "", 9)), IsEmpty());
  EXPECT_THAT(Keys(store_.List("", "", 0)), IsEmpty());
  const auto listed = store_.List("log/10", "", 1);
  ASSERT_TRUE(listed.ok());
  EXPECT_EQ((*listed)[0].size, 6u);
}

TEST_P(ObjectStoreSuite, PagesThroughAListWithoutGaps) {
  std::set<std::string> expected;
  for (int i = 0; i < 57; ++i) {
    // No folder beside a key that goes on where the folder's name ends ("p/1", "p-1"): MinIO's
    // listing ends early there, and we make no such keys.
    const char* const folders[] = {"segments/0/", "segments/1/", "segments/x"};
    const std::string key = folders[i % 3] + std::to_string(i);
    ASSERT_TRUE(store_.Put(key, "", PutCondition::Create()).ok());
    expected.insert(key);
  }
  std::vector<std::string> seen;
  for (;;) {
    const auto page = Keys(store_.List("segments/", seen.empty() ? "" : seen.back(), 5));
    if (page.empty()) break;
    seen.insert(seen.end(), page.begin(), page.end());
    ASSERT_LE(seen.size(), expected.size());
  }
  EXPECT_EQ(seen, std::vector<std::string>(expected.begin(), expected.end()));
}

TEST_P(ObjectStoreSuite, DeletesMany) {
  std::vector<std::string> keys;
  for (int i = 0; i < 30; ++i) {
    keys.push_back("log/" + std::to_string(100 + i));
    ASSERT_TRUE(store_.Put(keys.back(), "x", PutCondition::Create()).ok());
  }
  keys.push_back("log/never");
  ASSERT_TRUE(store_.Put("log/kept", "x", PutCondition::Create()).ok());
  ASSERT_TRUE(store_.DeleteAll(keys).ok());
  for (const std::string& key : keys) {
    EXPECT_EQ(store_.Get(key).status().tag(), Tag::kNotFound) << key;
  }
  EXPECT_TRUE(store_.Get("log/kept").ok());
  EXPECT_TRUE(store_.DeleteAll({}).ok());
  const std::vector<std::string> wrong = {"log/kept", "../x"};
  EXPECT_EQ(store_.DeleteAll(wrong).tag(), Tag::kBadArgument);
}

TEST_P(ObjectStoreSuite, DeletesAndCreatesAgain) {
  ASSERT_TRUE(store_.Put("k", "one", PutCondition::Create()).ok());
  ASSERT_TRUE(store_.Delete("k").ok());
  EXPECT_EQ(store_.Get("k").status().tag(), Tag::kNotFound);
  EXPECT_TRUE(store_.Delete("k").ok());
  EXPECT_TRUE(store_.Put("k", "two", PutCondition::Create()).ok());
  EXPECT_EQ(Content(store_, "k"), "two");
}

TEST_P(ObjectStoreSuite, RefusesMalformedKeys) {
  for (const char* key : {"", "/a", "a/", "a//b", "..", "../a", "a/../b", "a b", "\xff"}) {
    EXPECT_EQ(store_.Put(key, "x", PutCondition::Overwrite()).status().tag(), Tag::kBadArgument)
        << key;
    EXPECT_EQ(store_.Get(key).status().tag(), Tag::kBadArgument) << key;
    EXPECT_EQ(store_.Delete(key).tag(), Tag::kBadArgument) << key;
  }
}

TEST_P(ObjectStoreSuite, ConcurrentCreatesHaveOneWinner) {
  constexpr int kThreads = 4, kKeys = 20;
  for (int k = 0; k < kKeys; ++k) {
    const std::string key = "log/" + std::to_string(k);
    std::atomic<int> wins{0}, winner{-1};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        const auto put = store_.Put(key, std::to_string(t), PutCondition::Create());
        if (put.ok()) {
          ++wins;
          winner = t;
        } else {
          EXPECT_EQ(put.status().tag(), Tag::kAlreadyExists) << put.status().ToString();
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wins, 1);
    EXPECT_EQ(Content(store_, key), std::to_string(winner));
  }
}

// The manifest's use: each of many writers adds its word. None may be lost and none may be there
// twice. Bodies are unique, as a retrying store asks for; kOutcomeUnknown is settled by looking.
TEST_P(ObjectStoreSuite, ConcurrentSwapsLoseNothing) {
  constexpr int kThreads = 4, kRounds = 15;
  ASSERT_TRUE(store_.Put("words", " ", PutCondition::Create()).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        const std::string word = std::to_string(t) + ":" + std::to_string(round) + " ";
        bool may_be_there = false;
        for (;;) {
          const auto read = store_.Get("words");
          ASSERT_TRUE(read.ok()) << read.status().ToString();
          if (read->bytes.find(" " + word) != std::string::npos) {
            ASSERT_TRUE(may_be_there) << "a lost swap was done all the same";
            break;
          }
          const auto put =
              store_.Put("words", read->bytes + word, PutCondition::Match(read->version));
          if (put.ok()) break;
          if (put.status().tag() == Tag::kOutcomeUnknown) {
            may_be_there = true;
          } else {
            ASSERT_EQ(put.status().tag(), Tag::kPrecondition) << put.status().ToString();
          }
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  std::istringstream words(Content(store_, "words"));
  const std::vector<std::string> all(std::istream_iterator<std::string>(words), {});
  EXPECT_EQ(all.size(), size_t{kThreads * kRounds});
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), all.size());
}

TEST_P(ObjectStoreSuite, ReadersNeverSeeHalfAnObject) {
  constexpr size_t kSize = 200000;
  ASSERT_TRUE(store_.Put("k", std::string(kSize, 'a'), PutCondition::Create()).ok());
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done) {
      const auto object = store_.Get("k");
      ASSERT_TRUE(object.ok()) << object.status().ToString();
      ASSERT_EQ(object->bytes.size(), kSize);
      ASSERT_EQ(object->bytes.find_first_not_of(object->bytes[0]), std::string::npos);
    }
  });
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(store_.Put("k", std::string(kSize, "bc"[i % 2]), PutCondition::Overwrite()).ok());
  }
  done = true;
  reader.join();
}

// Random calls, each answered as the reference answers it.
TEST_P(ObjectStoreSuite, BehavesAsTheReference) {
  const uint64_t seed = TestSeed(20240611);
  SCOPED_TRACE("GUILDLITE_TEST_SEED=" + std::to_string(seed));
  SimRandom random(seed);
  MemoryStore model;
  const std::vector<std::string> keys = {"a", "b/c", "b/d", "b-e", "f/g/h"};
  std::vector<std::string> versions = {""}, model_versions = {""};
  for (int step = 0; step < 300; ++step) {
    const std::string& key = keys[random.Below(keys.size())];
    const std::string bytes = "step " + std::to_string(step);
    Result<std::string> got = std::string();
    Result<std::string> want = got;
    switch (random.Below(6)) {
      case 0:
        got = store_.Put(key, bytes, PutCondition::Create());
        want = model.Put(key, bytes, PutCondition::Create());
        break;
      case 1:
        got = store_.Put(key, bytes, PutCondition::Overwrite());
        want = model.Put(key, bytes, PutCondition::Overwrite());
        break;
      case 2: {
        // Mostly the newest version, sometimes an old one or another key's.
        size_t i = random.OneIn(3) ? random.Below(versions.size()) : versions.size() - 1;
        const auto current = store_.Get(key);
        const auto model_current = model.Get(key);
        ASSERT_EQ(current.ok(), model_current.ok());
        const bool newest = current.ok() && !random.OneIn(3);
        got = store_.Put(key, bytes, PutCondition::Match(newest ? current->version : versions[i]));
        want = model.Put(key, bytes,
                         PutCondition::Match(newest ? model_current->version : model_versions[i]));
        break;
      }
      case 3: {
        const Status deleted = store_.Delete(key);
        ASSERT_EQ(deleted.tag(), model.Delete(key).tag());
        continue;
      }
      case 4: {
        const auto object = store_.Get(key);
        const auto model_object = model.Get(key);
        ASSERT_EQ(object.status().tag(), model_object.status().tag());
        ASSERT_EQ(Content(store_, key), Content(model, key));
        continue;
      }
      default:
        ASSERT_EQ(Keys(store_.List("", key, 3)), Keys(model.List("", key, 3)));
        continue;
    }
    ASSERT_EQ(TagOf(got), want.status().tag()) << "step " << step << " " << key;
    if (got.ok()) {
      versions.push_back(*got);
      model_versions.push_back(*want);
    }
  }
}

class MemoryUnderTest : public StoreUnderTest {
 public:
  ObjectStore& store() override { return store_; }

 private:
  MemoryStore store_;
};

// The root is not there yet: the first put makes it.
class LocalUnderTest : public StoreUnderTest {
 public:
  ObjectStore& store() override { return store_; }

 private:
  TempDir directory_;
  LocalStore store_{directory_.File("root"), SystemClock(), SystemRandom()};
};

// Every third call or so goes wrong, and nobody notices.
class RetryingUnderTest : public StoreUnderTest {
 public:
  RetryingUnderTest() {
    auto faulty = std::make_unique<FaultStore>(memory_);
    faulty->OnCall([this](const FaultStore::Call&) {
      switch (random_.Below(9)) {
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
    RetrySettings settings;
    settings.wait = [](int64_t) { return true; };
    store_ = std::make_unique<RetryingStore>(std::move(faulty), clock_, random_, settings);
  }
  ObjectStore& store() override { return *store_; }
  bool loses_replies() const override { return true; }

 private:
  MemoryStore memory_;
  SimClock clock_;
  SimRandom random_{TestSeed(5)};
  std::unique_ptr<RetryingStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Memory, ObjectStoreSuite,
                         ::testing::Values(&std::make_unique<MemoryUnderTest>));
INSTANTIATE_TEST_SUITE_P(Local, ObjectStoreSuite,
                         ::testing::Values(&std::make_unique<LocalUnderTest>));
INSTANTIATE_TEST_SUITE_P(Retrying, ObjectStoreSuite,
                         ::testing::Values(&std::make_unique<RetryingUnderTest>));

}  // namespace
}  // namespace guildlite
