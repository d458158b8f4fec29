// Against a server on loopback that breaks off where it is told.
#include "vfs/objects/curl_client.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include "tests/support/http_server.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_ca.h"

namespace guildlite {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using Reply = TestHttpServer::Reply;
using Request = TestHttpServer::Request;

// A name lookup that hangs until the test ends it.
constexpr char kHangingHost[] = "hangs.test";
std::shared_ptr<Gate> lookup_gate;
std::atomic<bool> lookup_takes_signals;

}  // namespace
}  // namespace guildlite

// In place of the C library's, for libcurl as for everything in this program.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                           addrinfo** result) {
  if (node && std::strcmp(node, guildlite::kHangingHost) == 0) {
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    guildlite::lookup_takes_signals = sigismember(&blocked, SIGTERM) == 0;
    const auto gate = guildlite::lookup_gate;  // the thread outlives the test
    gate->Wait();
    return EAI_FAIL;
  }
  using Function = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto original = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "getaddrinfo"));
  return original(node, service, hints, result);
}

namespace guildlite {
namespace {

// What the process around the tests has configured (a proxy, say) is not for them.
Environment Env(std::map<std::string, std::string> values = {}) {
  return [values](const std::string& name) -> std::optional<std::string> {
    const auto it = values.find(name);
    return it == values.end() ? std::nullopt : std::optional(it->second);
  };
}

void WriteTo(const std::string& path, std::string_view text) { std::ofstream(path) << text; }

int64_t Now() { return SystemClock().MonotonicMs(); }

// What no test must come near: its own bound is far below.
constexpr int64_t kLongMs = 60'000;

class CurlClientTest : public testing::Test {
 protected:
  static std::unique_ptr<CurlClient> NewClient(std::map<std::string, std::string> environment = {},
                                               std::vector<std::string> ca_places = {}) {
    return std::make_unique<CurlClient>(SystemClock(), Env(std::move(environment)),
                                        "guildlite/test", std::move(ca_places));
  }
  Result<HttpResponse> Get(const std::string& url, int64_t timeout_ms = kLongMs) {
    return client_->Send({.url = url, .timeout_ms = timeout_ms});
  }
  Result<HttpResponse> Put(const std::string& url, std::string_view body,
                           int64_t timeout_ms = kLongMs) {
    return client_->Send({.method = "PUT", .url = url, .body = body, .timeout_ms = timeout_ms});
  }

  std::unique_ptr<CurlClient> client_ = NewClient();
};

Reply Hello(const Request&) { return {.body = "hello"}; }

TEST_F(CurlClientTest, SendsWhatItIsGivenAndBringsTheAnswer) {
  Request seen;
  TestHttpServer server([&](const Request& request) {
    seen = request;
    return Reply{.status = 412, .headers = {{"ETag", " \"x\" "}}, .body = std::string("a\0b", 3)};
  });
  auto answer = client_->Send({.method = "PUT",
                               .url = server.url() + "/bucket/../a%20b?list-type=2",
                               .headers = {{"If-None-Match", "*"}, {"X-Empty", ""}},
                               .body = "body"});
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->status, 412);
  EXPECT_EQ(answer->Header("etag"), "\"x\"");
  EXPECT_EQ(answer->body, std::string("a\0b", 3));
  EXPECT_EQ(seen.method, "PUT");
  EXPECT_EQ(seen.target, "/bucket/../a%20b?list-type=2");
  EXPECT_EQ(seen.body, "body");
  const HttpHeaders expected = {{"host", server.url().substr(7)},
                                {"user-agent", "guildlite/test"},
                                {"if-none-match", "*"},
                                {"x-empty", ""},
                                {"content-length", "4"}};
  EXPECT_THAT(seen.headers, testing::UnorderedElementsAreArray(expected));
}

TEST_F(CurlClientTest, EveryMethodLeavesItsConnectionUsable) {
  std::vector<std::string> seen;
  TestHttpServer server([&](const Request& request) {
    seen.push_back(request.method + " " + std::string(request.Header("content-length")));
    return Reply{.status = request.method == "DELETE" ? 204 : 200, .body = "12345"};
  });
  std::vector<std::string> bodies;
  for (const char* method : {"HEAD", "GET", "PUT", "DELETE", "POST", "HEAD"}) {
    auto answer = client_->Send({.method = method, .url = server.url()});
    ASSERT_TRUE(answer.ok()) << method << ": " << answer.status().ToString();
    bodies.push_back(answer->body);
  }
  EXPECT_THAT(seen, testing::ElementsAre("HEAD ", "GET ", "PUT 0", "DELETE ", "POST 0", "HEAD "));
  EXPECT_THAT(bodies, testing::ElementsAre("", "12345", "12345", "", "12345", ""));
  EXPECT_EQ(server.connections(), 1);
}

TEST_F(CurlClientTest, DoesNotFollowARedirect) {
  TestHttpServer other(Hello);
  TestHttpServer server([&](const Request&) {
    return Reply{.status = 307, .headers = {{"Location", other.url() + "/"}}};
  });
  auto answer = Get(server.url());
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->status, 307);
  EXPECT_EQ(answer->Header("location"), other.url() + "/");
  EXPECT_EQ(other.connections(), 0);
}

