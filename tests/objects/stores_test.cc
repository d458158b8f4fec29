#include "vfs/objects/stores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>

#include "tests/support/memory_s3.h"
#include "tests/support/scripted_http.h"
#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/objects/curl_client.h"
#include "vfs/objects/s3_store.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;
using Reply = TestHttpServer::Reply;
using Request = TestHttpServer::Request;

Environment Variables(std::map<std::string, std::string> more = {}) {
  more.insert({{"AWS_ACCESS_KEY_ID", "AKIATEST"}, {"AWS_SECRET_ACCESS_KEY", "secret"}});
  return MapEnvironment(std::move(more));
}

class StoresTest : public ::testing::Test {
 protected:
  Reply Answer(const Request& request) {
    ++requests_;
    {
      const std::lock_guard lock(mutex_);
      last_ = request;
    }
    return away_ ? MemoryS3::Error(503, "SlowDown") : s3_.Handle(request);
  }
  std::unique_ptr<ObjectStore> Open(Stores& stores, std::string_view url) {
    auto store = stores.Open(url, Stores::kShippingPatienceMs);
    EXPECT_TRUE(store.ok()) << store.status().ToString();
    return store.ok() ? std::move(*store) : nullptr;
  }

  SimRandom random_{TestSeed(3)};
  MemoryS3 s3_{"bucket"};
  DirectHttp http_{[this](const Request& request) { return Answer(request); }};
  std::atomic<int> requests_{0};
  std::mutex mutex_;  // guards last_ while a probe is under way
  Request last_;
  std::atomic<bool> away_{false};
};

TEST_F(StoresTest, OpenADirectory) {
  const TempDir directory;
  Stores stores(SystemClock(), random_, http_, Variables());
  const auto store = Open(stores, "file://" + directory.File("a%20b"));
  ASSERT_TRUE(store);
  ASSERT_TRUE(store->Put("k", "v", PutCondition::Create()).ok());
  EXPECT_EQ(store->Describe(), "file://" + directory.File("a b"));
  EXPECT_EQ(stores.Open("file://relative", 0).status().tag(), Tag::kBadUrl);
  EXPECT_EQ(requests_, 0);
}

TEST_F(StoresTest, SayThatABucketGainsFromManyReadersAndADirectoryDoesNot) {
  Stores stores(SystemClock(), random_, http_, Variables({{"AWS_REGION", "eu-west-3"}}));
  for (const char* url : {"s3://bucket/a?endpoint=http://server:1", "s3://bucket/a"}) {
    EXPECT_EQ(Open(stores, url)->gets_at_once(), S3Store::kGetsAtOnce) << url;
  }
  EXPECT_EQ(Open(stores, "file:///nowhere")->gets_at_once(), 1u);
  EXPECT_GT(CurlClient::kConnectionsMax, S3Store::kGetsAtOnce)
      << "a put need not wait for its turn";
}

TEST_F(StoresTest, ProbeAServerOncePerBucketAndProcess) {
  Stores stores(SystemClock(), random_, http_, Variables());
  const auto first = Open(stores, "s3://bucket/a?endpoint=http://server:1");
  const auto second = Open(stores, "s3://bucket/b?endpoint=http://server:1");
  EXPECT_EQ(requests_, 0);
  EXPECT_EQ(first->Get("k").status().tag(), Tag::kNotFound);
  EXPECT_EQ(requests_, 1);
  ASSERT_TRUE(first->Put("k", "v", PutCondition::Create()).ok());
  const int probed = requests_;
  EXPECT_GT(probed, 100);
  ASSERT_TRUE(second->Put("k", "v", PutCondition::Create()).ok());
  EXPECT_EQ(requests_, probed + 1);
  EXPECT_EQ(s3_.objects(), 2u);
  EXPECT_EQ(s3_.Content("b/k"), "v");
  EXPECT_EQ(second->Describe(), "s3://bucket/b?endpoint=http://server:1");
}

