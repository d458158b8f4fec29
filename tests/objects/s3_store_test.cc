// What the S3 store sends, and what it makes of each answer. That a store so driven keeps the
// claims of every ObjectStore is tests/conformance/s3_store_test.cc's.
#include "vfs/objects/s3_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/memory_s3.h"
#include "tests/support/scripted_http.h"
#include "tests/support/sim_clock.h"

namespace guildlite {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Reply = TestHttpServer::Reply;
using Request = TestHttpServer::Request;

constexpr int64_t kNowMs = 1'700'000'000'000;  // Tue, 14 Nov 2023 22:13:20 GMT

std::string List(const std::string& fields) {
  return "<ListBucketResult>" + fields + "</ListBucketResult>";
}
std::string Entry(const std::string& key) {
  return "<Contents><Key>" + key + "</Key><Size>1</Size></Contents>";
}

class S3StoreTest : public ::testing::Test {
 protected:
  void Open(const char* rest) {
    auto url = ParseS3Url(rest);
    ASSERT_TRUE(url.ok()) << url.status().ToString();
    if (url->region.empty()) url->region = "us-east-1";
    store_ = std::make_unique<S3Store>(*url, http_, credentials_, clock_);
  }
  void SetUp() override { Open("bucket/pre?endpoint=https://server:9000"); }

  // Answers to come, in order; the last one stays.
  void AnswerInTurn(std::vector<Reply> replies) { replies_ = {replies.begin(), replies.end()}; }
  void Answer(Reply reply) { AnswerInTurn({std::move(reply)}); }
  const Request& sent(size_t i = 0) { return requests_.at(i); }

  Status Put(const PutCondition& condition = PutCondition::Overwrite()) {
    requests_.clear();
    return store_->Put("log/1", "bytes", condition).status();
  }
  Status Get(std::optional<ByteRange> range = std::nullopt) {
    requests_.clear();
    return store_->Get("log/1", range).status();
  }

