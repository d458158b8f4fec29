#include "vfs/objects/credentials_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/scripted_http.h"
#include "tests/support/temp_dir.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

using Profiles = std::map<std::string, ProfileSettings>;

TEST(SharedFile, ReadsProfilesOfTheConfigFile) {
  const auto parsed = ParseSharedFile(
      "\xef\xbb\xbf# a comment\n"
      "; another = one\n"
      "\n"
      "[default]\n"
      "region=eu-central-1\n"
      "[profile dev]  # behind a section\r\n"
      "Region =  us-east-1 \r\n"
      "s3 =\n"
      "  max_concurrent_requests = 20\n"
      "credential_process = /bin/x --a=b \"c; d\" # e\n"
      "[profile 'two words']\n"
      "a = \n"
      "[sso-session dev]\n"
      "sso_region = x\n"
      "[profiledev]\n"
      "[profile]\n"
      "a = b\n"
      "[profile\tdev]\n"
      "region = us-west-2\n"
      "[ default ]\n"
      "output = json",
      SharedFile::kConfig);
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ(*parsed, (Profiles{{"default", {{"region", "eu-central-1"}, {"output", "json"}}},
                               {"dev",
                                {{"region", "us-west-2"},
                                 {"s3", ""},
                                 {"credential_process", "/bin/x --a=b \"c; d\" # e"}}},
                               {"two words", {{"a", ""}}}}));
}

TEST(SharedFile, ReadsProfilesOfTheCredentialsFile) {
  const auto parsed = ParseSharedFile(
      "[default]\naws_access_key_id = AKIA\naws_secret_access_key = a/b+c==\n"
      "[Dev]\nAWS_ACCESS_KEY_ID=x\n[profile dev]\n",
      SharedFile::kCredentials);
  EXPECT_EQ(
      *parsed,
      (Profiles{{"default", {{"aws_access_key_id", "AKIA"}, {"aws_secret_access_key", "a/b+c=="}}},
                {"Dev", {{"aws_access_key_id", "x"}}},
                {"profile dev", {}}}));
  EXPECT_EQ(*ParseSharedFile("", SharedFile::kCredentials), Profiles{});
  EXPECT_EQ(*ParseSharedFile("\n\n#", SharedFile::kCredentials), Profiles{});
}

TEST(SharedFile, NamesTheLineThatIsNoneOfItsOwnWithoutQuotingIt) {
  const std::pair<const char*, const char*> cases[] = {
      {"secret", "line 1 "},
      {"a = secret\n[default]\n", "line 1 "},
      {"[default]\n\n[secret\n", "line 3 "},
      {"[default]\nsecret\n", "line 2 "},
      {"[default]\n= secret\n", "line 2 "},
  };
  for (const auto& [text, line] : cases) {
    const auto parsed = ParseSharedFile(text, SharedFile::kConfig);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_THAT(parsed.status().message(), HasSubstr(line));
    EXPECT_THAT(parsed.status().message(), Not(HasSubstr("secret")));
  }
}

class ProfileTest : public ::testing::Test {
 protected:
  ProfileTest() {
    variables_["HOME"] = directory_.path();
    EXPECT_TRUE(MakeDirectory(directory_.File(".aws")).ok());
  }
  void Credentials(std::string_view text) {
    ASSERT_TRUE(ReplaceFile(directory_.File(".aws/credentials"), text).ok());
  }
  void Config(std::string_view text) {
    ASSERT_TRUE(ReplaceFile(directory_.File(".aws/config"), text).ok());
  }
  Result<FoundCredentials> Find() {
    return CredentialsFromProfile(MapEnvironment(variables_), http_, SystemClock());
  }
  // Of an error that names the profile and no secret.
  std::string Trouble() {
    const auto found = Find();
    EXPECT_FALSE(found.ok());
    EXPECT_EQ(found.status().tag(), Tag::kStoreDenied) << found.status().ToString();
    EXPECT_THAT(found.status().message(), HasSubstr(directory_.path()));
    EXPECT_THAT(found.status().message(), Not(HasSubstr("secret")));
    return found.status().message();
  }

  TempDir directory_;
  std::map<std::string, std::string> variables_;
  ScriptedHttp http_{NoNetwork};
};