TEST_F(CurlClientTest, BringsAnAnswerThatCameBeforeTheBodyWasSent) {
  // More than the sockets hold: the server refuses it by its headers and reads no further.
  const std::string body(32 << 20, 'x');
  TestHttpServer server(Hello, [](const Request&) { return Reply{.status = 403, .body = "no"}; });
  for (const HttpHeaders& headers : {HttpHeaders{}, HttpHeaders{{"Expect", "100-continue"}}}) {
    auto answer =
        client_->Send({.method = "PUT", .url = server.url(), .headers = headers, .body = body});
    ASSERT_TRUE(answer.ok()) << answer.status().ToString();
    EXPECT_EQ(answer->status, 403);
    EXPECT_EQ(answer->body, "no");
  }
}

TEST_F(CurlClientTest, WaitsForTheServerToAgreeWhereItWasToldTo) {
  TestHttpServer server(Hello);
  auto answer = client_->Send({.method = "PUT",
                               .url = server.url(),
                               .headers = {{"Expect", "100-continue"}},
                               .body = "body"});
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "hello");
}

// --- What it does not send ---

TEST_F(CurlClientTest, RefusesWhatIsNoHttpUrlAndDoesNotRepeatIt) {
  for (const char* url : {"", "host/secret", "ftp://host/secret", "file:///secret", "http://",
                          "http://user:secret@host/", "http://ho st/secret", "s3://host/secret"}) {
    const Status status = Get(url).status();
    EXPECT_EQ(status.tag(), Tag::kBadUrl) << url;
    EXPECT_FALSE(status.retryable()) << url;
    EXPECT_THAT(status.message(), Not(HasSubstr("secret"))) << url;
  }
}

TEST_F(CurlClientTest, RefusesAHeaderThatWouldBecomeTwoAndDoesNotRepeatIt) {
  TestHttpServer server(Hello);
  for (const std::string value : {"secret\r\nX-Other: 1", "secret\n", "sec\rret"}) {
    const Status status =
        client_->Send({.url = server.url(), .headers = {{"X-Token", value}}}).status();
    EXPECT_EQ(status.tag(), Tag::kBadArgument);
    EXPECT_THAT(status.message(), AllOf(HasSubstr("x-token"), Not(HasSubstr("secret"))));
  }
  EXPECT_EQ(client_->Send({.url = server.url(), .headers = {{"X: Y", "1"}}}).status().tag(),
            Tag::kBadArgument);
  EXPECT_EQ(server.connections(), 0);
}

// --- Connections ---

TEST_F(CurlClientTest, KeepsOneConnectionToEachOfTwoServers) {
  TestHttpServer one(Hello), two(Hello);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(Get(one.url()).ok());
    ASSERT_TRUE(Put(two.url(), "x").ok());
  }
  EXPECT_EQ(one.connections(), 1);
  EXPECT_EQ(two.connections(), 1);
}

