#include "vfs/objects/s3_xml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace guildlite {
namespace {

using ::testing::HasSubstr;

TEST(S3Xml, ReadsAnError) {
  const S3Error error = ParseS3Error(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The region &apos;us-east-1&apos; "
      "is "
      "wrong; expecting\n'eu-west-1'</Message><Region>eu-west-1</Region>"
      "<RequestId>4442587FB7D0A2F9</RequestId><HostId>x</HostId></Error>");
  EXPECT_EQ(error.code, "AuthorizationHeaderMalformed");
  EXPECT_EQ(error.message, "The region 'us-east-1' is wrong; expecting 'eu-west-1'");
  EXPECT_EQ(error.region, "eu-west-1");
  EXPECT_EQ(error.request_id, "4442587FB7D0A2F9");
  EXPECT_EQ(error.object_size, std::nullopt);
  EXPECT_EQ(ParseS3Error("<Error><Code>InvalidRange</Code><ActualObjectSize>10</ActualObjectSize>"
                         "</Error>")
                .object_size,
            10u);
  EXPECT_EQ(ParseS3Error("<ErrorResponse xmlns=\"urn:x\"><Error><Code>SlowDown</Code></Error>"
                         "</ErrorResponse>")
                .code,
            "SlowDown");
}

TEST(S3Xml, TakesNothingElseForAnErrorOfS3) {
  for (const char* body :
       {"", "404 page not found", "<html><body>Not Found</body></html>", "<Error></Error>",
        "<Error><Code>NoSuchKey</Code>", "{\"Code\":\"NoSuchKey\"}", "<Code>NoSuchKey</Code>"}) {
    EXPECT_EQ(ParseS3Error(body).code, "") << body;
  }
  EXPECT_LE(ParseS3Error("<Error><Code>X</Code><Message>" + std::string(100000, 'a') +
                         "</Message></Error>")
                .message.size(),
            300u);
}

TEST(S3Xml, ReadsAListing) {
  const auto page = ParseS3List(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name>"
      "<Prefix>p/</Prefix><KeyCount>2</KeyCount><MaxKeys>2</MaxKeys><IsTruncated>true</IsTruncated>"
      "<NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>"
      "<Contents><Key>p/a &amp; b</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>"
      "<ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag><Size>434234</Size></Contents>"
      "<Contents><Key>p/c%20+</Key><Size>0</Size></Contents></ListBucketResult>");
  ASSERT_TRUE(page.ok()) << page.status().ToString();
  ASSERT_EQ(page->entries.size(), 2u);
  EXPECT_EQ(page->entries[0].key, "p/a & b");
  EXPECT_EQ(page->entries[0].size, 434234u);
  EXPECT_EQ(page->entries[1].key, "p/c%20+");
  EXPECT_EQ(page->next, "1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=");
  const auto last = ParseS3List(
      "<ListBucketResult><IsTruncated>false</IsTruncated>"
      "<NextContinuationToken>x</NextContinuationToken>"
      "</ListBucketResult>");
  ASSERT_TRUE(last.ok());
  EXPECT_EQ(last->next, "");
  EXPECT_TRUE(last->entries.empty());
}

TEST(S3Xml, RefusesAListingThatLacksSomething) {
  const char* const bodies[] = {
      "<ListBucketResult><IsTruncated>false</IsTruncated>",
      "<ListBucketResult><Contents><Key>k</Key><Size>1</Size></Contents></ListBucketResult>",
      "<ListBucketResult><IsTruncated>maybe</IsTruncated></ListBucketResult>",
      "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
      "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Size>1</Size></Contents>"
      "</ListBucketResult>",
      "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>k</Key><Size>-1</Size>"
      "</Contents></ListBucketResult>",
      "<ListAllMyBucketsResult/>",
      "<html>",
      "",
  };
  for (const char* body : bodies) {
    const auto page = ParseS3List(body);
    ASSERT_FALSE(page.ok()) << body;
    EXPECT_EQ(page.status().tag(), Tag::kStoreUnreachable);
    EXPECT_THAT(page.status().message(), HasSubstr("no listing of S3's"));
  }
}

TEST(S3Xml, SurvivesDepth) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "<a>";
  EXPECT_EQ(ParseS3Error(deep).code, "");
  for (int i = 0; i < 100000; ++i) deep += "</a>";
  EXPECT_EQ(ParseS3Error(deep).code, "");
  EXPECT_FALSE(ParseS3List(deep).ok());
}

}  // namespace
}  // namespace guildlite
