// Expected values: the examples of S3's API reference (sig-v4-header-based-auth), and those of
// AWS's signing test suite (awslabs/aws-c-auth, tests/aws-signing-test-suite/v4) whose paths are
// not normalized, which S3 never does.
#include "vfs/objects/sigv4.h"

#include <gtest/gtest.h>

#include <string>

namespace guildlite {
namespace {

constexpr int64_t kMay2013 = 1369353600000;     // 2013-05-24T00:00:00Z
constexpr int64_t kAugust2015 = 1440938160000;  // 2015-08-30T12:36:00Z

std::string Added(const Signature& signature, const std::string& name) {
  for (const auto& [key, value] : signature.headers) {
    if (key == name) return value;
  }
  return "(none)";
}

// The signature alone, from the Authorization header.
std::string Hex(const Signature& signature) {
  const std::string authorization = Added(signature, "Authorization");
  return authorization.substr(authorization.rfind('=') + 1);
}

Signature S3Example(const HttpRequest& request, std::string_view payload_sha256 = kEmptySha256) {
  return Sign(request, payload_sha256,
              {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""},
              {"us-east-1", "s3"}, kMay2013);
}

Signature SuiteCase(const std::string& method, const std::string& target,
                    const HttpHeaders& headers = {}, const std::string& token = "") {
  HttpRequest request;
  request.method = method;
  request.url = "https://example.amazonaws.com" + target;
  request.headers = headers;
  return Sign(request, kEmptySha256,
              {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token},
              {"us-east-1", "service"}, kAugust2015);
}

TEST(SigV4, SignsTheGetObjectOfTheReferenceStepByStep) {
  HttpRequest request;
  request.url = "https://examplebucket.s3.amazonaws.com/test.txt";
  request.headers = {{"Range", "bytes=0-9"}};
  const Signature signature = S3Example(request);
  EXPECT_EQ(signature.canonical_request,
            "GET\n"
            "/test.txt\n"
            "\n"
            "host:examplebucket.s3.amazonaws.com\n"
            "range:bytes=0-9\n"
            "x-amz-content-sha256:"
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
            "x-amz-date:20130524T000000Z\n"
            "\n"
            "host;range;x-amz-content-sha256;x-amz-date\n"
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(signature.string_to_sign,
            "AWS4-HMAC-SHA256\n"
            "20130524T000000Z\n"
            "20130524/us-east-1/s3/aws4_request\n"
            "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972");
  EXPECT_EQ(Added(signature, "Authorization"),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature="
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  EXPECT_EQ(Added(signature, "x-amz-date"), "20130524T000000Z");
  EXPECT_EQ(Added(signature, "x-amz-content-sha256"), kEmptySha256);
  EXPECT_EQ(Added(signature, "x-amz-security-token"), "(none)");
}

TEST(SigV4, SignsThePutObjectOfTheReference) {
  HttpRequest request;
  request.method = "PUT";
  request.headers = {{"Date", "Fri, 24 May 2013 00:00:00 GMT"},
                     {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
  const std::string sha256 = Sha256Hex("Welcome to Amazon S3.");
  EXPECT_EQ(sha256, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
  // The url as written, and with what some client encodes and another does not.
  for (const char* path : {"/test$file.text", "/test%24file.text", "/%74est%24file.text"}) {
    request.url = std::string("https://examplebucket.s3.amazonaws.com") + path;
    const Signature signature = S3Example(request, sha256);
    EXPECT_EQ(signature.canonical_request.substr(0, 24), "PUT\n/test%24file.text\n\nd") << path;
    EXPECT_EQ(Hex(signature), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd")
        << path;
  }
}

TEST(SigV4, SignsQueriesOfTheReference) {
  HttpRequest request;
  request.url = "https://examplebucket.s3.amazonaws.com/?lifecycle";
  EXPECT_EQ(Hex(S3Example(request)),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  for (const char* target : {"/?max-keys=2&prefix=J", "/?prefix=J&max-keys=2",
                             "?prefix=%4a&&max-keys=2&", "/?prefix=J&max-keys=2#part"}) {
    request.url = std::string("https://examplebucket.s3.amazonaws.com") + target;
    EXPECT_EQ(Hex(S3Example(request)),
              "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")
        << target;
  }
}

TEST(SigV4, SignsPathsOfTheSuiteWithoutNormalizingThem) {
  const std::pair<const char*, const char*> cases[] = {
      {"/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
      {"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
      {"//", "c88bcd3d312d75078c0cd961d6deae3f4c754924b01669efcfcb439fd5e5b76e"},
      {"//example//", "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5"},
      {"/./", "68714168e6557f8f2de0ef956fc24dc2593a4bd2961f8df51898d8a134695145"},
      {"/./example", "beb03f223f7deae4146464f06e29eebbee9c8afbe15c290cf07aa8b119e14cff"},
      {"/example/..", "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282"},
      {"/example1/example2/../..",
       "dc33e0856fd4baca4d7aa2146c38958283844764f38c74252a333df5e613003b"},
      {"/example space/", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
      {"/example%20space/", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
      {"/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
       "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
      {"/\xe1\x88\xb4", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
      {"/%e1%88%b4", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
  };
  for (const auto& [path, expected] : cases) {
    EXPECT_EQ(Hex(SuiteCase("GET", path)), expected) << path;
  }
}

TEST(SigV4, SignsQueriesOfTheSuite) {
  const std::pair<const char*, const char*> cases[] = {
      {"/?Param1=value1", "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
      {"/?Param2=value2&Param1=value1",
       "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
      {"/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
       "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
      {"/?\xe1\x88\xb4=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
      {"/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz="
       "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
       "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
  };
  for (const auto& [target, expected] : cases) {
    EXPECT_EQ(Hex(SuiteCase("GET", target)), expected) << target;
  }
}

TEST(SigV4, SignsHeadersOfTheSuite) {
  EXPECT_EQ(
      Hex(SuiteCase("GET", "/", {{"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}})),
      "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
  EXPECT_EQ(Hex(SuiteCase("GET", "/",
                          {{"My-Header1", "value4"},
                           {"My-Header1", "value1"},
                           {"my-header1", "value3"},
                           {"My-Header1", "value2"}})),
            "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01");
  EXPECT_EQ(Hex(SuiteCase("GET", "/", {{"My-Header1", "value1\n  value2\n     value3"}})),
            "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd");
  EXPECT_EQ(Hex(SuiteCase("POST", "/", {{"My-Header1", "VALUE1"}})),
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d");
}

TEST(SigV4, SignsTheSessionTokenOfTheSuite) {
  const std::string token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
  const Signature signature = SuiteCase("GET", "/", {}, token);
  EXPECT_EQ(Hex(signature), "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8");
  EXPECT_EQ(Added(signature, "x-amz-security-token"), token);
}

TEST(SigV4, LeavesOutWhatOthersChangeOnTheWay) {
  const std::string plain = Hex(SuiteCase("GET", "/"));
  EXPECT_EQ(Hex(SuiteCase("GET", "/",
                          {{"User-Agent", "x"},
                           {"Expect", "100-continue"},
                           {"Connection", "close"},
                           {"Accept-Encoding", "gzip"},
                           {"Transfer-Encoding", "chunked"},
                           {"X-Amzn-Trace-Id", "1"}})),
            plain);
  EXPECT_NE(Hex(SuiteCase("GET", "/", {{"If-None-Match", "*"}})), plain);
}

TEST(SigV4, SignsTheHostAsTheClientSendsIt) {
  const std::pair<const char*, const char*> cases[] = {
      {"http://minio:9000/b/k", "minio:9000"},
      {"http://minio:80/b/k", "minio"},
      {"https://minio:443/b/k", "minio"},
      {"https://minio:80/b/k", "minio:80"},
      {"http://minio:443", "minio:443"},
      {"http://[::1]:9000/b", "[::1]:9000"},
      {"http://minio?x", "minio"},
  };
  for (const auto& [url, host] : cases) {
    HttpRequest request;
    request.url = url;
    EXPECT_NE(S3Example(request).canonical_request.find("\nhost:" + std::string(host) + "\n"),
              std::string::npos)
        << url;
  }
}

TEST(SigV4, DependsOnEveryInput) {
  HttpRequest request;
  request.url = "https://host/key?a=1";
  const AwsCredentials credentials = {"id", "secret", "token"};
  const SigningScope scope = {"eu-central-1"};
  const Signature base = Sign(request, kUnsignedPayload, credentials, scope, kMay2013);
  EXPECT_EQ(Added(base, "x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
  EXPECT_EQ(Hex(Sign(request, kUnsignedPayload, credentials, scope, kMay2013 + 999)), Hex(base));

  const auto differs = [&](const Signature& other) { EXPECT_NE(Hex(other), Hex(base)); };
  HttpRequest other = request;
  other.method = "PUT";
  differs(Sign(other, kUnsignedPayload, credentials, scope, kMay2013));
  other = request;
  other.url = "https://host/Key?a=1";
  differs(Sign(other, kUnsignedPayload, credentials, scope, kMay2013));
  other.url = "https://host/key?a=2";
  differs(Sign(other, kUnsignedPayload, credentials, scope, kMay2013));
  other.url = "https://host2/key?a=1";
  differs(Sign(other, kUnsignedPayload, credentials, scope, kMay2013));
  differs(Sign(request, kEmptySha256, credentials, scope, kMay2013));
  differs(Sign(request, kUnsignedPayload, {"id", "Secret", "token"}, scope, kMay2013));
  differs(Sign(request, kUnsignedPayload, {"id", "secret", "token2"}, scope, kMay2013));
  differs(Sign(request, kUnsignedPayload, credentials, {"eu-central-2"}, kMay2013));
  differs(Sign(request, kUnsignedPayload, credentials, scope, kMay2013 + 1000));
}

TEST(SigV4, TakesAPercentThatEncodesNothingAsItself) {
  HttpRequest request;
  request.url = "http://host/50%/%20?%=%g1&%20=b";
  const std::string canonical = S3Example(request).canonical_request;
  EXPECT_EQ(canonical.substr(0, canonical.find("\nhost")), "GET\n/50%25/%2520\n%20=b&%25=%25g1");
}

}  // namespace
}  // namespace guildlite
