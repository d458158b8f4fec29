#include "vfs/objects/s3_store.h"

#include <openssl/evp.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <utility>

#include "vfs/base/percent.h"
#include "vfs/objects/object_key.h"
#include "vfs/objects/s3_xml.h"
#include "vfs/objects/sigv4.h"

namespace guildlite {
namespace {

// Of one request: what the slowest answer that still is one takes, and the slowest network.
constexpr int64_t kTimeoutMs = 10000;
constexpr int64_t kBytesPerMs = 256;
// Four times what we put at most: more is not ours.
constexpr uint64_t kBodyBytesMax = 64 << 20;
constexpr size_t kListPageMax = 1000;
constexpr size_t kDeleteMax = 1000;
constexpr int kEmptyPagesMax = 100;
// S3 accepts 15 minutes; less is not worth a correction.
constexpr int64_t kSkewMinMs = 60000;

constexpr unsigned kLearnedRegion = 1, kLearnedClock = 2, kLearnedCredentials = 4;

bool IsOneOf(std::string_view code, std::initializer_list<std::string_view> codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

std::optional<uint64_t> TakeNumber(std::string_view* text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc()) return std::nullopt;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return value;
}

bool Take(std::string_view* text, std::string_view what) {
  if (!text->starts_with(what)) return false;
  text->remove_prefix(what.size());
  return true;
}

// RFC 9110 14.4: "bytes 0-9/10", or "bytes */10" where none could be given.
struct ContentRange {
  uint64_t first = 0;
  uint64_t last = 0;
  uint64_t size = 0;
};
std::optional<ContentRange> ParseContentRange(std::string_view text) {
  ContentRange range;
  if (!Take(&text, "bytes ")) return std::nullopt;
  if (!Take(&text, "*")) {
    const auto first = TakeNumber(&text);
    if (!first || !Take(&text, "-")) return std::nullopt;
    const auto last = TakeNumber(&text);
    if (!last || *last < *first) return std::nullopt;
    range.first = *first;
    range.last = *last;
  }
  if (!Take(&text, "/")) return std::nullopt;
  const auto size = TakeNumber(&text);
  if (!size || !text.empty()) return std::nullopt;
  range.size = *size;
  return range;
}

// RFC 9110 5.6.7, the form servers must send: "Tue, 27 Mar 2007 19:36:42 GMT". By hand: strptime(3)
// reads it in the host's language.
std::optional<int64_t> ParseHttpDate(std::string_view text) {
  constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  if (text.size() != 29 || text.substr(25) != " GMT") return std::nullopt;
  const auto number = [&](size_t at, size_t digits) -> unsigned {
    std::string_view field = text.substr(at, digits);
    const auto value = TakeNumber(&field);
    return value && field.empty() ? static_cast<unsigned>(*value) : 9999;
  };
  const size_t month = kMonths.find(text.substr(8, 3));
  const unsigned year = number(12, 4), hour = number(17, 2), minute = number(20, 2),
                 second = number(23, 2);
  if (month == std::string_view::npos || month % 3 != 0 || year == 9999 || hour > 23 ||
      minute > 59 || second > 60) {
    return std::nullopt;
  }
  const std::chrono::year_month_day day(std::chrono::year(static_cast<int>(year)),
                                        std::chrono::month(static_cast<unsigned>(month / 3 + 1)),
                                        std::chrono::day(number(5, 2)));
  if (!day.ok()) return std::nullopt;
  const int64_t days = std::chrono::sys_days(day).time_since_epoch().count();
  return ((days * 24 + hour) * 60 + minute) * 60000 + int64_t{second} * 1000;
}

// It becomes part of a host name.
bool IsRegion(std::string_view region) {
  return !region.empty() && region.size() <= 32 &&
         region.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") ==
             std::string_view::npos;
}

// x-amz-checksum-* is written in base64, all other hashes are in hex.
std::string Base64OfHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    unsigned char byte = 0;
    std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
    bytes += static_cast<char>(byte);
  }
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                   reinterpret_cast<const unsigned char*>(bytes.data()),
                                   static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(size));
  return text;
}

Status CheckKey(std::string_view key) {
  if (IsValidKey(key)) return Status::Ok();
  return Status(Tag::kBadArgument, "object key '" + std::string(key) + "' is malformed");
}

