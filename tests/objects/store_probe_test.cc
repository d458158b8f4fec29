// The probe against stores that hold what S3 promises, and against those that do not, each wrong as
// some server was. A probe that calls one of these safe is worth nothing.
#include "vfs/objects/store_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/fault_store.h"
#include "tests/support/memory_s3.h"
#include "tests/support/sim_clock.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"
#include "vfs/objects/retrying_store.h"
#include "vfs/objects/s3_store.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;

class StoreProbe : public ::testing::Test {
 protected:
  std::unique_ptr<ObjectStore> Open(MemoryS3& s3) { return Open(s3.handler()); }
  std::unique_ptr<ObjectStore> Open(TestHttpServer::Handler handler) {
    http_ = std::make_unique<DirectHttp>(std::move(handler));
    credentials_ = std::make_unique<TestCredentials>(*http_);
    auto store =
        std::make_unique<S3Store>(*ParseS3Url("bucket?endpoint=http://memory&region=us-east-1"),
                                  *http_, *credentials_, SystemClock());
    s3_store_ = store.get();
    return std::make_unique<RetryingStore>(std::move(store), clock_, random_,
                                           RetrySettings{.wait = [this](int64_t ms) {
                                             clock_.Advance(ms);
                                             return true;
                                           }});
  }
  Result<StoreVerdict> Probe(ObjectStore& store) {
    return ProbeStore(store, SystemClock(), random_, {.parallel = 8, .rounds = 2});
  }
  // What was seen of a store with these flaws; "" = safe.
  std::string Seen(S3Flaws flaws) {
    MemoryS3 s3("bucket", flaws);
    const auto store = Open(s3);
    const auto verdict = Probe(*store);
    EXPECT_EQ(s3.objects(), 0u) << "something was left behind";
    return verdict.ok() ? verdict->unsafe : verdict.status().ToString();
  }

  SimClock clock_;
  SimRandom random_{TestSeed(7)};
  std::unique_ptr<DirectHttp> http_;
  std::unique_ptr<TestCredentials> credentials_;
  S3Store* s3_store_ = nullptr;
};

TEST_F(StoreProbe, FindsNothingWrongWithS3) {
  EXPECT_EQ(Seen({}), "");
  EXPECT_EQ(Seen({.no_ranges = true, .no_checksums = true}), "");
}

TEST_F(StoreProbe, FindsNothingWrongWithOurOwnStores) {
  MemoryStore memory;
  const auto verdict = Probe(memory);
  ASSERT_TRUE(verdict.ok()) << verdict.status().ToString();
  EXPECT_EQ(verdict->unsafe, "");
}

TEST_F(StoreProbe, DeletesWhatAKilledProbeLeftLongAgoAndNothingThatMayBeInUse) {
  MemoryStore memory;
  const auto now_ms = static_cast<uint64_t>(SystemClock().NowMs());
  for (const std::string& key :
       {ProbeKey(1, 1), ProbeKey(now_ms - 25 * 3600 * 1000, 2), ProbeKey(now_ms - 3600 * 1000, 3),
        ProbeKey(now_ms + 3600 * 1000, 4), std::string("probe/mine"), std::string("log/1")}) {
    ASSERT_TRUE(memory.Put(key, "x", PutCondition::Create()).ok());
  }
  ASSERT_EQ(Probe(memory)->unsafe, "");
  std::vector<std::string> left;
  const auto entries = memory.List("", "", SIZE_MAX);
  for (const ListEntry& entry : *entries) left.push_back(entry.key);
  EXPECT_THAT(left, ::testing::ElementsAre("log/1", ProbeKey(now_ms - 3600 * 1000, 3),
                                           ProbeKey(now_ms + 3600 * 1000, 4), "probe/mine"));
}

TEST_F(StoreProbe, FindsStoresThatIgnoreConditions) {
  EXPECT_THAT(Seen({.ignores_create = true}), HasSubstr("If-None-Match is ignored"));
  EXPECT_THAT(Seen({.ignores_match = true}), HasSubstr("If-Match is ignored"));
  EXPECT_THAT(Seen({.matches_missing = true}), HasSubstr("created an object that was not there"));
  EXPECT_THAT(Seen({.ignores_create = true, .ignores_match = true}), HasSubstr("is ignored"));
}

TEST_F(StoreProbe, FindsStoresThatRefuseConditions) {
  EXPECT_THAT(Seen({.refuses_conditions = true}), HasSubstr("501 NotImplemented"));
}

TEST_F(StoreProbe, FindsStoresThatLookAtConditionsTooEarly) {
  EXPECT_THAT(Seen({.races = true}), HasSubstr("simultaneous creates of one object succeeded"));
}

TEST_F(StoreProbe, FindsStoresWhoseReadsAreLate) {
  EXPECT_THAT(Seen({.reads_stale = true}), HasSubstr("did not give what was put last"));
}

