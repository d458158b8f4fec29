// Against stand-ins of ECS, EKS and EC2 on loopback, and of nobody.
#include "vfs/objects/credentials_endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/http_server.h"
#include "tests/support/scripted_http.h"
#include "tests/support/temp_dir.h"
#include "vfs/base/file_io.h"
#include "vfs/objects/curl_client.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kGood =
    R"({"RoleArn":"arn:x","AccessKeyId":"ASIA1","SecretAccessKey":"the-key","Token":"the-token",
        "Expiration":"2026-11-24T23:00:23Z"})";
const AwsCredentials kCredentials = {"ASIA1", "the-key", "the-token"};
constexpr int64_t kExpires = 1795561223000;

class ContainerTest : public ::testing::Test {
 protected:
  Result<FoundCredentials> Find(const std::map<std::string, std::string>& variables) {
    return CredentialsFromContainer(MapEnvironment(variables), http_);
  }
  std::string SentToken() {
    const HttpHeaders headers = http_.sent().back().headers;
    return headers.empty() ? "" : headers[0].first + "=" + headers[0].second;
  }

  TempDir directory_;
  Result<HttpResponse> answer_ = HttpReply(200, kGood);
  ScriptedHttp http_{[this](const HttpRequest&) { return answer_; }};
};

TEST_F(ContainerTest, IsNothingWithoutAUrl) {
  EXPECT_EQ(Find({{"AWS_CONTAINER_AUTHORIZATION_TOKEN", "x"}}).status().tag(), Tag::kNotFound);
  EXPECT_TRUE(http_.sent().empty());
}

TEST_F(ContainerTest, AsksAsEksPodIdentityWantsIt) {
  TestHttpServer::Request seen;
  TestHttpServer agent([&](const TestHttpServer::Request& request) {
    seen = request;
    return TestHttpServer::Reply{.body = kGood};
  });
  const std::string token = directory_.File("token");
  ASSERT_TRUE(ReplaceFile(token, "eks-token").ok());
  CurlClient curl(SystemClock(), MapEnvironment({}), "guildlite/test");
  const auto found = CredentialsFromContainer(
      MapEnvironment({{"AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url() + "/v1/credentials"},
                      {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token},
                      {"AWS_CONTAINER_AUTHORIZATION_TOKEN", "not this one"}}),
      curl);
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->credentials, kCredentials);
  EXPECT_EQ(found->expires_ms, kExpires);
  EXPECT_EQ(seen.method, "GET");
  EXPECT_EQ(seen.target, "/v1/credentials");
  EXPECT_EQ(seen.Header("authorization"), "eks-token");
}