TEST_F(StoresTest, RefuseAServerThatIsUnsafe) {
  MemoryS3 unsafe("bucket", {.ignores_match = true});
  DirectHttp http(unsafe.handler());
  Stores stores(SystemClock(), random_, http, Variables());
  const auto store = Open(stores, "s3://bucket/a?endpoint=http://server:1");
  const auto put = store->Put("k", "v", PutCondition::Create());
  EXPECT_EQ(put.status().tag(), Tag::kStoreUnsafe);
  EXPECT_THAT(put.status().message(), HasSubstr("If-Match is ignored"));
  EXPECT_EQ(unsafe.objects(), 0u);
}

TEST_F(StoresTest, UseTheSpellingThatAServerWants) {
  MemoryS3 bare("bucket", {.bare_etags_only = true});
  DirectHttp http(bare.handler());
  Stores stores(SystemClock(), random_, http, Variables());
  for (const char* url :
       {"s3://bucket/a?endpoint=http://server:1", "s3://bucket/b?endpoint=http://server:1"}) {
    const auto store = Open(stores, url);
    const auto version = store->Put("k", "v", PutCondition::Create());
    ASSERT_TRUE(version.ok()) << version.status().ToString();
    EXPECT_TRUE(store->Put("k", "w", PutCondition::Match(*version)).ok());
  }
}

TEST_F(StoresTest, BelieveAws) {
  Stores stores(SystemClock(), random_, http_, Variables({{"AWS_REGION", "eu-west-3"}}));
  const auto store = Open(stores, "s3://bucket/a");
  // DirectHttp has one server only, and its bucket is in the path.
  EXPECT_EQ(store->Put("k", "v", PutCondition::Create()).status().tag(), Tag::kNoBucket);
  EXPECT_EQ(requests_, 1);
  EXPECT_EQ(last_.Header("host"), "bucket.s3.eu-west-3.amazonaws.com");
  EXPECT_EQ(last_.target, "/a/k");
}

TEST_F(StoresTest, GoWhereTheEnvironmentSays) {
  Stores stores(SystemClock(), random_, http_,
                Variables({{"AWS_ENDPOINT_URL_S3", "http://server:9000/s3"}}));
  const auto store = Open(stores, "s3://bucket/a");
  EXPECT_FALSE(store->Get("k").ok());
  EXPECT_EQ(last_.Header("host"), "server:9000");
  EXPECT_EQ(last_.target, "/s3/bucket/a/k");
  Stores wrong(SystemClock(), random_, http_, Variables({{"AWS_ENDPOINT_URL", "server:9000"}}));
  EXPECT_EQ(wrong.Open("s3://bucket/a", 0).status().tag(), Tag::kBadUrl);
}

TEST_F(StoresTest, AreInNoHurryUntilTheProgramCloses) {
  SimClock clock;
  Stores stores(clock, random_, http_, Variables());
  const auto store = Open(stores, "s3://bucket/a?endpoint=http://server:1");
  away_ = true;
  const int64_t begin = clock.MonotonicMs();
  EXPECT_EQ(store->Get("k").status().tag(), Tag::kStoreThrottled);
  EXPECT_GE(clock.MonotonicMs() - begin, Stores::kShippingPatienceMs);
  EXPECT_GT(requests_, 3);
  stores.CancelAt(clock.MonotonicMs() + 50);
  const int64_t closing = clock.MonotonicMs();
  requests_ = 0;
  while (clock.MonotonicMs() < closing + 50) {
    EXPECT_EQ(store->Get("k").status().tag(), Tag::kStoreThrottled);
  }
  EXPECT_EQ(clock.MonotonicMs(), closing + 50);
  requests_ = 0;
  EXPECT_EQ(store->Get("k").status().tag(), Tag::kStoreThrottled);
  EXPECT_EQ(requests_, 1);
}

}  // namespace
}  // namespace guildlite
