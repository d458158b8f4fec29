#include "vfs/objects/credentials_source.h"

#include <gtest/gtest.h>

#include "tests/support/scripted_http.h"

namespace guildlite {
namespace {

TEST(CredentialsSource, ReadsTheJsonOfProcessesAndEndpoints) {
  const auto found = ParseCredentialsJson(
      R"({"Version":1,"AccessKeyId":"id","SecretAccessKey":"key","SessionToken":"token",
          "Expiration":"2026-01-02T03:04:05Z"})",
      "SessionToken");
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->credentials, (AwsCredentials{"id", "key", "token"}));
  EXPECT_EQ(found->expires_ms, 1767323045000);

  const auto lasting = ParseCredentialsJson(
      R"({"AccessKeyId":"id","SecretAccessKey":"key","SessionToken":"not this one"})", "Token");
  EXPECT_EQ(lasting->credentials, (AwsCredentials{"id", "key", ""}));
  EXPECT_EQ(lasting->expires_ms, std::nullopt);
}

TEST(CredentialsSource, RefusesWhatIsNoCredentialsWithoutQuotingIt) {
  for (const char* const json :
       {"", "secret", "[]", "{}", R"("secret")", R"({"AccessKeyId":"secret"})",
        R"({"AccessKeyId":"","SecretAccessKey":"secret"})",
        R"({"AccessKeyId":1,"SecretAccessKey":"secret"})",
        R"({"AccessKeyId":"id","SecretAccessKey":"secret","Expiration":"secret"})",
        R"({"AccessKeyId":"id","SecretAccessKey":"secret")", "{\"AccessKeyId\":\"\xff\"}"}) {
    const auto found = ParseCredentialsJson(json, "Token");
    ASSERT_FALSE(found.ok()) << json;
    EXPECT_EQ(found.status().message().find("secret"), std::string::npos) << json;
  }
}

TEST(CredentialsSource, TakesAnEmptyVariableForNone) {
  EXPECT_EQ(Variable(MapEnvironment({{"A", ""}, {"B", "b"}}), "A"), "");
  EXPECT_EQ(Variable(MapEnvironment({{"A", ""}, {"B", "b"}}), "B"), "b");
  EXPECT_EQ(Variable(MapEnvironment({}), "A"), "");
}

}  // namespace
}  // namespace guildlite
