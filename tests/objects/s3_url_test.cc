#include "vfs/objects/s3_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/support/scripted_http.h"
#include "tests/support/temp_dir.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

S3Url Parsed(std::string_view rest) {
  const auto url = ParseS3Url(rest);
  EXPECT_TRUE(url.ok()) << rest << " " << url.status().ToString();
  return url.ok() ? *url : S3Url();
}

S3Url Complete(std::string_view rest, std::map<std::string, std::string> variables = {}) {
  const auto url = CompleteS3Url(Parsed(rest), MapEnvironment(std::move(variables)));
  EXPECT_TRUE(url.ok()) << rest << " " << url.status().ToString();
  return url.ok() ? *url : S3Url();
}

TEST(S3Url, NamesBucketAndPrefix) {
  EXPECT_EQ(Parsed("bucket").bucket, "bucket");
  EXPECT_EQ(Parsed("bucket").prefix, "");
  EXPECT_EQ(Parsed("bucket/"), Parsed("bucket"));
  EXPECT_EQ(Parsed("bucket/a/b").prefix, "a/b");
  EXPECT_EQ(Parsed("bucket/a/b/"), Parsed("bucket/a/b"));
  EXPECT_EQ(Parsed("my.bucket-2/a%20b/%c3%BC+").prefix, "a b/\xc3\xbc+");
  EXPECT_EQ(Parsed("Old_Bucket/" + std::string(511, 'a')).prefix.size(), 511u);
}

TEST(S3Url, TakesOptionsEncodedOrNot) {
  const S3Url url = Parsed(
      "bucket/p?endpoint=https%3A%2F%2Fminio.example:9000%2F&region=eu-central-1&path_style=false"
      "&sse=aws:kms&sse_kms_key_id=arn:aws:kms:eu-central-1:1:key/4-5&storage_class=STANDARD_IA");
  EXPECT_EQ(url.endpoint, "https://minio.example:9000");
  EXPECT_EQ(url.region, "eu-central-1");
  EXPECT_EQ(url.style, S3Url::Style::kHost);
  EXPECT_EQ(url.sse, "aws:kms");
  EXPECT_EQ(url.sse_kms_key_id, "arn:aws:kms:eu-central-1:1:key/4-5");
  EXPECT_EQ(url.storage_class, "STANDARD_IA");
  EXPECT_EQ(Parsed("bucket?endpoint=http://[::1]:9000/s3/v1").endpoint, "http://[::1]:9000/s3/v1");
  EXPECT_EQ(Parsed("bucket?endpoint=http://[::1]").endpoint, "http://[::1]");
}

TEST(S3Url, RefusesWithTheReason) {
  struct Case {
    std::string rest;
    const char* says;
  };
  const Case cases[] = {
      {"", "no bucket"},
      {"/prefix", "no bucket"},
      {"?region=x", "no bucket"},
      {"ab/prefix", "not the name of a bucket"},
      {".bucket", "not the name of a bucket"},
      {"buck..et", "not the name of a bucket"},
      {"bucket:9000/x", "not the name of a bucket"},
      {"b\xc3\xbc"
       "cket",
       "not the name of a bucket"},
      {"logs--use1-az4--x-s3/p", "directory buckets"},
      {"bucket//a", "two slashes"},
      {"bucket/a//", "two slashes"},
      {"bucket/../a", "'..'"},
      {"bucket/a%2Fb", "encoded slash"},
      {"bucket/a#b", "%23"},
      {"bucket/a%0Ab", "control byte"},
      {"bucket/" + std::string(512, 'a'), "too long"},
      {"bucket?", "unknown option"},
      {"bucket?Region=x", "unknown option"},
      {"bucket?region=x&", "unknown option"},
      {"bucket?region", "no value"},
      {"bucket?region=", "no value"},
      {"bucket?region=%4", "two hex digits"},
      {"bucket?region=a/b", "no region's name"},
      {"bucket?region=a&region=a", "given twice"},
      {"bucket?path_style=1", "true or false"},
      {"bucket?endpoint=minio:9000", "https://"},
      {"bucket?endpoint=ftp://minio", "https://"},
      {"bucket?endpoint=http://", "no valid host"},
      {"bucket?endpoint=http://a b", "no valid host"},
      {"bucket?endpoint=http://a:b", "port"},
      {"bucket?endpoint=http://a:", "port"},
      {"bucket?endpoint=http://a//b", "path"},
      {"bucket?endpoint=http://a/b%20c", "path"},
      {"bucket?endpoint=http://a?x=y", "no valid host"},
      {"bucket?sse=AES128", "AES256"},
      {"bucket?sse_kms_key_id=x", "goes with sse=aws:kms"},
      {"bucket?sse=AES256&sse_kms_key_id=x", "goes with sse=aws:kms"},
      {"bucket?sse=aws:kms&sse_kms_key_id=a%0Ab", "no key id"},
      {"bucket?storage_class=a%0D%0Ab", "no storage class"},
      {"Bucket?path_style=false", "part of a host's"},
  };
  for (const Case& c : cases) {
    const auto url = ParseS3Url(c.rest);
    ASSERT_FALSE(url.ok()) << c.rest;
    EXPECT_EQ(url.status().tag(), Tag::kBadUrl);
    EXPECT_THAT(url.status().message(), HasSubstr(c.says)) << c.rest;
  }
}