TEST_F(ProfileTest, IsNothingWithoutFilesOrWithoutItsProfile) {
  EXPECT_EQ(Find().status().tag(), Tag::kNotFound);
  EXPECT_THAT(Find().status().message(), HasSubstr("credentials (not there)"));
  Credentials("[other]\naws_access_key_id = a\naws_secret_access_key = b\n");
  EXPECT_EQ(Find().status().tag(), Tag::kNotFound);
  Config("[default]\nregion = x\n");
  EXPECT_EQ(Find().status().tag(), Tag::kNotFound);
  variables_.erase("HOME");
  EXPECT_EQ(Find().status().tag(), Tag::kNotFound);
  EXPECT_THAT(Find().status().message(), HasSubstr("HOME is not set"));
}

TEST_F(ProfileTest, TakesTheKeysOfTheProfileThatIsNamed) {
  Credentials(
      "[default]\naws_access_key_id = a\naws_secret_access_key = b\n"
      "[dev]\naws_access_key_id = c\naws_secret_access_key = d\naws_session_token = e\n");
  const auto found = Find();
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->credentials, (AwsCredentials{"a", "b", ""}));
  EXPECT_EQ(found->expires_ms, std::nullopt);
  EXPECT_THAT(found->source, HasSubstr("profile \"default\" of " + directory_.path()));
  variables_["AWS_PROFILE"] = "dev";
  EXPECT_EQ(Find()->credentials, (AwsCredentials{"c", "d", "e"}));
  variables_["AWS_PROFILE"] = "prod";
  EXPECT_THAT(Trouble(), HasSubstr("there is no profile \"prod\""));
}

TEST_F(ProfileTest, ReadsTheFilesThatAreNamed) {
  variables_["AWS_SHARED_CREDENTIALS_FILE"] = directory_.File("c");
  variables_["AWS_CONFIG_FILE"] = "~/f";
  ASSERT_TRUE(ReplaceFile(directory_.File("f"),
                          "[default]\naws_access_key_id = f\naws_secret_access_key = g\n")
                  .ok());
  EXPECT_EQ(Find()->credentials.access_key_id, "f");
  ASSERT_TRUE(ReplaceFile(directory_.File("c"),
                          "[default]\naws_access_key_id = c\naws_secret_access_key = d\n")
                  .ok());
  EXPECT_EQ(Find()->credentials.access_key_id, "c");
}

TEST_F(ProfileTest, PrefersTheCredentialsFileThenTheProcessThenTheConfigFile) {
  const std::string process =
      "credential_process = echo "
      "'{\"Version\":1,\"AccessKeyId\":\"p\",\"SecretAccessKey\":\"q\"}'\n";
  Config("[default]\naws_access_key_id = f\naws_secret_access_key = g\n" + process);
  Credentials("[default]\naws_access_key_id = c\naws_secret_access_key = d\n");
  EXPECT_EQ(Find()->credentials.access_key_id, "c");
  Credentials("[default]\n");
  EXPECT_EQ(Find()->credentials.access_key_id, "p");
  Config("[default]\naws_access_key_id = f\naws_secret_access_key = g\n");
  EXPECT_EQ(Find()->credentials.access_key_id, "f");
  Credentials("[default]\n" + process);
  EXPECT_EQ(Find()->credentials.access_key_id, "p");
}

TEST_F(ProfileTest, RefusesHalfAKeyPair) {
  Credentials("[default]\naws_access_key_id = x\n");
  EXPECT_THAT(Find().status().message(), HasSubstr("without aws_secret_access_key"));
  Credentials("[default]\naws_secret_access_key = hidden\n");
  EXPECT_EQ(Find().status().tag(), Tag::kStoreDenied);
  EXPECT_THAT(Find().status().message(), Not(HasSubstr("hidden")));
}

TEST_F(ProfileTest, RunsTheProcess) {
  Config(
      "[default]\ncredential_process = printf '{\"Version\": 1, \"AccessKeyId\": \"%s\", "
      "\"SecretAccessKey\": \"k\", \"SessionToken\": \"t\", "
      "\"Expiration\": \"2026-11-24T23:00:23+00:00\"}' \"a b\"\n");
  const auto found = Find();
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->credentials, (AwsCredentials{"a b", "k", "t"}));
  EXPECT_EQ(found->expires_ms, 1795561223000);
}

