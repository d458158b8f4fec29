// Against a server on loopback that breaks off where it is told.
#include "vfs/objects/curl_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/support/http_server.h"

namespace guildlite {
namespace {

using testing::HasSubstr;
using testing::Not;
using Reply = TestHttpServer::Reply;
using Request = TestHttpServer::Request;

// What the process around the tests has configured (a proxy, say) is not for them.
Environment Env(std::map<std::string, std::string> values = {}) {
  return [values](const std::string& name) -> std::optional<std::string> {
    const auto it = values.find(name);
    return it == values.end() ? std::nullopt : std::optional(it->second);
  };
}

class CurlClientTest : public testing::Test {
 protected:
  CurlClient client_{SystemClock(), Env(), "guildlite/test"};
};

TEST_F(CurlClientTest, SendsWhatItIsGivenAndBringsTheAnswer) {
  Request seen;
  TestHttpServer server([&](const Request& request) {
    seen = request;
    return Reply{.status = 412, .headers = {{"ETag", " \"x\" "}}, .body = std::string("a\0b", 3)};
  });
  auto answer = client_.Send({.method = "PUT",
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

}  // namespace
}  // namespace guildlite
