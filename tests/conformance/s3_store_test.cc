// The claims of object_store_test.cc, asked of the S3 store: over a server in memory, through
// sockets and libcurl, behind a network where every third request goes wrong, and, where
// GUILDLITE_TEST_S3 names one, over a real server (scripts/test s3 starts one). Its objects stay
// under the url's prefix.
#include "vfs/objects/s3_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>

#include "guildlite/options.h"
#include "tests/conformance/object_store_suite.h"
#include "tests/support/http_server.h"
#include "tests/support/memory_s3.h"
#include "tests/support/scripted_http.h"
#include "tests/support/sim_clock.h"
#include "vfs/objects/curl_client.h"
#include "vfs/objects/retrying_store.h"
#include "vfs/objects/store_probe.h"

namespace guildlite {
namespace {

using Reply = TestHttpServer::Reply;
using Request = TestHttpServer::Request;

S3Url Url(const std::string& rest) {
  auto url = ParseS3Url(rest);
  EXPECT_TRUE(url.ok()) << url.status().ToString();
  return *url;
}

// A prefix that needs encoding.
class MemoryS3UnderTest : public StoreUnderTest {
 public:
  ObjectStore& store() override { return store_; }

 private:
  MemoryS3 s3_{"bucket"};
  DirectHttp http_{s3_.handler()};
  TestCredentials credentials_{http_};
  S3Store store_{Url("bucket/pre%20fix/a+b?endpoint=http://memory&region=us-east-1"), http_,
                 credentials_, SystemClock()};
};

// Listings in pages of seven, among objects of others.
class SocketS3UnderTest : public StoreUnderTest {
 public:
  SocketS3UnderTest() { s3_.SetListPage(7); }
  ObjectStore& store() override { return store_; }

 private:
  MemoryS3 s3_{"bucket", {.no_ranges = true, .no_checksums = true}};
  TestHttpServer server_{s3_.handler()};
  CurlClient http_{SystemClock(), MapEnvironment({}), "guildlite/test"};
  TestCredentials credentials_{http_};
  S3Store store_{Url("bucket?region=us-east-1&endpoint=" + server_.url()), http_, credentials_,
                 SystemClock()};
};

// Most ways in which a request can fail, and nobody notices.
class FaultyS3UnderTest : public StoreUnderTest {
 public:
  FaultyS3UnderTest() {
    RetrySettings settings;
    settings.wait = [](int64_t) { return true; };
    store_ = std::make_unique<RetryingStore>(
        std::make_unique<S3Store>(Url("bucket/p?endpoint=http://memory&region=us-east-1"), http_,
                                  credentials_, SystemClock()),
        clock_, random_, settings);
  }
  ObjectStore& store() override { return *store_; }
  bool loses_replies() const override { return true; }

 private:
  Reply Answer(const Request& request) {
    Reply reply;
    switch (random_.Below(30)) {
      case 0:
        return MemoryS3::Error(500, "InternalError");
      case 1:
        return MemoryS3::Error(503, "SlowDown");
      case 2:
        return MemoryS3::Error(409, "ConditionalRequestConflict");
      case 3:
        reply.status = 502;
        reply.body = "<html><body>Bad Gateway</body></html>";
        return reply;
      case 4:
        return MemoryS3::Error(400, "RequestTimeout");
      case 5:
        s3_.Handle(request);
        return MemoryS3::Error(500, "InternalError");
      case 6:
        reply.close_before_answering = true;
        return reply;
      case 7:
        reply = s3_.Handle(request);
        reply.close_before_answering = true;
        return reply;
      case 8:
        reply = s3_.Handle(request);
        reply.close_after_body_bytes = reply.body.size() / 2;
        return reply;
      case 9:
        reply = s3_.Handle(request);
        if (request.method == "GET" && !reply.body.empty() && request.Header("range").empty() &&
            reply.status == 200 && request.target.find('?') == std::string::npos) {
          reply.body[reply.body.size() / 2] ^= 1;
        }
        return reply;
      default:
        return s3_.Handle(request);
    }
  }

  MemoryS3 s3_{"bucket"};
  SimClock clock_;
  SimRandom random_{TestSeed(13)};
  DirectHttp http_{[this](const Request& request) { return Answer(request); }};
  TestCredentials credentials_{http_};
  std::unique_ptr<RetryingStore> store_;
};

INSTANTIATE_TEST_SUITE_P(S3, ObjectStoreSuite,
                         ::testing::Values(&std::make_unique<MemoryS3UnderTest>));
INSTANTIATE_TEST_SUITE_P(S3Socket, ObjectStoreSuite,
                         ::testing::Values(&std::make_unique<SocketS3UnderTest>));
INSTANTIATE_TEST_SUITE_P(S3Faulty, ObjectStoreSuite,
                         ::testing::Values(&std::make_unique<FaultyS3UnderTest>));

// A server of others, each test in a folder of its own.
class RealS3UnderTest : public StoreUnderTest {
 public:
  RealS3UnderTest() {
    S3Url url = Url(ProcessEnvironment()("GUILDLITE_TEST_S3").value().substr(5));
    static std::atomic<int> count{0};
    url.prefix += (url.prefix.empty() ? "" : "/") + std::to_string(SystemClock().NowMs()) + "-" +
                  std::to_string(++count);
    auto complete = CompleteS3Url(url, ProcessEnvironment());
    EXPECT_TRUE(complete.ok()) << complete.status().ToString();
    store_ = std::make_unique<S3Store>(*complete, http_, credentials_, SystemClock());
  }
  ObjectStore& store() override { return *store_; }

 private:
  CurlClient http_{SystemClock(), ProcessEnvironment(), "guildlite/test"};
  CredentialsProvider credentials_{ProcessEnvironment(), http_, SystemClock()};
  std::unique_ptr<S3Store> store_;
};

using MakeStore = std::function<std::unique_ptr<StoreUnderTest>()>;

std::vector<MakeStore> RealServers() {
  if (!ProcessEnvironment()("GUILDLITE_TEST_S3")) return {};
  return {&std::make_unique<RealS3UnderTest>};
}

INSTANTIATE_TEST_SUITE_P(RealS3, ObjectStoreSuite, ::testing::ValuesIn(RealServers()));

class RealServer : public ::testing::TestWithParam<MakeStore> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RealServer);
INSTANTIATE_TEST_SUITE_P(RealS3, RealServer, ::testing::ValuesIn(RealServers()));

TEST_P(RealServer, IsSafe) {
  const auto under_test = GetParam()();
  const auto verdict = ProbeStore(under_test->store(), SystemClock(), SystemRandom());
  ASSERT_TRUE(verdict.ok()) << verdict.status().ToString();
  EXPECT_EQ(verdict->unsafe, "");
  EXPECT_FALSE(verdict->bare_etags);
}

}  // namespace
}  // namespace guildlite