std::string WithoutQuotes(std::string_view etag) {
  const bool quoted = etag.size() >= 2 && etag.front() == '"' && etag.back() == '"';
  return std::string(quoted ? etag.substr(1, etag.size() - 2) : etag);
}

std::string_view DenialHint(std::string_view code, bool reading) {
  if (code == "SignatureDoesNotMatch") {
    return "; the secret key is not this access key's, or something between changed the request";
  }
  if (code == "InvalidAccessKeyId") return "; this store does not know the access key";
  if (code == "RequestTimeTooSkewed") {
    return "; this machine's clock is wrong and the store did not tell the time";
  }
  if (IsOneOf(code, {"ExpiredToken", "ExpiredTokenException", "InvalidToken"})) {
    return "; the credentials have ended, and no others were found";
  }
  if (IsOneOf(code, {"AuthorizationHeaderMalformed", "PermanentRedirect"})) {
    return "; say region= in the url";
  }
  if (code.empty()) return "; these are not S3's words: a proxy or another server answers there";
  return reading ? "; S3 says this of a missing object, too, where s3:ListBucket is not allowed: "
                   "README.md has the policy that is needed"
                 : "; README.md has the policy that is needed";
}

}  // namespace

// One request, before it is signed.
struct S3Store::Call {
  enum class Kind { kPut, kGet, kList, kDelete, kDeleteMany } kind;
  std::string key;  // in the bucket; of a list: the prefix
  std::string query = {};
  HttpHeaders headers = {};
  std::string_view body = {};
  std::string sha256 = std::string(kEmptySha256);  // of the body, in hex
  uint64_t bytes_expected = 0;
};

S3Store::S3Store(S3Url url, HttpClient& http, CredentialsProvider& credentials, Clock& clock)
    : url_(std::move(url)),
      http_(http),
      credentials_(credentials),
      clock_(clock),
      region_(url_.region) {}

std::string S3Store::Describe() const {
  std::string text = "s3://" + url_.bucket;
  if (!url_.prefix.empty()) text += "/" + url_.prefix;
  if (!url_.endpoint.empty()) text += "?endpoint=" + url_.endpoint;
  return text;
}

std::string S3Store::FullKey(std::string_view key) const {
  return url_.prefix.empty() ? std::string(key) : url_.prefix + "/" + std::string(key);
}

std::string S3Store::region() const {
  const std::lock_guard lock(mutex_);
  return region_;
}

std::string S3Store::Doing(const Call& call) const {
  constexpr std::string_view kVerbs[] = {"put", "get", "list", "delete", "delete many of"};
  return std::string(kVerbs[static_cast<int>(call.kind)]) + " s3://" + url_.bucket + "/" + call.key;
}

// Sends, signed; again where the answer taught how.
Result<HttpResponse> S3Store::Send(const Call& call) {
  constexpr std::string_view kMethods[] = {"PUT", "GET", "GET", "DELETE", "POST"};
  for (unsigned learned = 0;;) {
    const std::string in_region = region();
    HttpRequest request;
    request.method = kMethods[static_cast<int>(call.kind)];
    request.url = S3BaseUrl(url_, in_region);
    if (call.kind != Call::Kind::kList && call.kind != Call::Kind::kDeleteMany)
      request.url += "/" + PercentEncode(call.key, "/");
    if (!call.query.empty()) request.url += "?" + call.query;
    request.headers = call.headers;
    request.body = call.body;
    request.timeout_ms = kTimeoutMs + static_cast<int64_t>(std::max<uint64_t>(
                                          call.body.size(), call.bytes_expected)) /
                                          kBytesPerMs;
    request.body_bytes_max = kBodyBytesMax;

    auto credentials = credentials_.Get();
    if (!credentials.ok()) return credentials.status().Context(Doing(call));
    Signature signature = Sign(request, call.sha256, *credentials, {.region = in_region},
                               clock_.NowMs() + clock_skew_ms_);
    std::move(signature.headers.begin(), signature.headers.end(),
              std::back_inserter(request.headers));
    auto response = http_.Send(request);
    if (!response.ok()) {
      const Status& s = response.status();
      // Only a put that was done twice differs from one that was done once.
      if (s.tag() != Tag::kOutcomeUnknown) return s.Context(Doing(call));
      return Status(call.kind == Call::Kind::kPut ? s.tag() : Tag::kStoreUnreachable,
                    Doing(call) + ": " + s.message(), true);
    }
    if (!Learn(*response, &learned)) return response;
  }
}