TEST(S3Url, NeverRepeatsWhatMayBeASecret) {
  for (const char* rest : {"AKIA:hunter2@bucket/p", "bucket/p?secret_access_key=hunter2",
                           "bucket?hunter2", "bucket?endpoint=https://AKIA:hunter2@host",
                           "bucket?region=/hunter2", "bucket/a//b?endpoint=https://hunter2"}) {
    const auto url = ParseS3Url(rest);
    ASSERT_FALSE(url.ok()) << rest;
    EXPECT_THAT(url.status().message(), Not(HasSubstr("hunter2"))) << rest;
  }
}

TEST(S3Url, FindsTheRestInTheEnvironment) {
  EXPECT_EQ(Complete("bucket").region, "us-east-1");
  EXPECT_EQ(Complete("bucket", {{"AWS_DEFAULT_REGION", "b"}}).region, "b");
  EXPECT_EQ(Complete("bucket", {{"AWS_DEFAULT_REGION", "b"}, {"AWS_REGION", "a"}}).region, "a");
  EXPECT_EQ(Complete("bucket?region=c", {{"AWS_REGION", "a"}}).region, "c");
  EXPECT_EQ(Complete("bucket").endpoint, "");
  EXPECT_EQ(Complete("bucket", {{"AWS_ENDPOINT_URL", "http://b/"}}).endpoint, "http://b");
  EXPECT_EQ(
      Complete("bucket", {{"AWS_ENDPOINT_URL", "http://b"}, {"AWS_ENDPOINT_URL_S3", "http://a"}})
          .endpoint,
      "http://a");
  EXPECT_EQ(Complete("bucket?endpoint=http://c", {{"AWS_ENDPOINT_URL_S3", "http://a"}}).endpoint,
            "http://c");
  const auto bad =
      CompleteS3Url(Parsed("bucket"), MapEnvironment({{"AWS_ENDPOINT_URL_S3", "minio"}}));
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().tag(), Tag::kBadUrl);
  EXPECT_THAT(bad.status().message(), HasSubstr("AWS_ENDPOINT_URL_S3 must begin with https://"));
  EXPECT_FALSE(CompleteS3Url(Parsed("bucket"), MapEnvironment({{"AWS_REGION", "a b"}})).ok());
}

TEST(S3Url, FindsTheRegionOfTheProfile) {
  const TempDir home;
  const std::string config = home.File("config");
  ASSERT_TRUE(ReplaceFile(config,
                          "[default]\nregion = eu-west-1\n"
                          "[profile dev]\nregion = eu-west-2\n"
                          "[profile odd]\nregion = eu west\n")
                  .ok());
  const std::map<std::string, std::string> shared = {{"AWS_CONFIG_FILE", config}};
  const auto with = [&](std::map<std::string, std::string> more) {
    more.insert(shared.begin(), shared.end());
    return more;
  };
  EXPECT_EQ(Complete("bucket", shared).region, "eu-west-1");
  EXPECT_EQ(Complete("bucket", with({{"AWS_PROFILE", "dev"}})).region, "eu-west-2");
  EXPECT_EQ(Complete("bucket", with({{"AWS_DEFAULT_REGION", "a"}})).region, "a");
  EXPECT_EQ(Complete("bucket?region=b", shared).region, "b");
  const auto odd = MapEnvironment(with({{"AWS_PROFILE", "odd"}}));
  EXPECT_EQ(CompleteS3Url(Parsed("bucket"), odd).status().tag(), Tag::kBadUrl);
}

