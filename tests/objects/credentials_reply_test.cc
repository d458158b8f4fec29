#include "vfs/objects/credentials_reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/scripted_http.h"
#include "tests/support/temp_dir.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(CredentialsReply, NoAnswerMayBeAskedForAgain) {
  const std::pair<Tag, Tag> cases[] = {
      {Tag::kStoreUnreachable, Tag::kStoreUnreachable},
      {Tag::kOutcomeUnknown, Tag::kStoreUnreachable},
      {Tag::kTimeout, Tag::kStoreUnreachable},
      {Tag::kTlsNoCa, Tag::kTlsNoCa},
      {Tag::kBadUrl, Tag::kBadUrl},
  };
  for (const auto& [sent, expected] : cases) {
    ScriptedHttp http([&](const HttpRequest&) { return Status(sent, "why"); });
    const auto response = Ask(http, {}, "ask somebody");
    EXPECT_EQ(response.status().tag(), expected);
    EXPECT_EQ(response.status().retryable(), expected == Tag::kStoreUnreachable);
    EXPECT_EQ(response.status().message(), "ask somebody: why");
  }
}

TEST(CredentialsReply, TellsRefusalsFromTroubleThatPasses) {
  struct Case {
    int status;
    const char* code;
    Tag tag;
    bool retryable;
  };
  for (const Case& c :
       {Case{400, "ExpiredTokenException", Tag::kStoreDenied, false},
        Case{400, "IDPCommunicationError", Tag::kStoreUnreachable, true},
        Case{400, "Throttling", Tag::kStoreThrottled, true},
        Case{403, "", Tag::kStoreDenied, false},
        Case{200, "AssumeRoleUnauthorizedAccess", Tag::kStoreDenied, false},
        Case{302, "", Tag::kStoreDenied, false}, Case{429, "", Tag::kStoreThrottled, true},
        Case{500, "", Tag::kStoreUnreachable, true}, Case{503, "", Tag::kStoreUnreachable, true}}) {
    const Status refusal = Refusal(HttpReply(c.status, ""), "ask", c.code, "", "");
    EXPECT_EQ(refusal.tag(), c.tag) << c.status << c.code;
    EXPECT_EQ(refusal.retryable(), c.retryable) << c.status << c.code;
    EXPECT_THAT(refusal.message(), HasSubstr("ask: HTTP " + std::to_string(c.status)));
    EXPECT_THAT(refusal.message(), HasSubstr(c.code));
  }
}

TEST(CredentialsReply, RepeatsTheServersWordsButNotTheSecret) {
  EXPECT_EQ(Refusal(HttpReply(400, ""), "ask", "Code", "the role is unknown", "sec").message(),
            "ask: HTTP 400, Code, the role is unknown");
  EXPECT_EQ(Refusal(HttpReply(400, ""), "ask", "Code", "your token sec is bad", "sec").message(),
            "ask: HTTP 400, Code");
}

TEST(CredentialsReply, ReadsATokenAndNothingThatWouldBreakAHeader) {
  TempDir directory;
  const std::string path = directory.File("token");
  ASSERT_TRUE(ReplaceFile(path, "ey.J0 b\n").ok());
  EXPECT_EQ(*ReadSecretFile(path), "ey.J0 b");
  for (const std::string_view content :
       {std::string_view("secret\r\nX-Other: 1"), std::string_view("sec\0ret", 7),
        std::string_view(" \n"), std::string_view("")}) {
    ASSERT_TRUE(ReplaceFile(path, content).ok());
    const auto token = ReadSecretFile(path);
    EXPECT_EQ(token.status().tag(), Tag::kStoreDenied);
    EXPECT_THAT(token.status().message(), HasSubstr(path));
    EXPECT_THAT(token.status().message(), Not(HasSubstr("sec")));
  }
  const auto missing = ReadSecretFile(directory.File("gone"));
  EXPECT_EQ(missing.status().tag(), Tag::kStoreDenied);
  EXPECT_THAT(missing.status().message(), HasSubstr("gone"));
}

}  // namespace
}  // namespace guildlite