TEST_F(ContainerTest, AsksThroughNoProxy) {
  TestHttpServer agent(
      [](const TestHttpServer::Request&) { return TestHttpServer::Reply{.body = kGood}; });
  TestHttpServer proxy(
      [](const TestHttpServer::Request&) { return TestHttpServer::Reply{.status = 502}; });
  CurlClient curl(SystemClock(), MapEnvironment({{"http_proxy", proxy.url()}}), "guildlite/test");
  const auto found = CredentialsFromContainer(
      MapEnvironment({{"AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url() + "/c"}}), curl);
  EXPECT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(proxy.connections(), 0);
}

TEST_F(ContainerTest, AsksAsEcsWantsIt) {
  ASSERT_TRUE(Find({{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/guid?a=1"},
                    {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost/other"}})
                  .ok());
  EXPECT_EQ(http_.sent().back().url, "http://169.254.170.2/v2/credentials/guid?a=1");
  EXPECT_EQ(SentToken(), "");
  ASSERT_TRUE(Find({{"AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost:8080/c"},
                    {"AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic abcd"}})
                  .ok());
  EXPECT_EQ(SentToken(), "Authorization=Basic abcd");
}

TEST_F(ContainerTest, SendsTheTokenToNobodyElse) {
  const std::pair<const char*, bool> cases[] = {
      {"https://example.com/c", true},
      {"http://localhost/c", true},
      {"http://127.0.0.1:80/c", true},
      {"http://127.9.9.9", true},
      {"http://[::1]:8080/c", true},
      {"http://[0:0::0:1]/c", true},
      {"http://169.254.170.2/c", true},
      {"http://169.254.170.23/v1/credentials", true},
      {"http://[fd00:ec2::23]/v1/credentials", true},
      {"http://example.com/c", false},
      {"http://169.254.169.254/c", false},
      {"http://169.254.170.2.evil.com/c", false},
      {"http://127.0.0.1.evil.com/c", false},
      {"http://127.0.0.1@evil.com/c", false},
      {"http://evil.com\\@127.0.0.1/c", false},
      {"http://evil.com#@127.0.0.1/", false},
      {"http://evil.com?http://127.0.0.1/", false},
      {"http://127.1/c", false},
      {"http://2130706433/c", false},
      {"http://[::1/c", false},
      {"http://[fd00:ec2::24]/c", false},
      {"http://localhost.evil.com/c", false},
      {"http:///c", false},
      {"https:///c", false},
      {"HTTP://evil.com/c", false},
      {"file:///etc/passwd", false},
      {"localhost/c", false},
      {"", false},
  };
  for (const auto& [url, allowed] : cases) {
    EXPECT_EQ(IsContainerUrl(url), allowed) << url;
  }
  const auto refused = Find({{"AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/c"},
                             {"AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret"}});
  EXPECT_EQ(refused.status().tag(), Tag::kStoreDenied);
  EXPECT_EQ(Find({{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@evil.com/"}}).status().tag(),
            Tag::kStoreDenied);
  EXPECT_TRUE(http_.sent().empty());
}

TEST_F(ContainerTest, RefusesTokensThatAreNone) {
  const std::map<std::string, std::string> url = {
      {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost/c"}};
  auto variables = url;
  variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "secret\r\nHost: x";
  EXPECT_EQ(Find(variables).status().tag(), Tag::kStoreDenied);
  EXPECT_THAT(Find(variables).status().message(), Not(HasSubstr("secret")));
  variables = url;
  variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = directory_.File("gone");
  EXPECT_EQ(Find(variables).status().tag(), Tag::kStoreDenied);
  EXPECT_TRUE(http_.sent().empty());
}

TEST_F(ContainerTest, SaysWhyTheEndpointRefuses) {
  const std::map<std::string, std::string> variables = {
      {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/secret-guid"},
      {"AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret"}};
  answer_ = HttpReply(404, R"({"code":"NoIdMatch","message":"no credentials\nfor secret-guid"})");
  const auto refused = Find(variables);
  EXPECT_EQ(refused.status().tag(), Tag::kStoreDenied);
  EXPECT_EQ(refused.status().message(), "ask http://169.254.170.2: HTTP 404, NoIdMatch");
  answer_ = HttpReply(500, "oops");
  EXPECT_EQ(Find(variables).status().tag(), Tag::kStoreUnreachable);
  answer_ = NoNetwork({});
  EXPECT_EQ(Find(variables).status().tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(Find(variables).status().retryable());
  for (const char* const body : {"", "<html>", "[1]", "{}", "{\"AccessKeyId\":\"x\"}"}) {
    answer_ = HttpReply(200, body);
    EXPECT_EQ(Find(variables).status().tag(), Tag::kStoreUnreachable) << body;
  }
}

// EC2 as its user guide shows it: a token by PUT, then the role's name, then its credentials.
class InstanceTest : public ::testing::Test {
 protected:
  Result<FoundCredentials> Find(std::map<std::string, std::string> variables = {}) {
    return CredentialsFromInstance(MapEnvironment(std::move(variables)), http_);
  }
  Result<HttpResponse> Answer(const HttpRequest& request) {
    if (request.url.ends_with("/latest/api/token")) return token_;
    if (request.headers != HttpHeaders{{"X-aws-ec2-metadata-token", "imds-token"}}) {
      return HttpReply(401, "");
    }
    return request.url.ends_with("/") ? roles_ : role_;
  }

  Result<HttpResponse> token_ = HttpReply(200, "imds-token");
  Result<HttpResponse> roles_ = HttpReply(200, "bot role\nanother");
  Result<HttpResponse> role_ =
      HttpReply(200, R"({"Code":"Success","LastUpdated":"2026-11-23T17:00:00Z","Type":"AWS-HMAC",
               "AccessKeyId":"ASIA1","SecretAccessKey":"the-key","Token":"the-token",
               "Expiration":"2026-11-24T23:00:23Z"})");
  ScriptedHttp http_{[this](const HttpRequest& request) { return Answer(request); }};
};

TEST_F(InstanceTest, AsksForATokenTheRoleAndItsCredentials) {
  std::vector<std::string> seen;
  TestHttpServer imds([&](const TestHttpServer::Request& request) {
    seen.push_back(request.method + " " + request.target + " " +
                   std::string(request.Header("x-aws-ec2-metadata-token")) +
                   std::string(request.Header("x-aws-ec2-metadata-token-ttl-seconds")));
    const auto answer =
        Answer({.url = request.target,
                .headers = {{"X-aws-ec2-metadata-token",
                             std::string(request.Header("x-aws-ec2-metadata-token"))}}});
    return TestHttpServer::Reply{.status = answer->status, .body = answer->body};
  });
  CurlClient curl(SystemClock(), MapEnvironment({}), "guildlite/test");
  const auto found = CredentialsFromInstance(
      MapEnvironment({{"AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url() + "/"},
                      {"AWS_EC2_METADATA_DISABLED", "false"}}),
      curl);
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->credentials, kCredentials);
  EXPECT_EQ(found->expires_ms, kExpires);
  EXPECT_THAT(seen, ::testing::ElementsAre(
                        "PUT /latest/api/token 60",
                        "GET /latest/meta-data/iam/security-credentials/ imds-token",
                        "GET /latest/meta-data/iam/security-credentials/bot%20role imds-token"));
}

TEST_F(InstanceTest, AsksAtTheLinkLocalAddressForASecondAtMost) {
  ASSERT_TRUE(Find().ok());
  for (const auto& sent : http_.sent()) {
    EXPECT_TRUE(sent.url.starts_with("http://169.254.169.254/latest/")) << sent.url;
    EXPECT_EQ(sent.timeout_ms, 1000);
    EXPECT_TRUE(sent.direct);
  }
}

TEST_F(InstanceTest, IsNothingWhereItIsSwitchedOffOrSomewhereElse) {
  for (const char* const off : {"true", "TRUE", "True"}) {
    EXPECT_EQ(Find({{"AWS_EC2_METADATA_DISABLED", off}}).status().tag(), Tag::kNotFound);
  }
  EXPECT_TRUE(http_.sent().empty());

  for (const auto& token :
       {NoNetwork({}), Result<HttpResponse>(HttpReply(403, "")),
        Result<HttpResponse>(HttpReply(404, "")), Result<HttpResponse>(HttpReply(405, "")),
        Result<HttpResponse>(HttpReply(200, "")),
        Result<HttpResponse>(HttpReply(200, "<html>\r\n"))}) {
    token_ = token;
    const auto found = Find();
    EXPECT_EQ(found.status().tag(), Tag::kNotFound);
    EXPECT_THAT(found.status().message(), HasSubstr("169.254.169.254"));
  }
  token_ = HttpReply(200, "imds-token");
  roles_ = HttpReply(404, "");
  EXPECT_THAT(Find().status().message(), HasSubstr("no role"));
  roles_ = HttpReply(200, "\n");
  EXPECT_EQ(Find().status().tag(), Tag::kNotFound);
}

TEST_F(InstanceTest, SaysWhatFailsOnAnInstance) {
  token_ = HttpReply(503, "");
  EXPECT_EQ(Find().status().tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(Find().status().retryable());
  token_ = HttpReply(200, "imds-token");
  roles_ = NoNetwork({});
  EXPECT_EQ(Find().status().tag(), Tag::kStoreUnreachable);
  roles_ = HttpReply(401, "");
  EXPECT_EQ(Find().status().tag(), Tag::kStoreDenied);
  roles_ = HttpReply(200, "bot");
  role_ =
      HttpReply(200, R"({"Code":"AssumeRoleUnauthorizedAccess","Message":"EC2 cannot assume"})");
  EXPECT_EQ(Find().status().tag(), Tag::kStoreDenied);
  EXPECT_THAT(Find().status().message(), HasSubstr("AssumeRoleUnauthorizedAccess, EC2 cannot"));
  role_ = HttpReply(200, "{}");
  EXPECT_EQ(Find().status().tag(), Tag::kStoreUnreachable);
  role_ = NoNetwork({});
  EXPECT_EQ(Find().status().tag(), Tag::kStoreUnreachable);
}

}  // namespace
}  // namespace guildlite