TEST(S3Url, SaysWhereRequestsGo) {
  struct Case {
    const char* rest;
    const char* base;
  };
  const Case cases[] = {
      {"bucket", "https://bucket.s3.us-east-1.amazonaws.com"},
      {"bucket?region=cn-north-1", "https://bucket.s3.cn-north-1.amazonaws.com.cn"},
      {"my.bucket", "https://s3.us-east-1.amazonaws.com/my.bucket"},
      {"Old_Bucket", "https://s3.us-east-1.amazonaws.com/Old_Bucket"},
      {"bucket?path_style=true", "https://s3.us-east-1.amazonaws.com/bucket"},
      {"bucket?endpoint=http://host:9000", "http://host:9000/bucket"},
      {"bucket?endpoint=http://host/s3", "http://host/s3/bucket"},
      {"bucket?endpoint=https://host:9000&path_style=false", "https://bucket.host:9000"},
  };
  for (const Case& c : cases) {
    const S3Url url = Complete(c.rest);
    EXPECT_EQ(S3BaseUrl(url, url.region), c.base);
  }
  EXPECT_EQ(S3BaseUrl(Complete("bucket"), "eu-west-1"),
            "https://bucket.s3.eu-west-1.amazonaws.com");
}

TEST(S3Url, KnowsAws) {
  EXPECT_TRUE(IsAws(Complete("bucket")));
  EXPECT_TRUE(
      IsAws(Complete("bucket?endpoint=https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com")));
  EXPECT_TRUE(IsAws(Complete("bucket?endpoint=https://s3.cn-north-1.amazonaws.com.cn:443/x")));
  EXPECT_FALSE(IsAws(Complete("bucket?endpoint=http://s3.amazonaws.com")));
  EXPECT_FALSE(IsAws(Complete("bucket?endpoint=https://s3.amazonaws.com.example.org")));
  EXPECT_FALSE(IsAws(Complete("bucket?endpoint=https://localhost/.amazonaws.com")));
}

TEST(S3Url, OnePlaceHasOneNameHoweverItIsSpelled) {
  const auto place = [](std::string_view rest) { return S3Place(Complete(rest)); };
  const std::string b = place("bucket/a/b?endpoint=https://s3.example.com");
  EXPECT_EQ(place("bucket/a/b/?endpoint=https://s3.example.com"), b);
  EXPECT_EQ(place("bucket/a/%62?endpoint=https://s3.example.com/"), b);
  EXPECT_EQ(place("bucket/a/b?endpoint=https://S3.Example.COM:443&path_style=false"), b);
  EXPECT_EQ(place("bucket/a/b?endpoint=https://s3.example.com&region=eu-1&sse=AES256"), b);
  EXPECT_NE(place("bucket/a/b?endpoint=http://s3.example.com"), b);
  EXPECT_NE(place("bucket/a/b?endpoint=https://s3.example.com:8443"), b);
  EXPECT_NE(place("bucket/a?endpoint=https://s3.example.com"), b);
  EXPECT_NE(place("bucket/a/b?endpoint=https://s3.example.com/below"), b);
  EXPECT_NE(place("other/a/b?endpoint=https://s3.example.com"), b);
  EXPECT_NE(place("bucket/a/b"), b);
  EXPECT_EQ(place("bucket/a/b?endpoint=http://localhost:80"),
            place("bucket/a/b?endpoint=http://localhost"));
  EXPECT_EQ(place("bucket/a/b?region=eu-central-1"), place("bucket/a/b"));
  EXPECT_EQ(place("bucket/a/b?endpoint=https://s3.eu-central-1.amazonaws.com"),
            place("bucket/a/b"));
}

}  // namespace
}  // namespace guildlite