TEST_F(StoreProbe, LearnsThatIfMatchGoesWithoutQuotes) {
  MemoryS3 s3("bucket", {.bare_etags_only = true});
  const auto store = Open(s3);
  const auto verdict = Probe(*store);
  ASSERT_TRUE(verdict.ok()) << verdict.status().ToString();
  EXPECT_EQ(verdict->unsafe, "");
  EXPECT_TRUE(verdict->bare_etags);
  const auto version = store->Put("k", "one", PutCondition::Create());
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(store->Put("k", "two", PutCondition::Match(*version)).status().tag(),
            Tag::kPrecondition);
  s3_store_->UseBareEtags();
  EXPECT_TRUE(store->Put("k", "two", PutCondition::Match(*version)).ok());
  EXPECT_EQ(store->Put("k", "two", PutCondition::Match(*version)).status().tag(),
            Tag::kPrecondition);
}

TEST_F(StoreProbe, HasNoVerdictWhereMissingObjectsAreDenied) {
  const std::string seen = Seen({.denies_missing = true});
  EXPECT_THAT(seen, HasSubstr("STORE_DENIED"));
  EXPECT_THAT(seen, HasSubstr("s3:ListBucket"));
}

TEST_F(StoreProbe, HasNoVerdictOfAStoreThatIsAway) {
  MemoryStore memory;
  for (uint64_t call = 1; call <= 6; ++call) {
    FaultStore faulty(memory);
    faulty.Inject(FaultStore::kPut, call, Fault::kFail);
    const auto verdict = Probe(faulty);
    EXPECT_EQ(verdict.status().tag(), Tag::kStoreUnreachable) << call;
  }
}

// Conflicts, throttling, lost replies: a good store on a bad day is not called unsafe.
TEST_F(StoreProbe, IsPatient) {
  MemoryS3 s3("bucket");
  SimRandom chance(TestSeed(11));
  const auto store = Open([&](const TestHttpServer::Request& request) {
    switch (chance.Below(8)) {
      case 0:
        return MemoryS3::Error(409, "ConditionalRequestConflict");
      case 1:
        return MemoryS3::Error(503, "SlowDown");
      case 2: {
        auto reply = s3.Handle(request);
        reply.close_before_answering = true;
        return reply;
      }
      case 3:
        s3.Handle(request);
        return MemoryS3::Error(500, "InternalError");
      default:
        return s3.Handle(request);
    }
  });
  const auto verdict = Probe(*store);
  // Alone a lost reply to a replacement cannot be told from a lost race.
  if (!verdict.ok()) {
    EXPECT_EQ(verdict.status().tag(), Tag::kOutcomeUnknown) << verdict.status().ToString();
  } else {
    EXPECT_EQ(verdict->unsafe, "");
  }
}

TEST_F(StoreProbe, IsMadeOncePerPlaceAndAgainIfItFailed) {
  StoreVerdicts verdicts;
  int probes = 0;
  const auto probe = [&](Result<StoreVerdict> answer) {
    return [&probes, answer] {
      ++probes;
      return answer;
    };
  };
  const Status away(Tag::kStoreUnreachable, "away");
  EXPECT_EQ(verdicts.Of("a", probe(away)).status().tag(), Tag::kStoreUnreachable);
  EXPECT_EQ(verdicts.Of("a", probe(StoreVerdict{"seen", false}))->unsafe, "seen");
  EXPECT_EQ(verdicts.Of("a", probe(StoreVerdict{}))->unsafe, "seen");
  EXPECT_EQ(verdicts.Of("b", probe(StoreVerdict{}))->unsafe, "");
  EXPECT_EQ(probes, 3);
}

TEST(ProbedStore, AsksBeforeTheFirstConditionalPutOnly) {
  int asked = 0;
  StoreVerdict verdict;
  Status trouble(Tag::kStoreUnreachable, "away");
  ProbedStore store(std::make_unique<MemoryStore>(), [&](ObjectStore&) -> Result<StoreVerdict> {
    ++asked;
    if (!trouble.ok()) return trouble;
    return verdict;
  });
  EXPECT_TRUE(store.Put("k", "v", PutCondition::Overwrite()).ok());
  EXPECT_TRUE(store.Get("k").ok());
  EXPECT_TRUE(store.List("", "", 1).ok());
  EXPECT_TRUE(store.Delete("k").ok());
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(store.Put("k", "v", PutCondition::Create()).status().tag(), Tag::kStoreUnreachable);
  trouble = Status::Ok();
  verdict.unsafe = "two won";
  const auto unsafe = store.Put("k", "v", PutCondition::Create());
  EXPECT_EQ(unsafe.status().tag(), Tag::kStoreUnsafe);
  EXPECT_THAT(unsafe.status().message(), HasSubstr("two won"));
  EXPECT_EQ(store.Get("k").status().tag(), Tag::kNotFound);
  EXPECT_EQ(asked, 2);
  verdict.unsafe.clear();
  const auto version = store.Put("k", "v", PutCondition::Create());
  ASSERT_TRUE(version.ok());
  EXPECT_TRUE(store.Put("k", "w", PutCondition::Match(*version)).ok());
  EXPECT_EQ(asked, 3);
}

}  // namespace
}  // namespace guildlite
