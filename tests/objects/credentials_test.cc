#include "vfs/objects/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/support/http_server.h"
#include "tests/support/scripted_http.h"
#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/base/file_io.h"
#include "vfs/base/time_text.h"

namespace guildlite {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMinuteMs = 60 * 1000;

// A provider whose credentials come from a container's endpoint of the test's making.
class CredentialsProviderTest : public ::testing::Test {
 protected:
  Result<HttpResponse> Answer() {
    if (failing_) return Status(Tag::kStoreUnreachable, "no route", /*retryable=*/true);
    return HttpReply(
        200, "{\"AccessKeyId\":\"id" + std::to_string(http_.sent().size()) +
                 "\",\"SecretAccessKey\":\"secret-key\",\"Token\":\"secret-token\"" +
                 (life_ms_ ? ",\"Expiration\":\"" + FormatTime(clock_.NowMs() + *life_ms_) + "\""
                           : std::string()) +
                 "}");
  }
  // "id1", "id2", ... by how often the endpoint was asked; or the error's tag.
  std::string Id() {
    const auto got = provider_.Get();
    return got.ok() ? got->access_key_id : std::string(TagName(got.status().tag()));
  }
  size_t asked() const { return http_.sent().size(); }

  SimClock clock_;
  bool failing_ = false;
  std::optional<int64_t> life_ms_ = 60 * kMinuteMs;
  ScriptedHttp http_{[this](const HttpRequest&) { return Answer(); }};
  CredentialsProvider provider_{MapEnvironment({{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"}}),
                                http_, clock_};
};

TEST_F(CredentialsProviderTest, AsksOnceAndAgainShortlyBeforeTheEnd) {
  EXPECT_EQ(asked(), 0u);
  EXPECT_EQ(Id(), "id1");
  clock_.Advance(55 * kMinuteMs - 1);
  EXPECT_EQ(Id(), "id1");
  EXPECT_EQ(asked(), 1u);
  clock_.Advance(1);
  EXPECT_EQ(Id(), "id2");
  EXPECT_EQ(asked(), 2u);
}

TEST_F(CredentialsProviderTest, AsksAtHalfTheLifeOfShortLivedOnes) {
  life_ms_ = 2 * kMinuteMs;
  EXPECT_EQ(Id(), "id1");
  clock_.Advance(kMinuteMs - 1);
  EXPECT_EQ(Id(), "id1");
  clock_.Advance(1);
  EXPECT_EQ(Id(), "id2");
}

TEST_F(CredentialsProviderTest, KeepsWhatNeverEnds) {
  life_ms_ = std::nullopt;
  EXPECT_EQ(Id(), "id1");
  clock_.Advance(1000 * 24 * 60 * kMinuteMs);
  EXPECT_EQ(Id(), "id1");
}

TEST_F(CredentialsProviderTest, UsesTheOldOnesUntilTheyEndWhenThereAreNoNewOnes) {
  EXPECT_EQ(Id(), "id1");
  failing_ = true;
  clock_.Advance(55 * kMinuteMs);
  EXPECT_EQ(Id(), "id1");
  EXPECT_EQ(asked(), 2u);
  EXPECT_EQ(Id(), "id1");  // asks nobody within the pause
  EXPECT_EQ(asked(), 2u);
  clock_.Advance(CredentialsProvider::kPauseMs);
  EXPECT_EQ(Id(), "id1");
  EXPECT_EQ(asked(), 3u);
  clock_.Advance(5 * kMinuteMs - CredentialsProvider::kPauseMs - 5);
  EXPECT_EQ(Id(), "id1");
  clock_.Advance(5);  // the end, within a pause
  EXPECT_EQ(Id(), "STORE_UNREACHABLE");
  EXPECT_EQ(Id(), "STORE_UNREACHABLE");
  failing_ = false;
  EXPECT_EQ(Id(), "id7");
}

TEST_F(CredentialsProviderTest, AsksAgainWhenTheStoreRefuses) {
  life_ms_ = std::nullopt;
  EXPECT_EQ(Id(), "id1");
  provider_.Invalidate();
  EXPECT_EQ(Id(), "id1");  // just asked: the source has no others
  clock_.Advance(CredentialsProvider::kPauseMs);
  EXPECT_EQ(Id(), "id2");
  clock_.Advance(CredentialsProvider::kPauseMs);
  EXPECT_EQ(Id(), "id2");
  provider_.Invalidate();
  failing_ = true;
  EXPECT_EQ(Id(), "STORE_UNREACHABLE");
  failing_ = false;
  EXPECT_EQ(Id(), "id4");
}

TEST_F(CredentialsProviderTest, TrustsTheSourceMoreThanTheClock) {
  life_ms_ = -60 * kMinuteMs;  // the clock is hours fast
  EXPECT_EQ(Id(), "id1");
  EXPECT_EQ(Id(), "id1");
  clock_.Advance(CredentialsProvider::kPauseMs);
  EXPECT_EQ(Id(), "id2");
}

TEST_F(CredentialsProviderTest, StartsWithAnErrorAndThenWorks) {
  failing_ = true;
  const auto got = provider_.Get();
  EXPECT_EQ(got.status().tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(got.status().retryable());
  EXPECT_THAT(got.status().message(),
              AllOf(HasSubstr("get AWS credentials from the container"), HasSubstr("no route")));
  provider_.Invalidate();
  failing_ = false;
  EXPECT_EQ(Id(), "id2");
}

TEST(CredentialsProvider, OneThreadAsksForAll) {
  auto gate = std::make_shared<Gate>();
  bool failing = true;
  ScriptedHttp http([&](const HttpRequest&) -> Result<HttpResponse> {
    gate->Wait();
    if (failing) return Status(Tag::kStoreUnreachable, "no route", /*retryable=*/true);
    return HttpReply(200, R"({"AccessKeyId":"id","SecretAccessKey":"key","Token":"t"})");
  });
  CredentialsProvider provider(MapEnvironment({{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"}}),
                               http, SystemClock());
  std::vector<std::thread> threads;
  std::atomic<int> good{0}, bad{0};
  const auto get = [&] { (provider.Get().ok() ? good : bad)++; };
  for (int i = 0; i < 8; ++i) threads.emplace_back(get);
  gate->AwaitArrivals(1);
  gate->Open();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(bad, 8);  // who came too late to share the error asked for itself
  EXPECT_LE(http.sent().size(), 8u);

  failing = false;
  const size_t before = http.sent().size();
  threads.clear();
  for (int i = 0; i < 8; ++i) threads.emplace_back(get);
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(http.sent().size(), before + 1);
}

TEST(CredentialsProvider, NobodyWaitsForASourceWhileTheOldOnesHold) {
  SimClock clock;
  auto gate = std::make_shared<Gate>();
  std::atomic<int> calls{0};
  ScriptedHttp http([&](const HttpRequest&) -> Result<HttpResponse> {
    const int call = ++calls;
    if (call == 2) gate->Wait();
    return HttpReply(200, "{\"AccessKeyId\":\"id" + std::to_string(call) +
                              "\",\"SecretAccessKey\":\"key\",\"Expiration\":\"" +
                              FormatTime(clock.NowMs() + 60 * kMinuteMs) + "\"}");
  });
  CredentialsProvider provider(MapEnvironment({{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"}}),
                               http, clock);
  EXPECT_EQ(provider.Get()->access_key_id, "id1");
  clock.Advance(56 * kMinuteMs);
  std::thread asking([&] { EXPECT_EQ(provider.Get()->access_key_id, "id2"); });
  gate->AwaitArrivals(1);
  EXPECT_EQ(provider.Get()->access_key_id, "id1");
  gate->Open();
  asking.join();
  EXPECT_EQ(provider.Get()->access_key_id, "id2");
}

class CredentialsOrderTest : public ::testing::Test {
 protected:
  CredentialsOrderTest() {
    EXPECT_TRUE(MakeDirectory(home_.File(".aws")).ok());
    EXPECT_TRUE(ReplaceFile(home_.File("token"), "ey").ok());
    variables_["HOME"] = home_.path();
  }
  Result<AwsCredentials> Get() {
    CredentialsProvider provider(MapEnvironment(variables_), http_, SystemClock());
    return provider.Get();
  }
  // As whoever answers: STS, a container's endpoint, an instance's.
  Result<HttpResponse> Answer(const HttpRequest& request) {
    if (refusing_) return HttpReply(403, "");
    if (request.url.find("://sts.") != std::string::npos) {
      return HttpReply(200,
                       "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>"
                       "<Credentials><SessionToken>t</SessionToken><SecretAccessKey>k"
                       "</SecretAccessKey><Expiration>2100-01-01T00:00:00Z</Expiration>"
                       "<AccessKeyId>sts</AccessKeyId></Credentials>"
                       "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>");
    }
    if (request.url.ends_with("/token")) return HttpReply(200, "imds");
    if (request.url.ends_with("/security-credentials/")) return HttpReply(200, "role");
    const bool container = request.url.find("169.254.170.2/") != std::string::npos;
    return HttpReply(200, "{\"AccessKeyId\":\"" +
                              std::string(container ? "container" : "instance") +
                              "\",\"SecretAccessKey\":\"k\"}");
  }

  TempDir home_;
  std::map<std::string, std::string> variables_;
  bool refusing_ = false;
  ScriptedHttp http_{[this](const HttpRequest& request) { return Answer(request); }};
};

TEST_F(CredentialsOrderTest, IsThatOfAwssTools) {
  EXPECT_EQ(Get()->access_key_id, "instance");
  variables_["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = "/x";
  EXPECT_EQ(Get()->access_key_id, "container");
  ASSERT_TRUE(ReplaceFile(home_.File(".aws/credentials"),
                          "[default]\naws_access_key_id=profile\naws_secret_access_key=k\n")
                  .ok());
  EXPECT_EQ(Get()->access_key_id, "profile");
  variables_["AWS_WEB_IDENTITY_TOKEN_FILE"] = home_.File("token");
  variables_["AWS_ROLE_ARN"] = "arn:x";
  EXPECT_EQ(Get()->access_key_id, "sts");
  variables_["AWS_ACCESS_KEY_ID"] = "environment";
  variables_["AWS_SECRET_ACCESS_KEY"] = "k";
  variables_["AWS_SESSION_TOKEN"] = "t";
  const auto got = Get();
  EXPECT_EQ(*got, (AwsCredentials{"environment", "k", "t"}));
}

TEST_F(CredentialsOrderTest, StopsWhereSomethingIsConfiguredAndDoesNotWork) {
  refusing_ = true;
  ASSERT_TRUE(ReplaceFile(home_.File(".aws/credentials"),
                          "[default]\naws_access_key_id=profile\naws_secret_access_key=k\n")
                  .ok());
  variables_["AWS_WEB_IDENTITY_TOKEN_FILE"] = home_.File("token");
  variables_["AWS_ROLE_ARN"] = "arn:x";
  EXPECT_EQ(Get().status().tag(), Tag::kStoreDenied);
  EXPECT_THAT(Get().status().message(), HasSubstr("from web identity"));
  variables_["AWS_SECRET_ACCESS_KEY"] = "secret";
  EXPECT_THAT(Get().status().message(),
              AllOf(HasSubstr("AWS_ACCESS_KEY_ID is not"), Not(HasSubstr("secret"))));
}

TEST(CredentialsProvider, NamesEveryPlaceWhereItFoundNothing) {
  ScriptedHttp http(NoNetwork);
  TempDir home;
  CredentialsProvider provider(MapEnvironment({{"HOME", home.path()}}), http, SystemClock());
  const auto got = provider.Get();
  EXPECT_EQ(got.status().tag(), Tag::kStoreDenied);
  EXPECT_FALSE(got.status().retryable());
  EXPECT_THAT(got.status().message(),
              AllOf(HasSubstr("AWS_ACCESS_KEY_ID is not set"),
                    HasSubstr("AWS_WEB_IDENTITY_TOKEN_FILE is not set"),
                    HasSubstr(home.path() + "/.aws/credentials (not there)"),
                    HasSubstr(home.path() + "/.aws/config (not there)"),
                    HasSubstr("AWS_CONTAINER_CREDENTIALS_FULL_URI are not set"),
                    HasSubstr("169.254.169.254: no route to host")));
}

}  // namespace
}  // namespace guildlite