// Whether the answer says how to ask so that it will be another one.
bool S3Store::Learn(const HttpResponse& response, unsigned* learned) {
  const int status = response.status;
  if (status != 301 && status != 307 && status != 400 && status != 401 && status != 403) {
    return false;
  }
  const auto first_time = [&](unsigned lesson) {
    const bool first = !(*learned & lesson);
    *learned |= lesson;
    return first;
  };
  const S3Error error = ParseS3Error(response.body);
  if (error.code == "RequestTimeTooSkewed") {
    const auto theirs = ParseHttpDate(response.Header("date"));
    if (!theirs || !first_time(kLearnedClock)) return false;
    const int64_t skew = *theirs - clock_.NowMs();
    return std::abs(skew - clock_skew_ms_.exchange(skew)) >= kSkewMinMs;
  }
  if (IsOneOf(error.code,
              {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"})) {
    if (!first_time(kLearnedCredentials)) return false;
    credentials_.Invalidate();
    return true;
  }
  if (status == 301 || status == 307 || error.code == "AuthorizationHeaderMalformed" ||
      error.code == "IllegalLocationConstraintException") {
    std::string there(response.Header("x-amz-bucket-region"));
    if (there.empty()) there = error.region;
    if (!IsRegion(there) || !first_time(kLearnedRegion)) return false;
    const std::lock_guard lock(mutex_);
    region_ = there;
    return true;
  }
  return false;
}

Status S3Store::Failure(const Call& call, const HttpResponse& response) const {
  return Failure(call, response, ParseS3Error(response.body));
}

Status S3Store::Failure(const Call& call, const HttpResponse& response,
                        const S3Error& error) const {
  const int status = response.status;
  const bool putting = call.kind == Call::Kind::kPut;
  const bool reading = call.kind == Call::Kind::kGet;
  std::string said = Doing(call) + ": the store answered " + std::to_string(status);
  if (!error.code.empty()) said += " " + error.code;
  if (!error.message.empty()) said += ", " + error.message;
  std::string_view id = response.Header("x-amz-request-id");
  if (id.empty()) id = error.request_id;
  if (!id.empty()) said += " (request " + std::string(id.substr(0, 64)) + ")";
  const auto failed = [&](Tag tag, bool retryable, std::string_view hint = {}) {
    return Status(tag, said + std::string(hint), retryable);
  };

  if (error.code == "NoSuchBucket") {
    return failed(Tag::kNoBucket, false, "; create the bucket, or correct the url");
  }
  if (status == 429 || IsOneOf(error.code, {"SlowDown", "Throttling", "ThrottlingException",
                                            "RequestLimitExceeded", "TooManyRequests"})) {
    return failed(Tag::kStoreThrottled, true);
  }
  if (status == 409) return failed(Tag::kStoreThrottled, true);
  if (IsOneOf(error.code, {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
                           "IncompleteBody", "RequestTimeout"})) {
    return failed(Tag::kStoreUnreachable, true, "; what was sent did not arrive whole");
  }
  if (status == 507 || IsOneOf(error.code, {"QuotaExceeded", "XMinioStorageFull"})) {
    return failed(Tag::kDiskFull, false);
  }
  if (status == 401 || status == 403 ||
      IsOneOf(error.code,
              {"AccessDenied", "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed"})) {
    return failed(Tag::kStoreDenied, false, DenialHint(error.code, reading));
  }
  if (status == 501) {
    return failed(Tag::kStoreUnsafe, false, "; guildlite needs conditional puts of its store");
  }
  if (status >= 500 || status == 200) {  // 200: of one key among many
    return failed(putting ? Tag::kOutcomeUnknown : Tag::kStoreUnreachable, true);
  }
  if (status >= 300 && status < 400) {
    return failed(Tag::kBadUrl, false, "; the bucket is elsewhere: say region= or endpoint=");
  }
  return failed(Tag::kStoreUnreachable, false,
                error.code.empty() ? "; is the endpoint an S3 server?" : "");
}

Result<std::string> S3Store::Put(std::string_view key, std::string_view bytes,
                                 const PutCondition& condition) {
  GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  Call call{Call::Kind::kPut, FullKey(key)};
  call.body = bytes;
  call.sha256 = Sha256Hex(bytes);
  call.headers.emplace_back("x-amz-checksum-sha256", Base64OfHex(call.sha256));
  const auto add = [&call](const char* name, const std::string& value) {
    if (!value.empty()) call.headers.emplace_back(name, value);
  };
  add("x-amz-server-side-encryption", url_.sse);
  add("x-amz-server-side-encryption-aws-kms-key-id", url_.sse_kms_key_id);
  add("x-amz-storage-class", url_.storage_class);
  const bool creating = condition.kind == PutCondition::Kind::kCreate;
  const bool matching = condition.kind == PutCondition::Kind::kMatch;
  if (creating) add("If-None-Match", "*");
  // To some stores an empty If-Match means "create"; to nobody does it mean a version.
  if (matching && condition.version.empty()) {
    return Status(Tag::kPrecondition, Doing(call) + ": no version matches an empty one");
  }
  if (matching) {
    add("If-Match", bare_etags_ ? WithoutQuotes(condition.version) : condition.version);
  }

  const auto response = Send(call);
  if (!response.ok()) return response.status();
  if (response->status == 200 || response->status == 204) {
    std::string version(response->Header("etag"));
    if (!version.empty()) return version;
    return Status(Tag::kStoreUnsafe, Doing(call) +
                                         ": the store gave no ETag, so that nothing "
                                         "could be replaced safely");
  }
  const bool missing = response->status == 404 && ParseS3Error(response->body).code == "NoSuchKey";
  if (creating && response->status == 412) {
    return Status(Tag::kAlreadyExists, Doing(call) + ": it exists");
  }
  if (matching && (response->status == 412 || missing)) {
    return Status(Tag::kPrecondition, Doing(call) + ": it changed meanwhile");
  }
  return Failure(call, *response);
}

Result<StoredObject> S3Store::Get(std::string_view key, std::optional<ByteRange> range) {
  GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  Call call{Call::Kind::kGet, FullKey(key)};
  uint64_t first = 0, last = 0, wanted = UINT64_MAX;
  if (range) {
    // Servers read these as signed; an empty range cannot be said at all.
    first = std::min<uint64_t>(range->offset, INT64_MAX);
    wanted = range->length;
    last =
        first + std::min<uint64_t>(std::max<uint64_t>(wanted, 1) - 1, uint64_t{INT64_MAX} - first);
    call.headers.emplace_back("Range",
                              "bytes=" + std::to_string(first) + "-" + std::to_string(last));
    call.bytes_expected = std::min(wanted, kBodyBytesMax);
  } else {
    call.headers.emplace_back("x-amz-checksum-mode", "ENABLED");
    call.bytes_expected = kBodyBytesMax / 4;  // as much as we put
  }

  auto response = Send(call);
  if (!response.ok()) return response.status();
  const auto damaged = [&](std::string_view what) {
    return Status(Tag::kStoreUnreachable, Doing(call) + ": " + std::string(what), true);
  };
  StoredObject object;
  object.version = response->Header("etag");
  const auto content_range = ParseContentRange(response->Header("content-range"));
  if (response->status == 416 && range) {
    if (content_range) {
      object.size = content_range->size;
    } else if (const auto size = ParseS3Error(response->body).object_size) {
      object.size = *size;
    } else {
      return damaged("a range beyond the end, and the store does not say where that is");
    }
    return object;
  }
  if (response->status != 200 && response->status != 206) {
    if (response->status == 404 && ParseS3Error(response->body).code == "NoSuchKey") {
      return Status(Tag::kNotFound, Doing(call) + ": no such object");
    }
    return Failure(call, *response);
  }

  std::string_view announced = response->Header("content-length");
  if (!announced.empty() && TakeNumber(&announced) != response->body.size()) {
    return damaged("the body is not as long as announced");
  }
  object.bytes = std::move(response->body);
  if (response->status == 206) {
    if (!range || !content_range || content_range->first != first || content_range->size == 0 ||
        content_range->last != std::min(last, content_range->size - 1) ||
        content_range->last - first + 1 != object.bytes.size()) {
      return damaged("the store sent another range than the one asked for");
    }
    object.size = content_range->size;
    first = 0;
  } else {
    object.size = object.bytes.size();
    const std::string_view checksum = response->Header("x-amz-checksum-sha256");
    // With a "-" it is one of parts, made by somebody else's upload.
    if (!checksum.empty() && checksum.find('-') == std::string_view::npos &&
        checksum != Base64OfHex(Sha256Hex(object.bytes))) {
      return damaged("the body is not what its checksum says");
    }
  }
  // Of a server that knows no ranges, or of an empty one.
  if (first > 0) object.bytes.erase(0, std::min<uint64_t>(first, object.bytes.size()));
  if (object.bytes.size() > wanted) object.bytes.resize(wanted);
  return object;
}

Result<std::vector<ListEntry>> S3Store::List(std::string_view prefix, std::string_view start_after,
                                             size_t limit) {
  const std::string base = FullKey("");
  std::vector<ListEntry> entries;
  std::string token, last = start_after.empty() ? "" : base + std::string(start_after);
  const auto wrong = [this](const Call& call) {
    return Status(Tag::kStoreUnreachable,
                  Doing(call) + ": the listing is out of order, endless, or of something else");
  };
  int empty_pages = 0;
  while (entries.size() < limit) {
    Call call{Call::Kind::kList, base + std::string(prefix)};
    // In the order that a signature needs.
    if (!token.empty()) call.query = "continuation-token=" + PercentEncode(token) + "&";
    call.query +=
        "list-type=2&max-keys=" + std::to_string(std::min(limit - entries.size(), kListPageMax)) +
        "&prefix=" + PercentEncode(call.key);
    if (token.empty() && !start_after.empty()) call.query += "&start-after=" + PercentEncode(last);
    const auto response = Send(call);
    if (!response.ok()) return response.status();
    if (response->status != 200) return Failure(call, *response);
    auto page = ParseS3List(response->body);
    if (!page.ok()) return page.status().Context(Doing(call));
    for (ListEntry& entry : page->entries) {
      if (!entry.key.starts_with(call.key) || entry.key <= last) {
        return wrong(call);
      }
      last = entry.key;
      entry.key.erase(0, base.size());
      // What others keep there is theirs.
      if (IsValidKey(entry.key) && entries.size() < limit) entries.push_back(std::move(entry));
    }
    if (page->next.empty()) break;
    // Deleted objects can leave a page empty, but not many of them.
    if (page->entries.empty() && ++empty_pages > kEmptyPagesMax) return wrong(call);
    token = std::move(page->next);
  }
  return entries;
}

Status S3Store::Delete(std::string_view key) {
  GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  const Call call{Call::Kind::kDelete, FullKey(key)};
  const auto response = Send(call);
  if (!response.ok()) return response.status();
  if (response->status == 200 || response->status == 204) return Status::Ok();
  if (response->status == 404 && ParseS3Error(response->body).code == "NoSuchKey") {
    return Status::Ok();
  }
  return Failure(call, *response);
}

Status S3Store::DeleteAll(std::span<const std::string> keys) {
  for (const std::string& key : keys) GUILDLITE_RETURN_IF_ERROR(CheckKey(key));
  while (!keys.empty() && !single_deletes_) {
    const auto some = keys.first(std::min(keys.size(), kDeleteMax));
    std::vector<std::string> full;
    for (const std::string& key : some) full.push_back(FullKey(key));
    const std::string body = S3DeleteRequest(full);
    Call call{Call::Kind::kDeleteMany, FullKey("")};
    call.query = "delete=";
    call.body = body;
    call.sha256 = Sha256Hex(body);
    call.headers = {{"Content-Type", "application/xml"},
                    {"x-amz-checksum-sha256", Base64OfHex(call.sha256)}};
    const auto response = Send(call);
    if (!response.ok()) return response.status();
    if (IsOneOf(ParseS3Error(response->body).code,
                {"NotImplemented", "MethodNotAllowed", "MissingContentMD5", "InvalidRequest"})) {
      single_deletes_ = true;
      break;
    }
    if (response->status != 200) return Failure(call, *response);
    const auto error = ParseS3Deleted(response->body);
    if (!error.ok()) return error.status().Context(Doing(call));
    if (!error->code.empty()) return Failure(call, *response, *error);
    keys = keys.subspan(some.size());
  }
  return ObjectStore::DeleteAll(keys);
}

}  // namespace guildlite
