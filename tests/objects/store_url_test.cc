#include "vfs/objects/store_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace guildlite {
namespace {

using ::testing::HasSubstr;

TEST(StoreUrl, DecodesADirectory) {
  struct Case {
    const char* url;
    const char* path;
  };
  const Case cases[] = {
      {"file:///backup", "/backup"},
      {"file:///backup/", "/backup"},
      {"file:///a/b.c/d-e_f~g", "/a/b.c/d-e_f~g"},
      {"file:///my%20app/%c3%BC", "/my app/\xc3\xbc"},
      {"file:///my app", "/my app"},
      {"file:///100%25", "/100%"},
      {"file:///a/.../..b", "/a/.../..b"},
      {"file:///a:b@c", "/a:b@c"},
      {"file:///a%3Fb%23c", "/a?b#c"},
  };
  for (const Case& c : cases) {
    const auto url = ParseStoreUrl(c.url);
    ASSERT_TRUE(url.ok()) << url.status().ToString();
    EXPECT_EQ(url->scheme, "file");
    EXPECT_EQ(url->path, c.path);
  }
}

TEST(StoreUrl, RefusesWithTheReason) {
  struct Case {
    std::string url;
    const char* says;
  };
  const Case cases[] = {
      {"", "empty"},
      {"/data/app.db", "were path and url swapped?"},
      {"./app.db", "were path and url swapped?"},
      {"app.sqlite3", "were path and url swapped?"},
      {"backup", "no scheme"},
      {"file:/backup", "'//' is missing"},
      {"file:backup", "'//' is missing"},
      {"file://", "no directory"},
      {"file:///", "not the root"},
      {"file://host/backup", "a host"},
      {"file://./backup", "not absolute"},
      {"file:////backup", "two slashes"},
      {"file:///a//b", "two slashes"},
      {"file:///a//", "two slashes"},
      {"file:///a/../b", "'..'"},
      {"file:///a/%2e%2E/b", "'..'"},
      {"file:///a/.", "'.'"},
      {"file:///a%2Fb", "encoded slash"},
      {"file:///a%00b", "NUL"},
      {std::string("file:///a\0b", 11), "NUL"},
      {"file:///a%", "two hex digits"},
      {"file:///a%4", "two hex digits"},
      {"file:///a%zz", "two hex digits"},
      {"file:///a?b=c", "no query"},
      {"file:///a#b", "fragment"},
      {"file:///\xc3\xbc", "percent-encoded"},
      {"file:///a\nb", "percent-encoded"},
      {"file:///a\\b", "percent-encoded"},
      {"FILE:///a", "lower case"},
      {"http://a/b", "unknown scheme"},
      {"memory://", "unknown scheme"},
      {"s3://", "no bucket"},
      {"s3:///prefix", "no bucket"},
      {std::string(5000, 'a'), "too long"},
  };
  for (const Case& c : cases) {
    const auto url = ParseStoreUrl(c.url);
    ASSERT_FALSE(url.ok()) << c.url;
    EXPECT_EQ(url.status().tag(), Tag::kBadUrl);
    EXPECT_THAT(url.status().message(), HasSubstr(c.says)) << c.url;
  }
}

TEST(StoreUrl, NeverRepeatsCredentialsOrControlBytes) {
  const auto secret = ParseStoreUrl("s3://AKIA:hunter2@bucket/prefix");
  ASSERT_FALSE(secret.ok());
  EXPECT_THAT(secret.status().message(), ::testing::Not(HasSubstr("hunter2")));
  const auto control = ParseStoreUrl("file:///a\n\x1b[2J");
  ASSERT_FALSE(control.ok());
  EXPECT_EQ(control.status().message().find('\n'), std::string::npos);
  EXPECT_EQ(control.status().message().find('\x1b'), std::string::npos);
}

TEST(StoreUrl, LeavesABucketToS3Url) {
  const auto url = ParseStoreUrl("s3://bucket/prefix?region=eu-central-1");
  ASSERT_TRUE(url.ok()) << url.status().ToString();
  EXPECT_EQ(url->scheme, "s3");
  EXPECT_EQ(url->path, "bucket/prefix?region=eu-central-1");
  EXPECT_EQ(ParseStoreUrl("s3://bucket/prefix?zone=x").status().tag(), Tag::kBadUrl);
}

}  // namespace
}  // namespace guildlite