TEST_F(CurlClientTest, ManyThreadsShareABoundedNumberOfConnections) {
  constexpr int kThreads = 64;
  constexpr int kEach = 10;
  const auto full = std::make_shared<Gate>();
  std::atomic<int> running = 0, most = 0;
  TestHttpServer server([&](const Request&) {
    const int now = ++running;
    for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
    }
    full->Wait();
    --running;
    return Reply();
  });
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kEach; ++n) good += Get(server.url()).ok() ? 1 : 0;
    });
  }
  full->AwaitArrivals(CurlClient::kConnectionsMax);
  full->Open();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, kThreads * kEach);
  EXPECT_EQ(most, static_cast<int>(CurlClient::kConnectionsMax));
  EXPECT_EQ(server.connections(), static_cast<int>(CurlClient::kConnectionsMax));
}

TEST_F(CurlClientTest, MoreServersThanConnectionsTakeTurns) {
  std::vector<std::unique_ptr<TestHttpServer>> servers;
  for (size_t i = 0; i < CurlClient::kConnectionsMax + 3; ++i) {
    servers.push_back(std::make_unique<TestHttpServer>(Hello));
  }
  for (int round = 0; round < 2; ++round) {
    for (const auto& server : servers) ASSERT_TRUE(Get(server->url()).ok());
  }
  // The one used last is still connected.
  ASSERT_TRUE(Get(servers.back()->url()).ok());
  EXPECT_EQ(servers.back()->connections(), 2);
  // The others see theirs end in their own time.
  const auto open = [&] {
    size_t sum = 0;
    for (const auto& server : servers) sum += static_cast<size_t>(server->open());
    return sum;
  };
  const int64_t begin = Now();
  while (open() > CurlClient::kConnectionsMax && Now() - begin < 10'000) std::this_thread::yield();
  EXPECT_LE(open(), CurlClient::kConnectionsMax);
}

TEST_F(CurlClientTest, WaitsForAConnectionOnlyWithinItsTimeout) {
  const auto gate = std::make_shared<Gate>();
  TestHttpServer server([&](const Request&) { return Reply{.gate = gate}; });
  std::vector<std::future<bool>> held;
  for (size_t i = 0; i < CurlClient::kConnectionsMax; ++i) {
    held.push_back(std::async(std::launch::async, [&] { return Get(server.url()).ok(); }));
  }
  gate->AwaitArrivals(CurlClient::kConnectionsMax);
  const Status status = Put(server.url(), "x", 50).status();
  EXPECT_EQ(status.tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(status.retryable());
  EXPECT_THAT(status.message(), HasSubstr("all 40 connections are in use"));
  gate->Open();
  for (auto& one : held) EXPECT_TRUE(one.get());
  EXPECT_TRUE(Put(server.url(), "x").ok());
}

TEST_F(CurlClientTest, ReplacesAConnectionThatTheServerHasEnded) {
  TestHttpServer server(Hello);
  ASSERT_TRUE(Put(server.url(), "x").ok());
  server.CloseConnections();
  auto answer = Put(server.url(), "x");
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(server.connections(), 2);
}

// --- What became of it ---

TEST_F(CurlClientTest, NobodyListeningMeansNothingWasSent) {
  uint16_t port;
  {
    TestHttpServer gone(Hello);
    port = gone.port();
  }
  const std::string origin = "http://127.0.0.1:" + std::to_string(port);
  const Status status = Put(origin + "/secret?secret", "x").status();
  EXPECT_EQ(status.tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(status.retryable());
  EXPECT_THAT(status.message(), AllOf(StartsWith("PUT " + origin + ": "), HasSubstr("connect"),
                                      Not(HasSubstr("secret"))));
}

TEST_F(CurlClientTest, ANameThatDoesNotExistMeansNothingWasSent) {
  const Status status = Put("http://nowhere.invalid/", "x").status();
  EXPECT_EQ(status.tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(status.retryable());
  EXPECT_THAT(status.message(), HasSubstr("nowhere.invalid"));
}

TEST_F(CurlClientTest, AHandshakeThatHangsMeansNothingWasSent) {
  TestCa ca;
  TempDir directory;
  WriteTo(directory.File("ca.pem"), ca.pem());
  client_ = NewClient({{"SSL_CERT_FILE", directory.File("ca.pem")}});
  // Accepts, and says nothing: it waits for more of what it takes for a request.
  TestHttpServer server(Hello);
  const Status status = Put("https" + server.url().substr(4), "x", 100).status();
  EXPECT_EQ(status.tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(status.retryable());
  EXPECT_EQ(server.requests(), 0);
}

TEST_F(CurlClientTest, TimeOverAfterSendingMeansUnknown) {
  const auto gate = std::make_shared<Gate>();
  TestHttpServer server([&](const Request&) { return Reply{.gate = gate}; });
  const int64_t begin = Now();
  const Status status = Put(server.url(), "x", 200).status();
  EXPECT_EQ(status.tag(), Tag::kOutcomeUnknown);
  EXPECT_TRUE(status.retryable());
  EXPECT_THAT(status.message(), AllOf(HasSubstr(server.url()), HasSubstr("timed out")));
  EXPECT_GE(Now() - begin, 200);
  EXPECT_LT(Now() - begin, kLongMs / 2);
}

TEST_F(CurlClientTest, AConnectionEndedBeforeTheAnswerMeansUnknown) {
  TestHttpServer server([](const Request&) { return Reply{.close_before_answering = true}; });
  EXPECT_EQ(Put(server.url(), "x").status().tag(), Tag::kOutcomeUnknown);
  EXPECT_EQ(server.requests(), 1);
}

TEST_F(CurlClientTest, AConnectionClosedAtOnceIsNeverAnAnswer) {
  TestHttpServer server(Hello);
  server.CloseNextConnections(1);
  EXPECT_EQ(Put(server.url(), "x").status().tag(), Tag::kOutcomeUnknown);
  EXPECT_TRUE(Put(server.url(), "x").ok());
}

// libcurl repeats a request whose kept connection ended without an answer. The server may have done
// it: the repetition of a create-only put would then be told that somebody else was first.
TEST_F(CurlClientTest, OnAKeptConnectionAPutIsSentOnceAndAGetAgain) {
  std::atomic<bool> close = false;
  TestHttpServer server([&](const Request&) {
    return Reply{.body = "hello", .close_before_answering = close.exchange(false)};
  });
  ASSERT_TRUE(Get(server.url()).ok());
  close = true;
  const Status status = Put(server.url(), "x").status();
  EXPECT_EQ(status.tag(), Tag::kOutcomeUnknown);
  EXPECT_THAT(status.message(), HasSubstr("ended without an answer"));
  EXPECT_EQ(server.requests(), 2);
  ASSERT_TRUE(Get(server.url()).ok());
  close = true;
  auto again = Get(server.url());
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->body, "hello");
  EXPECT_EQ(server.requests(), 5);
}

TEST_F(CurlClientTest, ATruncatedBodyIsNeverAnAnswer) {
  for (const bool chunked : {false, true}) {
    for (const size_t bytes : {0, 1, 99}) {
      TestHttpServer server([&](const Request&) {
        return Reply{
            .body = std::string(100, 'x'), .chunked = chunked, .close_after_body_bytes = bytes};
      });
      const Status status = Get(server.url()).status();
      EXPECT_EQ(status.tag(), Tag::kOutcomeUnknown) << bytes << " bytes, chunked " << chunked;
      EXPECT_TRUE(status.retryable());
    }
  }
}

TEST_F(CurlClientTest, ABodyLongerThanAskedForIsRefused) {
  TestHttpServer server([](const Request& request) {
    return Reply{.body = std::string(1000, 'x'), .chunked = request.target == "/chunked"};
  });
  for (const char* path : {"/announced", "/chunked"}) {
    auto exact = client_->Send({.url = server.url() + path, .body_bytes_max = 1000});
    ASSERT_TRUE(exact.ok()) << path;
    EXPECT_EQ(exact->body.size(), 1000u);
    for (const uint64_t most : {0, 1, 999}) {
      const Status status =
          client_->Send({.url = server.url() + path, .body_bytes_max = most}).status();
      EXPECT_EQ(status.tag(), Tag::kStoreUnreachable) << path << " " << most;
      EXPECT_THAT(status.message(), HasSubstr("longer than " + std::to_string(most) + " bytes"));
    }
  }
}

TEST_F(CurlClientTest, BringsALongBodyWhole) {
  std::string body(20 << 20, '\0');
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 7 + i / 4096);
  TestHttpServer server(
      [&](const Request& request) { return Reply{.body = request.body == body ? body : "other"}; });
  auto answer = Put(server.url(), body);
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_TRUE(answer->body == body);
}

// --- TLS ---

class CurlClientTlsTest : public CurlClientTest {
 protected:
  CurlClientTlsTest() {
    WriteTo(good_, ca_.pem());
    WriteTo(other_, TestCa("Other CA").pem());
  }
  Status Trusting(std::map<std::string, std::string> environment,
                  std::vector<std::string> ca_places = {}) {
    client_ = NewClient(std::move(environment), std::move(ca_places));
    return Get(server_.url() + "/secret").status();
  }

  TestCa ca_;
  TempDir directory_;
  const std::string good_ = directory_.File("good.pem");
  const std::string other_ = directory_.File("other.pem");
  const std::string missing_ = directory_.File("missing.pem");
  TestHttpServer server_{Hello, nullptr, ca_.ServerContext()};
};

TEST_F(CurlClientTlsTest, TrustsWhatItIsToldTo) {
  EXPECT_TRUE(Trusting({{"SSL_CERT_FILE", good_}}).ok());
  EXPECT_TRUE(Trusting({{"AWS_CA_BUNDLE", good_}}).ok());
  EXPECT_TRUE(Trusting({{"NODE_EXTRA_CA_CERTS", good_}}).ok());
  EXPECT_TRUE(Trusting({}, {missing_, good_, other_}).ok());
  // Besides the machine's, not in their place.
  EXPECT_TRUE(Trusting({{"NODE_EXTRA_CA_CERTS", good_}}, {other_}).ok());
  EXPECT_TRUE(Trusting({{"NODE_EXTRA_CA_CERTS", other_}}, {good_}).ok());
  EXPECT_TRUE(Trusting({{"NODE_EXTRA_CA_CERTS", missing_}}, {good_}).ok());
  EXPECT_EQ(server_.requests(), 7);
}

// Not the end of a chain: what is told to be trusted is.
TEST_F(CurlClientTlsTest, TrustsAServersOwnCertificate) {
  const auto context = ca_.ServerContext();
  WriteTo(other_, TestCa::Pem(SSL_CTX_get0_certificate(context.get())));
  TestHttpServer server(Hello, nullptr, context);
  client_ = NewClient({{"SSL_CERT_FILE", other_}});
  EXPECT_TRUE(Get(server.url()).ok());
  EXPECT_FALSE(Get(server_.url()).ok());
}

TEST_F(CurlClientTlsTest, KeepsItsConnection) {
  client_ = NewClient({{"SSL_CERT_FILE", good_}});
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Put(server_.url(), "x").ok());
  EXPECT_EQ(server_.connections(), 1);
}

TEST_F(CurlClientTlsTest, RefusesAServerThatNobodyItTrustsVouchesFor) {
  for (const auto& [environment, places] :
       std::vector<std::pair<std::map<std::string, std::string>, std::vector<std::string>>>{
           {{{"SSL_CERT_FILE", other_}}, {good_}},
           {{{"SSL_CERT_FILE", other_}, {"AWS_CA_BUNDLE", good_}}, {}},
           {{{"AWS_CA_BUNDLE", other_}}, {good_}},
           {{}, {other_, good_}}}) {
    const Status status = Trusting(environment, places);
    EXPECT_EQ(status.tag(), Tag::kStoreUnreachable);
    EXPECT_FALSE(status.retryable());
    EXPECT_THAT(status.message(),
                AllOf(StartsWith("GET " + server_.url() + ": "), HasSubstr("certificate"),
                      HasSubstr(other_), Not(HasSubstr("secret"))));
  }
  EXPECT_EQ(server_.requests(), 0);
}

// As when a CA was made anew and the old file is still in place.
TEST_F(CurlClientTlsTest, RefusesAnotherCaOfTheSameName) {
  WriteTo(other_, TestCa().pem());
  const Status status = Trusting({{"SSL_CERT_FILE", other_}});
  EXPECT_EQ(status.tag(), Tag::kStoreUnreachable);
  EXPECT_THAT(status.message(), HasSubstr(other_));
  EXPECT_EQ(server_.requests(), 0);
}

TEST_F(CurlClientTlsTest, RefusesACertificateOfAnotherHost) {
  for (const char* name : {"DNS:other.test", "IP:127.0.0.2"}) {
    TestHttpServer server(Hello, nullptr, ca_.ServerContext(name));
    client_ = NewClient({{"SSL_CERT_FILE", good_}});
    const Status status = Get(server.url()).status();
    EXPECT_EQ(status.tag(), Tag::kStoreUnreachable);
    EXPECT_FALSE(status.retryable());
    EXPECT_EQ(server.requests(), 0);
  }
}

TEST_F(CurlClientTlsTest, WithoutCertificatesSaysWhereItLookedAndSendsNothing) {
  const std::string empty = directory_.File("empty.pem");
  WriteTo(empty, "");
  const Status status = Trusting({}, {missing_, empty});
  EXPECT_EQ(status.tag(), Tag::kTlsNoCa);
  EXPECT_FALSE(status.retryable());
  EXPECT_THAT(status.message(), AllOf(HasSubstr(server_.url()), HasSubstr(missing_ + ", " + empty),
                                      HasSubstr("SSL_CERT_FILE")));
  EXPECT_EQ(server_.connections(), 0);
  // http needs none; and what is mounted later is found.
  TestHttpServer plain(Hello);
  EXPECT_TRUE(Get(plain.url()).ok());
  WriteTo(missing_, ca_.pem());
  EXPECT_TRUE(Get(server_.url()).ok());
}

TEST_F(CurlClientTlsTest, CertificatesThatWereNamedAreNotReplacedByOthers) {
  for (const char* variable : {"SSL_CERT_FILE", "AWS_CA_BUNDLE"}) {
    const Status status = Trusting({{variable, missing_}}, {good_});
    EXPECT_EQ(status.tag(), Tag::kTlsNoCa);
    EXPECT_THAT(status.message(), HasSubstr(std::string(variable) + "=" + missing_));
  }
  EXPECT_EQ(Trusting({{"NODE_EXTRA_CA_CERTS", missing_}}).tag(), Tag::kTlsNoCa);
  EXPECT_EQ(server_.connections(), 0);
}

TEST_F(CurlClientTlsTest, ManyThreadsConnectAtOnce) {
  client_ = NewClient({{"SSL_CERT_FILE", good_}});
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 5; ++n) {
        auto answer = client_->Send({.url = server_.url(), .headers = {{"Connection", "close"}}});
        good += answer.ok() && answer->body == "hello" ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 40);
}

// --- Proxies ---

TEST_F(CurlClientTest, SendsThroughAProxyAndNotWhereNoProxyIsAskedFor) {
  TestHttpServer server(Hello);
  std::string target;
  TestHttpServer proxy([&](const Request& request) {
    target = request.target;
    return Reply{.body = "from the proxy"};
  });
  for (const char* variable : {"http_proxy", "all_proxy", "ALL_PROXY"}) {
    client_ = NewClient({{variable, proxy.url()}});
    auto answer = Get(server.url() + "/key");
    ASSERT_TRUE(answer.ok()) << variable << answer.status().ToString();
    EXPECT_EQ(answer->body, "from the proxy") << variable;
    EXPECT_EQ(target, server.url() + "/key");
  }
  for (const auto& environment : std::vector<std::map<std::string, std::string>>{
           {},
           {{"HTTP_PROXY", proxy.url()}},
           {{"https_proxy", proxy.url()}},
           {{"http_proxy", proxy.url()}, {"no_proxy", "other.test,127.0.0.1"}},
           {{"ALL_PROXY", proxy.url()}, {"NO_PROXY", "*"}}}) {
    client_ = NewClient(environment);
    auto answer = Get(server.url() + "/key");
    ASSERT_TRUE(answer.ok());
    EXPECT_EQ(answer->body, "hello");
  }
  EXPECT_EQ(proxy.requests(), 3);
}

TEST_F(CurlClientTlsTest, AProxyTunnelsAndSeesNothingOfTheRequest) {
  Request seen;
  TestHttpServer proxy([&](const Request& request) {
    seen = request;
    return Reply{.headers = {{"X-Proxy", "1"}}, .tunnel_to = server_.port()};
  });
  for (const char* variable : {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}) {
    client_ = NewClient({{variable, proxy.url()}, {"SSL_CERT_FILE", good_}});
    auto answer =
        client_->Send({.url = server_.url() + "/secret", .headers = {{"Authorization", "secret"}}});
    ASSERT_TRUE(answer.ok()) << variable << ": " << answer.status().ToString();
    EXPECT_EQ(answer->body, "hello");
    EXPECT_EQ(seen.method, "CONNECT");
    EXPECT_EQ(seen.target, server_.url().substr(8));
    EXPECT_EQ(seen.Header("authorization"), "");
    EXPECT_EQ(answer->Header("x-proxy"), "");
  }
  EXPECT_EQ(proxy.connections(), 4);
}

TEST_F(CurlClientTlsTest, AProxyThatRefusesMeansNothingWasSent) {
  TestHttpServer proxy([](const Request&) { return Reply{.status = 403}; });
  client_ = NewClient({{"https_proxy", proxy.url()}, {"SSL_CERT_FILE", good_}});
  const Status status = Put(server_.url(), "x").status();
  EXPECT_EQ(status.tag(), Tag::kStoreUnreachable);
  EXPECT_THAT(status.message(), HasSubstr("403"));
  EXPECT_EQ(server_.connections(), 0);
}

// --- The end of the program ---

TEST_F(CurlClientTest, CancelEndsWhatRunsAndWhatWaitsForItsTurn) {
  constexpr size_t kWaiting = 2 * CurlClient::kConnectionsMax;
  const auto gate = std::make_shared<Gate>();
  TestHttpServer server([&](const Request&) { return Reply{.gate = gate}; });
  std::vector<std::future<Status>> running, waiting;
  const auto put = [&] { return Put(server.url(), "x").status(); };
  for (size_t i = 0; i < CurlClient::kConnectionsMax; ++i) {
    running.push_back(std::async(std::launch::async, put));
  }
  gate->AwaitArrivals(CurlClient::kConnectionsMax);
  for (size_t i = 0; i < kWaiting; ++i) waiting.push_back(std::async(std::launch::async, put));
  const int64_t begin = Now();
  client_->CancelAt(begin);
  for (auto& one : running) {
    const Status status = one.get();
    EXPECT_EQ(status.tag(), Tag::kOutcomeUnknown);
    EXPECT_THAT(status.message(), HasSubstr("closing"));
  }
  for (auto& one : waiting) EXPECT_EQ(one.get().tag(), Tag::kStoreUnreachable);
  const Status later = put();
  EXPECT_EQ(later.tag(), Tag::kStoreUnreachable);
  EXPECT_FALSE(later.retryable());
  EXPECT_LT(Now() - begin, kLongMs / 2);
  EXPECT_EQ(server.requests(), static_cast<int>(CurlClient::kConnectionsMax));
}

// libcurl looks around by itself about once a second: too late, one request after the other.
TEST_F(CurlClientTest, CancelWakesWhatWaitsForAnAnswer) {
  int64_t waited_ms = 0;
  for (int i = 0; i < 8; ++i) {
    const auto gate = std::make_shared<Gate>();
    TestHttpServer server([&](const Request&) { return Reply{.gate = gate}; });
    client_ = NewClient();
    auto running = std::async(std::launch::async, [&] { return Put(server.url(), "x").status(); });
    gate->AwaitArrivals(1);
    const int64_t begin = Now();
    client_->CancelAt(begin);
    EXPECT_EQ(running.get().tag(), Tag::kOutcomeUnknown);
    waited_ms += Now() - begin;
  }
  EXPECT_LT(waited_ms, 3000);
}

TEST_F(CurlClientTest, CancelGivesTheTimeThatItSays) {
  const auto gate = std::make_shared<Gate>();
  TestHttpServer server([&](const Request& request) {
    return request.method == "PUT" ? Reply{.gate = gate} : Reply();
  });
  auto running = std::async(std::launch::async, [&] { return Put(server.url(), "x").status(); });
  gate->AwaitArrivals(1);
  const int64_t at = Now() + 300;
  client_->CancelAt(at);
  client_->CancelAt(at + 10 * kLongMs);  // the earliest counts
  EXPECT_TRUE(Get(server.url()).ok());
  EXPECT_EQ(running.get().tag(), Tag::kOutcomeUnknown);
  EXPECT_GE(Now(), at);
  EXPECT_LT(Now(), at + kLongMs / 2);
  EXPECT_EQ(Get(server.url()).status().tag(), Tag::kStoreUnreachable);
}

TEST_F(CurlClientTest, ANameLookupThatHangsHoldsNobody) {
  lookup_gate = std::make_shared<Gate>();
  const std::string url = std::string("http://") + kHangingHost + "/";
  const int64_t begin = Now();
  const Status timed_out = Put(url, "x", 100).status();
  EXPECT_EQ(timed_out.tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(timed_out.retryable());
  auto running = std::async(std::launch::async, [&] { return Put(url, "x").status(); });
  lookup_gate->AwaitArrivals(2);
  client_->CancelAt(Now());
  EXPECT_EQ(running.get().tag(), Tag::kStoreUnreachable);
  client_.reset();
  EXPECT_LT(Now() - begin, kLongMs / 2);
  EXPECT_FALSE(lookup_takes_signals) << "a thread of libcurl's takes signals of the host's";
  lookup_gate->Open();
}

// --- fork ---

// Runs `body` in a child; its exit code is what it returns.
int InChild(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(CurlClientTlsTest, AChildHasConnectionsOfItsOwn) {
  client_ = NewClient({{"SSL_CERT_FILE", good_}});
  ASSERT_TRUE(Get(server_.url()).ok());
  EXPECT_EQ(InChild([&] {
              const bool good = Get(server_.url()).ok() && Get(server_.url()).ok();
              client_.reset();
              return good ? 7 : 1;
            }),
            7);
  EXPECT_EQ(server_.connections(), 2);
  EXPECT_EQ(InChild([&] {
              client_.reset();
              return 7;
            }),
            7);
  ASSERT_TRUE(Get(server_.url()).ok());
  EXPECT_EQ(server_.connections(), 2) << "a child has ended the parent's connection";
}

TEST_F(CurlClientTest, AChildDoesNotWaitForWhatTheParentWasDoing) {
  const auto gate = std::make_shared<Gate>();
  TestHttpServer server([&](const Request& request) {
    return request.method == "PUT" ? Reply{.gate = gate} : Reply();
  });
  std::vector<std::future<bool>> running;
  for (size_t i = 0; i < CurlClient::kConnectionsMax; ++i) {
    running.push_back(std::async(std::launch::async, [&] { return Put(server.url(), "x").ok(); }));
  }
  gate->AwaitArrivals(CurlClient::kConnectionsMax);
  EXPECT_EQ(InChild([&] {
              const bool good = Get(server.url()).ok();
              client_->CancelAt(Now());
              return good && !Get(server.url()).ok() ? 7 : 1;
            }),
            7);
  gate->Open();
  for (auto& one : running) EXPECT_TRUE(one.get());
}

// --- exit ---

// Whoever exits while requests run: OpenSSL must not be taken away from them. New connections all
// the time, since that is when it was seen to crash.
TEST_F(CurlClientTlsTest, TheProcessMayExitWhileRequestsRun) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  client_ = NewClient({{"SSL_CERT_FILE", good_}});
  for (int round = 0; round < 5; ++round) {
    EXPECT_EXIT(
        {
          std::atomic<int> answers = 0;
          for (int i = 0; i < 4; ++i) {
            std::thread([&] {
              for (;;) {
                auto answer =
                    client_->Send({.url = server_.url(), .headers = {{"Connection", "close"}}});
                if (answer.ok()) ++answers;
              }
            }).detach();
          }
          while (answers < 20) std::this_thread::yield();
          std::exit(0);
        },
        testing::ExitedWithCode(0), "");
  }
}

TEST(HttpLibraryVersions, AreTheOnesLinkedIn) {
  EXPECT_THAT(HttpLibraryVersions(), testing::MatchesRegex("OpenSSL 3\\.[0-9.]+, curl [0-9.]+"));
}

}  // namespace
}  // namespace guildlite