  SimClock clock_{kNowMs};
  std::deque<Reply> replies_;
  std::vector<Request> requests_;
  DirectHttp http_{[this](const Request& request) {
    requests_.push_back(request);
    Reply reply = replies_.at(0);
    if (replies_.size() > 1) replies_.pop_front();
    return reply;
  }};
  std::string key_id_ = "AKIATEST";
  CredentialsProvider credentials_{[this](const std::string& name) -> std::optional<std::string> {
                                     if (name == "AWS_ACCESS_KEY_ID") return key_id_;
                                     if (name == "AWS_SECRET_ACCESS_KEY") return "topsecret";
                                     if (name == "AWS_SESSION_TOKEN") return "topsession";
                                     return std::nullopt;
                                   },
                                   http_, clock_};
  std::unique_ptr<S3Store> store_;
};

TEST_F(S3StoreTest, PutsWithConditionsAndChecksum) {
  Answer({.headers = {{"ETag", "\"v1\""}}});
  auto put = store_->Put("log/1", "bytes", PutCondition::Create());
  ASSERT_TRUE(put.ok()) << put.status().ToString();
  EXPECT_EQ(*put, "\"v1\"");
  EXPECT_EQ(sent().method, "PUT");
  EXPECT_EQ(sent().target, "/bucket/pre/log/1");
  EXPECT_EQ(sent().body, "bytes");
  EXPECT_EQ(sent().Header("if-none-match"), "*");
  EXPECT_EQ(sent().Header("if-match"), "");
  // printf bytes | openssl dgst -sha256 -binary | base64, and in hex
  EXPECT_EQ(sent().Header("x-amz-checksum-sha256"), "J3CJ2RwL308uaGK6fkoHYFEZQx9dE/cm3TUrBvGyBqk=");
  EXPECT_EQ(sent().Header("x-amz-content-sha256"),
            "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9");
  EXPECT_EQ(sent().Header("x-amz-date"), "20231114T221320Z");
  EXPECT_THAT(std::string(sent().Header("authorization")),
              AllOf(HasSubstr("AKIATEST/20231114/us-east-1/s3/aws4_request"),
                    HasSubstr("if-none-match"), HasSubstr("x-amz-checksum-sha256")));

  ASSERT_TRUE(store_->Put("k", "", PutCondition::Match("\"v1\"")).ok());
  EXPECT_EQ(sent(1).Header("if-match"), "\"v1\"");
  EXPECT_EQ(sent(1).Header("if-none-match"), "");
  store_->UseBareEtags();
  ASSERT_TRUE(store_->Put("k", "", PutCondition::Match("\"v1\"")).ok());
  EXPECT_EQ(sent(2).Header("if-match"), "v1");
  ASSERT_TRUE(store_->Put("k", "", PutCondition::Overwrite()).ok());
  EXPECT_EQ(sent(3).Header("if-match"), "");
  EXPECT_EQ(sent(3).Header("if-none-match"), "");

  EXPECT_EQ(store_->Put("k", "", PutCondition::Match("")).status().tag(), Tag::kPrecondition);
  EXPECT_EQ(requests_.size(), 4u) << "an empty If-Match means something else to some stores";
}

TEST_F(S3StoreTest, SendsWhatTheUrlAsksFor) {
  Answer({.headers = {{"ETag", "\"v1\""}}});
  Open(
      "my-bucket/%C3%BC%20+?region=eu-west-1&sse=aws:kms&sse_kms_key_id=alias/k"
      "&storage_class=STANDARD_IA");
  ASSERT_TRUE(Put().ok());
  EXPECT_EQ(sent().Header("host"), "my-bucket.s3.eu-west-1.amazonaws.com");
  EXPECT_EQ(sent().target, "/%C3%BC%20%2B/log/1");
  EXPECT_EQ(sent().Header("x-amz-server-side-encryption"), "aws:kms");
  EXPECT_EQ(sent().Header("x-amz-server-side-encryption-aws-kms-key-id"), "alias/k");
  EXPECT_EQ(sent().Header("x-amz-storage-class"), "STANDARD_IA");
  ASSERT_TRUE(Get().ok());
  EXPECT_EQ(sent().Header("x-amz-server-side-encryption"), "");
  Open("bucket");
  ASSERT_TRUE(Put().ok());
  EXPECT_EQ(sent().target, "/log/1");
  EXPECT_EQ(sent().Header("x-amz-storage-class"), "");
  EXPECT_EQ(store_->Describe(), "s3://bucket");
}

TEST_F(S3StoreTest, MakesOfEachAnswerToAPutWhatItMeans) {
  struct Case {
    int status;
    const char* code;
    PutCondition condition;
    Tag tag;
    bool retryable;
  };
  const PutCondition create = PutCondition::Create(), match = PutCondition::Match("\"v\"");
  const Case cases[] = {
      {412, "PreconditionFailed", create, Tag::kAlreadyExists, false},
      {412, "PreconditionFailed", match, Tag::kPrecondition, false},
      {404, "NoSuchKey", match, Tag::kPrecondition, false},
      {404, "NoSuchKey", create, Tag::kStoreUnreachable, false},
      {404, "NoSuchBucket", match, Tag::kNoBucket, false},
      {404, "", match, Tag::kStoreUnreachable, false},
      {409, "ConditionalRequestConflict", create, Tag::kStoreThrottled, true},
      {409, "OperationAborted", match, Tag::kStoreThrottled, true},
      {429, "", create, Tag::kStoreThrottled, true},
      {503, "SlowDown", create, Tag::kStoreThrottled, true},
      {503, "ServiceUnavailable", create, Tag::kOutcomeUnknown, true},
      {503, "", create, Tag::kOutcomeUnknown, true},
      {500, "InternalError", match, Tag::kOutcomeUnknown, true},
      {502, "", create, Tag::kOutcomeUnknown, true},
      {504, "", create, Tag::kOutcomeUnknown, true},
      {501, "NotImplemented", create, Tag::kStoreUnsafe, false},
      {507, "", create, Tag::kDiskFull, false},
      {403, "QuotaExceeded", create, Tag::kDiskFull, false},
      {403, "AccessDenied", create, Tag::kStoreDenied, false},
      {403, "SignatureDoesNotMatch", create, Tag::kStoreDenied, false},
      {401, "", create, Tag::kStoreDenied, false},
      {400, "InvalidToken", create, Tag::kStoreDenied, false},
      {400, "BadDigest", create, Tag::kStoreUnreachable, true},
      {400, "IncompleteBody", create, Tag::kStoreUnreachable, true},
      {400, "RequestTimeout", create, Tag::kStoreUnreachable, true},
      {400, "InvalidArgument", create, Tag::kStoreUnreachable, false},
      {301, "PermanentRedirect", create, Tag::kBadUrl, false},
      {405, "MethodNotAllowed", create, Tag::kStoreUnreachable, false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::to_string(c.status) + " " + c.code);
    Answer(*c.code ? MemoryS3::Error(c.status, c.code) : Reply{.status = c.status});
    const Status status = Put(c.condition);
    EXPECT_EQ(status.tag(), c.tag) << status.ToString();
    EXPECT_EQ(status.retryable(), c.retryable);
    EXPECT_THAT(status.message(), HasSubstr("put s3://bucket/pre/log/1: "));
  }
}

TEST_F(S3StoreTest, MakesOfEachAnswerToAGetWhatItMeans) {
  struct Case {
    int status;
    const char* code;
    Tag tag;
    bool retryable;
  };
  const Case cases[] = {
      {404, "NoSuchKey", Tag::kNotFound, false},
      {404, "NoSuchBucket", Tag::kNoBucket, false},
      {404, "", Tag::kStoreUnreachable, false},
      {404, "NotFound", Tag::kStoreUnreachable, false},
      {403, "AccessDenied", Tag::kStoreDenied, false},
      {403, "InvalidObjectState", Tag::kStoreDenied, false},
      {500, "InternalError", Tag::kStoreUnreachable, true},
      {503, "SlowDown", Tag::kStoreThrottled, true},
      {503, "", Tag::kStoreUnreachable, true},
      {412, "PreconditionFailed", Tag::kStoreUnreachable, false},
      {304, "", Tag::kBadUrl, false},
      {204, "", Tag::kStoreUnreachable, false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::to_string(c.status) + " " + c.code);
    Answer(*c.code ? MemoryS3::Error(c.status, c.code) : Reply{.status = c.status});
    const Status got = Get();
    EXPECT_EQ(got.tag(), c.tag) << got.ToString();
    EXPECT_EQ(got.retryable(), c.retryable);
    const auto listed = store_->List("log/", "", 1);
    EXPECT_EQ(listed.status().tag(), c.tag == Tag::kNotFound ? Tag::kStoreUnreachable : c.tag);
    const Status deleted = store_->Delete("log/1");
    const bool gone = c.tag == Tag::kNotFound || c.status == 204;
    EXPECT_EQ(deleted.tag(), gone ? Tag::kOk : c.tag);
  }
}

TEST_F(S3StoreTest, SaysWhatWasDoneToWhatAndWhatToDo) {
  Answer(MemoryS3::Error(403, "AccessDenied"));
  EXPECT_THAT(Get().message(),
              AllOf(HasSubstr("get s3://bucket/pre/log/1"), HasSubstr("403 AccessDenied"),
                    HasSubstr("request 4442587FB7D0A2F9"), HasSubstr("said in a test"),
                    HasSubstr("s3:ListBucket")));
  EXPECT_THAT(Put().message(), AllOf(HasSubstr("README.md"), Not(HasSubstr("ListBucket"))));
  Answer(MemoryS3::Error(403, "SignatureDoesNotMatch"));
  EXPECT_THAT(Put().message(), HasSubstr("secret key"));
  Answer(MemoryS3::Error(403, "InvalidAccessKeyId"));
  EXPECT_THAT(Put().message(), HasSubstr("does not know the access key"));
  Answer({.status = 403, .body = "<html>blocked</html>"});
  EXPECT_THAT(Put().message(), HasSubstr("not S3's words"));
  Answer({.status = 404, .body = "404 page not found"});
  EXPECT_THAT(Get().message(), HasSubstr("is the endpoint an S3 server?"));
  Answer(MemoryS3::Error(404, "NoSuchBucket"));
  EXPECT_THAT(Get().message(), HasSubstr("create the bucket"));
}

TEST_F(S3StoreTest, NeverRepeatsASecret) {
  for (const int status : {301, 400, 403, 404, 409, 412, 500, 503}) {
    for (const char* code : {"AccessDenied", "SignatureDoesNotMatch", "NoSuchKey", ""}) {
      Answer(*code ? MemoryS3::Error(status, code) : Reply{.status = status});
      for (const Status& s : {Put(PutCondition::Create()), Get(), store_->Delete("k")}) {
        EXPECT_THAT(s.message(), AllOf(Not(HasSubstr("topsecret")), Not(HasSubstr("topsession")),
                                       Not(HasSubstr("Signature="))));
      }
    }
  }
}

TEST_F(S3StoreTest, AsksInTheBucketsRegionOnceItKnowsIt) {
  struct Case {
    const char* url;
    Reply reply;
    const char* host;
  };
  Reply moved = MemoryS3::Error(301, "PermanentRedirect");
  moved.headers.emplace_back("x-amz-bucket-region", "eu-central-1");
  Reply soon = {.status = 307, .headers = {{"x-amz-bucket-region", "eu-central-1"}}};
  const Case cases[] = {
      {"bucket", moved, "bucket.s3.eu-central-1.amazonaws.com"},
      {"bucket", soon, "bucket.s3.eu-central-1.amazonaws.com"},
      {"bucket",
       MemoryS3::Error(400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"),
       "bucket.s3.eu-central-1.amazonaws.com"},
      {"bucket?endpoint=https://garage",
       MemoryS3::Error(400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"),
       "garage"},
  };
  for (const Case& c : cases) {
    Open(c.url);
    AnswerInTurn({c.reply, {.headers = {{"ETag", "\"v\""}}}});
    ASSERT_TRUE(Put(PutCondition::Create()).ok());
    ASSERT_EQ(requests_.size(), 2u);
    EXPECT_EQ(sent(1).Header("host"), c.host);
    EXPECT_THAT(std::string(sent(1).Header("authorization")), HasSubstr("/eu-central-1/s3/"));
    EXPECT_EQ(sent(1).Header("if-none-match"), "*");
    ASSERT_TRUE(Put().ok());
    EXPECT_EQ(requests_.size(), 1u) << "it was forgotten";
  }
}

TEST_F(S3StoreTest, FollowsNobodyInACircleOrToAStrangeHost) {
  Open("bucket");
  Reply moved = MemoryS3::Error(301, "PermanentRedirect");
  moved.headers.emplace_back("x-amz-bucket-region", "eu-central-1");
  Answer(moved);
  EXPECT_EQ(Put().tag(), Tag::kBadUrl);
  EXPECT_EQ(requests_.size(), 2u);
  for (const char* region : {"evil.example.org/", "a b", "", "EU"}) {
    Open("bucket");
    Answer(MemoryS3::Error(400, "AuthorizationHeaderMalformed",
                           "<Region>" + std::string(region) + "</Region>"));
    const Status status = Put();
    EXPECT_EQ(status.tag(), Tag::kStoreDenied);
    EXPECT_THAT(status.message(), HasSubstr("region="));
    EXPECT_EQ(requests_.size(), 1u);
  }
}

TEST_F(S3StoreTest, TakesTheStoresTime) {
  Reply skewed = MemoryS3::Error(403, "RequestTimeTooSkewed");
  skewed.headers.emplace_back("Date", "Thu, 29 Feb 2024 12:00:01 GMT");
  AnswerInTurn({skewed, {.headers = {{"ETag", "\"v\""}}}});
  ASSERT_TRUE(Put(PutCondition::Create()).ok());
  ASSERT_EQ(requests_.size(), 2u);
  EXPECT_EQ(sent(0).Header("x-amz-date"), "20231114T221320Z");
  EXPECT_EQ(sent(1).Header("x-amz-date"), "20240229T120001Z");
  clock_.Advance(1000);
  ASSERT_TRUE(Put().ok());
  EXPECT_EQ(sent(0).Header("x-amz-date"), "20240229T120002Z");
  EXPECT_EQ(requests_.size(), 1u);

  // Our clock is set right meanwhile.
  clock_.JumpWall(1'709'208'001'000 - kNowMs);
  AnswerInTurn({skewed, {.headers = {{"ETag", "\"v\""}}}});
  ASSERT_TRUE(Put().ok());
  EXPECT_EQ(requests_.size(), 2u);
}

TEST_F(S3StoreTest, TakesNoTimeThatIsNone) {
  for (const char* date : {"", "Thu, 30 Feb 2024 12:00:01 GMT", "Thu, 29 Feb 2024 25:00:01 GMT",
                           "Thu, 29 Fev 2024 12:00:01 GMT", "Thursday, 29-Feb-24 12:00:01 GMT",
                           "Thu, 29 Feb 2024 12:00:01 CET", "Thu, 29 Feb 2024 1a:00:01 GMT"}) {
    Reply skewed = MemoryS3::Error(403, "RequestTimeTooSkewed");
    skewed.headers.emplace_back("Date", date);
    Answer(skewed);
    const Status status = Put();
    EXPECT_EQ(status.tag(), Tag::kStoreDenied) << date;
    EXPECT_THAT(status.message(), HasSubstr("clock"));
    EXPECT_EQ(requests_.size(), 1u) << date;
  }
  // The store says that we are wrong, and that we are right.
  Reply confused = MemoryS3::Error(403, "RequestTimeTooSkewed");
  confused.headers.emplace_back("Date", "Tue, 14 Nov 2023 22:13:25 GMT");
  Answer(confused);
  EXPECT_EQ(Put().tag(), Tag::kStoreDenied);
  EXPECT_EQ(requests_.size(), 1u);
}

TEST_F(S3StoreTest, AsksOnceForNewCredentialsWhenTheOldOnesEnded) {
  AnswerInTurn({{.headers = {{"ETag", "\"v\""}}}});
  ASSERT_TRUE(Put().ok());
  clock_.Advance(60000);
  key_id_ = "AKIANEXT";
  AnswerInTurn({MemoryS3::Error(400, "ExpiredToken"), {.headers = {{"ETag", "\"v\""}}}});
  ASSERT_TRUE(Put(PutCondition::Create()).ok());
  ASSERT_EQ(requests_.size(), 2u);
  EXPECT_THAT(std::string(sent(0).Header("authorization")), HasSubstr("AKIATEST/"));
  EXPECT_THAT(std::string(sent(1).Header("authorization")), HasSubstr("AKIANEXT/"));
  Answer(MemoryS3::Error(400, "ExpiredToken"));
  const Status status = Put();
  EXPECT_EQ(status.tag(), Tag::kStoreDenied);
  EXPECT_THAT(status.message(), HasSubstr("the credentials have ended"));
  EXPECT_EQ(requests_.size(), 2u);
}

TEST_F(S3StoreTest, HasAnUnknownOutcomeOnlyOfPuts) {
  Answer({.close_before_answering = true});
  const Status put = Put(PutCondition::Create());
  EXPECT_EQ(put.tag(), Tag::kOutcomeUnknown);
  EXPECT_TRUE(put.retryable());
  EXPECT_EQ(requests_.size(), 1u) << "it was repeated blindly";
  for (const Status& s : {Get(), store_->Delete("k"), store_->List("", "", 1).status()}) {
    EXPECT_EQ(s.tag(), Tag::kStoreUnreachable);
    EXPECT_TRUE(s.retryable());
  }
}

TEST_F(S3StoreTest, RefusesAPutWithoutAnETag) {
  Answer(Reply{});
  EXPECT_EQ(Put().tag(), Tag::kStoreUnsafe);
}

TEST_F(S3StoreTest, ReturnsNoBodyThatIsNotWhole) {
  // printf bytes | openssl dgst -sha256 -binary | base64
  const std::string sha256 = "J3CJ2RwL308uaGK6fkoHYFEZQx9dE/cm3TUrBvGyBqk=";
  struct Case {
    const char* what;
    Reply reply;
    std::optional<ByteRange> range;
    bool good;
  };
  const ByteRange range{1, 3};
  const Case cases[] = {
      {"no checksum", {.body = "bytes"}, {}, true},
      {"right checksum",
       {.headers = {{"x-amz-checksum-sha256", sha256}}, .body = "bytes"},
       {},
       true},
      {"wrong checksum",
       {.headers = {{"x-amz-checksum-sha256", sha256}}, .body = "bytez"},
       {},
       false},
      {"checksum of parts",
       {.headers = {{"x-amz-checksum-sha256", sha256 + "-2"}}, .body = "x"},
       {},
       true},
      {"range",
       {.status = 206, .headers = {{"Content-Range", "bytes 1-3/5"}}, .body = "yte"},
       range,
       true},
      {"range to the end",
       {.status = 206, .headers = {{"Content-Range", "bytes 1-2/3"}}, .body = "yt"},
       range,
       true},
      {"range without its header", {.status = 206, .body = "yte"}, range, false},
      {"another range",
       {.status = 206, .headers = {{"Content-Range", "bytes 0-2/5"}}, .body = "byt"},
       range,
       false},
      {"shorter range",
       {.status = 206, .headers = {{"Content-Range", "bytes 1-2/5"}}, .body = "yt"},
       range,
       false},
      {"shorter body",
       {.status = 206, .headers = {{"Content-Range", "bytes 1-3/5"}}, .body = "yt"},
       range,
       false},
      {"range of nothing",
       {.status = 206, .headers = {{"Content-Range", "bytes */5"}}, .body = "yte"},
       range,
       false},
      {"no such range",
       {.status = 206, .headers = {{"Content-Range", "bytes 3-1/5"}}, .body = "yte"},
       range,
       false},
      {"unasked range",
       {.status = 206, .headers = {{"Content-Range", "bytes 0-4/5"}}, .body = "bytes"},
       {},
       false},
      {"beyond the end", {.status = 416, .headers = {{"Content-Range", "bytes */1"}}}, range, true},
      {"beyond which end", {.status = 416}, range, false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    Answer(c.reply);
    const Status status = Get(c.range);
    if (c.good) {
      EXPECT_TRUE(status.ok()) << status.ToString();
    } else {
      EXPECT_EQ(status.tag(), Tag::kStoreUnreachable);
      EXPECT_TRUE(status.retryable());
    }
  }
}

TEST_F(S3StoreTest, BelievesNoBodyLongerOrShorterThanAnnounced) {
  ScriptedHttp http([](const HttpRequest&) {
    return HttpResponse{200, {{"content-length", "6"}}, "bytes"};
  });
  S3Store store(*ParseS3Url("bucket?region=us-east-1"), http, credentials_, clock_);
  EXPECT_EQ(store.Get("k").status().tag(), Tag::kStoreUnreachable);
}

TEST_F(S3StoreTest, ListsPageByPage) {
  AnswerInTurn({{.body = List("<IsTruncated>true</IsTruncated><NextContinuationToken>t+/=1"
                              "</NextContinuationToken>" +
                              Entry("pre/") + Entry("pre/a b") + Entry("pre/log/2"))},
                {.body = List("<IsTruncated>true</IsTruncated><NextContinuationToken>t2"
                              "</NextContinuationToken>")},
                {.body = List("<IsTruncated>false</IsTruncated>" + Entry("pre/log/3"))}});
  const auto listed = store_->List("", "", 5000);
  ASSERT_TRUE(listed.ok()) << listed.status().ToString();
  ASSERT_EQ(listed->size(), 2u) << "what is no key of ours is others'";
  EXPECT_EQ((*listed)[0].key, "log/2");
  EXPECT_EQ((*listed)[1].key, "log/3");
  EXPECT_EQ(sent(0).target, "/bucket?list-type=2&max-keys=1000&prefix=pre%2F");
  EXPECT_EQ(sent(1).target,
            "/bucket?continuation-token=t%2B%2F%3D1&list-type=2&max-keys=1000&prefix=pre%2F");
  EXPECT_THAT(sent(2).target, HasSubstr("continuation-token=t2&"));

  requests_.clear();
  Answer({.body = List("<IsTruncated>false</IsTruncated>")});
  ASSERT_TRUE(store_->List("log/", "log/2", 7).ok());
  EXPECT_EQ(sent().target,
            "/bucket?list-type=2&max-keys=7&prefix=pre%2Flog%2F&start-after=pre%2Flog%2F2");
}

TEST_F(S3StoreTest, BelievesNoListingThatIsOutOfOrder) {
  for (const std::string& entries :
       {Entry("pre/log/3") + Entry("pre/log/2"), Entry("pre/log/2") + Entry("pre/log/2"),
        Entry("other/log/1"), Entry("pre/log/1")}) {
    Answer({.body = List("<IsTruncated>false</IsTruncated>" + entries)});
    EXPECT_EQ(store_->List("log/", "log/1", 10).status().tag(), Tag::kStoreUnreachable) << entries;
  }
  Answer({.body = List("<IsTruncated>true</IsTruncated><NextContinuationToken>again"
                       "</NextContinuationToken>")});
  EXPECT_EQ(store_->List("log/", "", 10).status().tag(), Tag::kStoreUnreachable) << "without end";
  Answer({.body = "<html>hello</html>"});
  EXPECT_EQ(store_->List("log/", "", 10).status().tag(), Tag::kStoreUnreachable);
}

TEST_F(S3StoreTest, GivesLargeBodiesMoreTime) {
  ScriptedHttp http([](const HttpRequest&) { return HttpResponse{200, {{"etag", "\"v\""}}, ""}; });
  S3Store store(*ParseS3Url("bucket?region=us-east-1"), http, credentials_, clock_);
  ASSERT_TRUE(store.Put("k", "", PutCondition::Create()).ok());
  ASSERT_TRUE(store.Put("k", std::string(16 << 20, 'x'), PutCondition::Create()).ok());
  ASSERT_TRUE(store.Get("k", ByteRange{0, 1}).ok());
  ASSERT_TRUE(store.Get("k").ok());
  std::vector<int64_t> timeouts;
  for (const auto& sent : http.sent()) timeouts.push_back(sent.timeout_ms);
  EXPECT_THAT(timeouts, ElementsAre(10000, 10000 + 65536, 10000, 10000 + 65536));
}

// ---- Deleting many -----------------------------------------------------------------------------

std::vector<std::string> ManyKeys(size_t n) {
  std::vector<std::string> keys;
  for (size_t i = 0; i < n; ++i) keys.push_back("log/" + std::to_string(i));
  return keys;
}

TEST_F(S3StoreTest, ManyAreDeletedAThousandARequest) {
  Answer({.body = "<DeleteResult/>"});
  EXPECT_TRUE(store_->DeleteAll(ManyKeys(1001)).ok());
  ASSERT_EQ(requests_.size(), 2u);
  EXPECT_EQ(sent(0).method, "POST");
  EXPECT_EQ(sent(0).target, "/bucket?delete=");
  EXPECT_THAT(sent(0).body, AllOf(HasSubstr("<Quiet>true</Quiet><Object><Key>pre/log/0</Key>"),
                                  HasSubstr("pre/log/999"), Not(HasSubstr("pre/log/1000"))));
  EXPECT_THAT(sent(1).body, HasSubstr("<Key>pre/log/1000</Key>"));
  EXPECT_NE(sent(0).Header("x-amz-checksum-sha256"), "");
}

TEST_F(S3StoreTest, WhatAStoreDidNotDeleteIsAnError) {
  const auto error = [](const std::string& code) {
    return Reply{.body = "<DeleteResult><Error><Key>pre/log/1</Key><Code>" + code +
                         "</Code></Error></DeleteResult>"};
  };
  Answer(error("AccessDenied"));
  Status s = store_->DeleteAll(ManyKeys(2));
  EXPECT_EQ(s.tag(), Tag::kStoreDenied);
  EXPECT_THAT(s.message(), HasSubstr("pre/log/1"));
  Answer(error("InternalError"));
  s = store_->DeleteAll(ManyKeys(2));
  EXPECT_EQ(s.tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(s.retryable());
  Answer(error("SlowDown"));
  EXPECT_EQ(store_->DeleteAll(ManyKeys(2)).tag(), Tag::kStoreThrottled);
  Answer(error("NoSuchKey"));
  EXPECT_TRUE(store_->DeleteAll(ManyKeys(2)).ok());
  for (const char* body : {"", "<html/>", "<DeleteResult>"}) {
    Answer({.body = body});
    EXPECT_FALSE(store_->DeleteAll(ManyKeys(2)).ok()) << body;
  }
}

TEST_F(S3StoreTest, AStoreThatKnowsNoSuchRequestIsAskedForEachKey) {
  for (const char* code : {"NotImplemented", "MethodNotAllowed", "MissingContentMD5"}) {
    Open("bucket/pre?endpoint=https://server:9000");
    requests_.clear();
    AnswerInTurn({MemoryS3::Error(400, code), {.status = 204}});
    EXPECT_TRUE(store_->DeleteAll(ManyKeys(3)).ok()) << code;
    EXPECT_EQ(requests_.size(), 4u) << code;
    EXPECT_EQ(sent(1).method, "DELETE");
    EXPECT_TRUE(store_->DeleteAll(ManyKeys(3)).ok());
    EXPECT_EQ(requests_.size(), 7u) << "not asked again";
  }
}

}  // namespace
}  // namespace guildlite