TEST_F(ProfileTest, SaysHowTheProcessFailedButNotWhatItPrinted) {
  Config("[default]\ncredential_process = echo secret; exit 7\n");
  const auto failed = Find();
  EXPECT_EQ(failed.status().tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(failed.status().retryable());
  EXPECT_THAT(failed.status().message(), HasSubstr("exit code 7"));
  EXPECT_THAT(failed.status().message(), Not(HasSubstr("secret")));
  Config("[default]\ncredential_process = echo secret\n");
  EXPECT_THAT(Trouble(), HasSubstr("JSON"));
  Config(
      "[default]\ncredential_process = echo '{\"Version\":\"1\",\"AccessKeyId\":\"a\","
      "\"SecretAccessKey\":\"b\"}'\n");
  EXPECT_THAT(Trouble(), HasSubstr("Version"));
}

TEST_F(ProfileTest, TakesNobodyForSomebodyElse) {
  Credentials("[default]\naws_access_key_id = a\naws_secret_access_key = b\n");
  const std::pair<const char*, const char*> cases[] = {
      {"role_arn = arn:x\nsource_profile = default\n", "role_arn"},
      {"role_arn = arn:x\ncredential_source = Ec2InstanceMetadata\n", "role_arn"},
      {"sso_session = dev\n", "sso_session"},
      {"sso_start_url = https://x\n", "sso_start_url"},
      {"login_session = arn:x\n", "login_session"},
  };
  for (const auto& [settings, named] : cases) {
    Config("[default]\n" + std::string(settings));
    EXPECT_THAT(Trouble(), HasSubstr(named));
    EXPECT_THAT(Trouble(), HasSubstr("credential_process = aws configure export-credentials"));
  }
}

TEST_F(ProfileTest, AssumesARoleWithWebIdentity) {
  const std::string token = directory_.File("token");
  ASSERT_TRUE(ReplaceFile(token, "ey").ok());
  Config(
      "[default]\nregion = eu-west-1\nrole_arn = arn:x\nrole_session_name = me\n"
      "web_identity_token_file = " +
      token + "\n");
  EXPECT_EQ(Find().status().tag(), Tag::kStoreUnreachable);
  ASSERT_EQ(http_.sent().size(), 1u);
  EXPECT_EQ(http_.sent()[0].url, "https://sts.eu-west-1.amazonaws.com/");
  EXPECT_THAT(http_.sent()[0].body, HasSubstr("RoleArn=arn%3Ax&RoleSessionName=me&"));
}

TEST_F(ProfileTest, RefusesADamagedFileEvenOfAnotherProfile) {
  Credentials("[default]\naws_access_key_id = a\naws_secret_access_key = b\n");
  Config("[profile other]\nsecret\n");
  EXPECT_THAT(Trouble(), HasSubstr("config: line 2"));
  Config(std::string((1 << 20) + 1, '\n'));
  EXPECT_THAT(Trouble(), HasSubstr("larger than 1 MiB"));
}

TEST_F(ProfileTest, TakesWhatCannotBeReadForMissing) {
  variables_["AWS_CONFIG_FILE"] = directory_.path();  // a directory
  variables_["AWS_SHARED_CREDENTIALS_FILE"] = "/proc/self/mem";
  EXPECT_EQ(Find().status().tag(), Tag::kNotFound);
  EXPECT_THAT(Find().status().message(), HasSubstr("(not readable)"));
  variables_["AWS_PROFILE"] = "dev";
  EXPECT_EQ(Find().status().tag(), Tag::kStoreDenied);
}

TEST_F(ProfileTest, KnowsTheRegion) {
  EXPECT_EQ(AwsRegion(MapEnvironment(variables_)), "");
  Credentials("[default]\nregion = in-credentials\n");
  EXPECT_EQ(AwsRegion(MapEnvironment(variables_)), "in-credentials");
  Config("[default]\nregion = in-config\n[profile dev]\nregion = of-dev\n");
  EXPECT_EQ(AwsRegion(MapEnvironment(variables_)), "in-config");
  variables_["AWS_PROFILE"] = "dev";
  EXPECT_EQ(AwsRegion(MapEnvironment(variables_)), "of-dev");
  variables_["AWS_PROFILE"] = "gone";
  EXPECT_EQ(AwsRegion(MapEnvironment(variables_)), "");
  variables_["AWS_DEFAULT_REGION"] = "b";
  EXPECT_EQ(AwsRegion(MapEnvironment(variables_)), "b");
  variables_["AWS_REGION"] = "a";
  EXPECT_EQ(AwsRegion(MapEnvironment(variables_)), "a");
}

}  // namespace
}  // namespace guildlite
