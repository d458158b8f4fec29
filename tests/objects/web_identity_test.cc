// Against a stand-in of STS on loopback, with the answers of its API reference.
#include "vfs/objects/web_identity.h"

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

constexpr const char* kRole = "arn:aws:iam::123456789012:role/Bot";

std::string Answer(const std::string& expiration = "2026-11-24T23:00:23Z") {
  return R"(<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>amzn1.account</SubjectFromWebIdentityToken>
    <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/Bot/app1</Arn></AssumedRoleUser>
    <Credentials>
      <SessionToken>the/token+=</SessionToken>
      <SecretAccessKey>the-key</SecretAccessKey>
      <Expiration>)" +
         expiration + R"(</Expiration>
      <AccessKeyId>ASIAEXAMPLE</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>ad4156e9</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>)";
}

class WebIdentityTest : public ::testing::Test {
 protected:
  WebIdentityTest() { EXPECT_TRUE(ReplaceFile(token_file_, "ey+J/token=\n").ok()); }

  std::map<std::string, std::string> Variables() {
    return {{"AWS_WEB_IDENTITY_TOKEN_FILE", token_file_}, {"AWS_ROLE_ARN", kRole}};
  }
  Result<FoundCredentials> Find(std::map<std::string, std::string> variables,
                                std::string_view region = "eu-central-1") {
    return CredentialsFromWebIdentity(MapEnvironment(variables), region, http_);
  }

  TempDir directory_;
  const std::string token_file_ = directory_.File("token");
  Result<HttpResponse> answer_ = HttpReply(200, Answer());
  ScriptedHttp http_{[this](const HttpRequest&) { return answer_; }};
};

TEST_F(WebIdentityTest, IsNothingWithoutATokenFileAndWrongWithoutARole) {
  EXPECT_EQ(Find({}).status().tag(), Tag::kNotFound);
  EXPECT_EQ(Find({{"AWS_ROLE_ARN", kRole}}).status().tag(), Tag::kNotFound);
  const auto half = Find({{"AWS_WEB_IDENTITY_TOKEN_FILE", token_file_}});
  EXPECT_EQ(half.status().tag(), Tag::kStoreDenied);
  EXPECT_THAT(half.status().message(), HasSubstr("AWS_ROLE_ARN"));
  EXPECT_TRUE(http_.sent().empty());
}

TEST_F(WebIdentityTest, AsksStsAndTakesItsCredentials) {
  TestHttpServer::Request seen;
  TestHttpServer sts([&](const TestHttpServer::Request& request) {
    seen = request;
    return TestHttpServer::Reply{.body = Answer()};
  });
  CurlClient curl(SystemClock(), MapEnvironment({}), "guildlite/test");
  auto variables = Variables();
  variables["AWS_ENDPOINT_URL_STS"] = sts.url() + "/";
  variables["AWS_ROLE_SESSION_NAME"] = "pod 1";
  const auto found = CredentialsFromWebIdentity(MapEnvironment(variables), "", curl);
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->credentials, (AwsCredentials{"ASIAEXAMPLE", "the-key", "the/token+="}));
  EXPECT_EQ(found->expires_ms, 1795561223000);
  EXPECT_THAT(found->source, HasSubstr(kRole));
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.target, "/");
  EXPECT_EQ(seen.Header("content-type"), "application/x-www-form-urlencoded");
  EXPECT_EQ(seen.Header("authorization"), "");
  EXPECT_EQ(seen.body,
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15"
            "&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2FBot&RoleSessionName=pod%201"
            "&WebIdentityToken=ey%2BJ%2Ftoken%3D");
}

TEST_F(WebIdentityTest, ReadsTheTokenAnewEachTime) {
  ASSERT_TRUE(Find(Variables()).ok());
  ASSERT_TRUE(ReplaceFile(token_file_, "second").ok());
  ASSERT_TRUE(Find(Variables()).ok());
  EXPECT_THAT(http_.sent()[1].body, HasSubstr("WebIdentityToken=second"));
  EXPECT_THAT(http_.sent()[1].body, HasSubstr("RoleSessionName=guildlite&"));
  ASSERT_TRUE(RemoveFile(token_file_).ok());
  EXPECT_EQ(Find(Variables()).status().tag(), Tag::kStoreDenied);
}

TEST_F(WebIdentityTest, KnowsTheEndpoints) {
  struct Case {
    std::map<std::string, std::string> variables;
    const char* region;
    const char* url;
  };
  for (const Case& c : {
           Case{{}, "", "https://sts.amazonaws.com/"},
           Case{{}, "eu-central-1", "https://sts.eu-central-1.amazonaws.com/"},
           Case{{}, "cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn/"},
           Case{{}, "us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com/"},
           Case{{{"AWS_ENDPOINT_URL", "http://minio:9000"}}, "eu", "http://minio:9000/"},
           Case{{{"AWS_ENDPOINT_URL", "http://minio:9000"}, {"AWS_ENDPOINT_URL_STS", "http://a"}},
                "eu",
                "http://a/"},
       }) {
    auto variables = Variables();
    variables.insert(c.variables.begin(), c.variables.end());
    ASSERT_TRUE(Find(variables, c.region).ok());
    EXPECT_EQ(http_.sent().back().url, c.url);
  }
}

TEST_F(WebIdentityTest, SaysWhatStsSaysButNotTheToken) {
  answer_ = HttpReply(400,
                      R"(<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>
      <Type>Sender</Type><Code>ExpiredTokenException</Code>
      <Message>Token expired: current date/time 1 must be before 0</Message>
      </Error><RequestId>x</RequestId></ErrorResponse>)");
  const auto expired = Find(Variables());
  EXPECT_EQ(expired.status().tag(), Tag::kStoreDenied);
  EXPECT_FALSE(expired.status().retryable());
  EXPECT_THAT(expired.status().message(),
              HasSubstr("HTTP 400, ExpiredTokenException, Token expired"));
  EXPECT_THAT(expired.status().message(), HasSubstr(kRole));

  answer_ = HttpReply(400,
                      "<ErrorResponse><Error><Code>InvalidIdentityToken</Code>"
                      "<Message>bad ey+J/token=</Message></Error></ErrorResponse>");
  EXPECT_THAT(Find(Variables()).status().message(), Not(HasSubstr("ey+J")));

  answer_ = HttpReply(503, "<html>");
  EXPECT_EQ(Find(Variables()).status().tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(Find(Variables()).status().retryable());
  answer_ = Status(Tag::kOutcomeUnknown, "the connection ended");
  EXPECT_EQ(Find(Variables()).status().tag(), Tag::kStoreUnreachable);
}

TEST_F(WebIdentityTest, TakesNothingFromWhatIsNotSts) {
  const std::string whole = Answer();
  for (const std::string& body :
       {std::string(), std::string("<html>"), std::string("{}"), Answer("tomorrow"), Answer(""),
        whole.substr(0, whole.find("<AccessKeyId>")), whole.substr(0, whole.size() / 2)}) {
    answer_ = HttpReply(200, body);
    const auto found = Find(Variables());
    EXPECT_EQ(found.status().tag(), Tag::kStoreUnreachable) << body;
    EXPECT_TRUE(found.status().retryable());
    EXPECT_THAT(found.status().message(), Not(HasSubstr("the-key")));
  }
}

}  // namespace
}  // namespace guildlite
