#include "tests/support/memory_s3.h"

#include <openssl/evp.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "guildlite/clock.h"
#include "tests/support/scripted_http.h"
#include "vfs/base/percent.h"

namespace guildlite {
namespace {

using Reply = TestHttpServer::Reply;
using Request = TestHttpServer::Request;

std::string Digest(const EVP_MD* kind, std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, kind, nullptr);
  return {reinterpret_cast<const char*>(digest.data()), size};
}

std::string Hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto b = static_cast<unsigned char>(c);
    text += {kDigits[b >> 4], kDigits[b & 15]};
  }
  return text;
}

std::string Base64(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                   reinterpret_cast<const unsigned char*>(bytes.data()),
                                   static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(size));
  return text;
}

std::string Bare(std::string_view etag) {
  if (etag.size() >= 2 && etag.front() == '"') etag = etag.substr(1, etag.size() - 2);
  return std::string(etag);
}

std::string XmlText(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&' || c == '<' || c == '>') {
      out += "&#" + std::to_string(int{c}) + ";";
    } else {
      out += c;
    }
  }
  return out;
}

std::string TimeText(int64_t unix_ms, const char* format) {
  const auto seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 64> text;
  return {text.data(), std::strftime(text.data(), text.size(), format, &parts)};
}

}  // namespace

MemoryS3::MemoryS3(std::string bucket, S3Flaws flaws) : bucket_(std::move(bucket)), flaws_(flaws) {}

void MemoryS3::SetRegion(std::string region) {
  const std::lock_guard lock(mutex_);
  region_ = std::move(region);
}
void MemoryS3::SetSkewMs(int64_t ms) {
  const std::lock_guard lock(mutex_);
  skew_ms_ = ms;
}
void MemoryS3::SetListPage(size_t keys) {
  const std::lock_guard lock(mutex_);
  list_page_ = keys;
}
size_t MemoryS3::objects() const {
  const std::lock_guard lock(mutex_);
  return objects_.size();
}
std::string MemoryS3::Content(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto it = objects_.find(key);
  return it == objects_.end() ? "" : it->second.bytes;
}

Reply MemoryS3::Error(int status, const std::string& code, const std::string& more_xml) {
  Reply reply;
  reply.status = status;
  reply.headers = {{"Content-Type", "application/xml"}};
  reply.body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>" + code +
               "</Code><Message>said in a test</Message>" + more_xml +
               "<RequestId>4442587FB7D0A2F9</RequestId></Error>";
  return reply;
}

// What is checked before a request is looked at.
std::optional<Reply> MemoryS3::Unacceptable(const Request& request) const {
  const std::string_view authorization = request.Header("authorization");
  if (!authorization.starts_with("AWS4-HMAC-SHA256 Credential=")) {
    return Error(403, "AccessDenied");
  }
  const std::string_view scope = authorization.substr(0, authorization.find(','));
  if (!region_.empty() && scope.find("/" + region_ + "/s3/aws4_request") == std::string::npos) {
    return Error(400, "AuthorizationHeaderMalformed", "<Region>" + region_ + "</Region>");
  }
  const std::string_view signed_at = request.Header("x-amz-date");
  const int64_t now_ms = SystemClock().NowMs() + skew_ms_;
  bool in_time = false;
  for (int64_t minute = -15; minute <= 15 && !in_time; ++minute) {
    in_time = signed_at.substr(0, 13) == TimeText(now_ms + minute * 60000, "%Y%m%dT%H%M");
  }
  if (!in_time) {
    Reply reply = Error(403, "RequestTimeTooSkewed");
    reply.headers.emplace_back("Date", TimeText(now_ms, "%a, %d %b %Y %H:%M:%S GMT"));
    return reply;
  }
  if (request.Header("x-amz-content-sha256") != Hex(Digest(EVP_sha256(), request.body))) {
    return Error(400, "XAmzContentSHA256Mismatch");
  }
  return std::nullopt;
}

Reply MemoryS3::Handle(const Request& request) {
  const size_t question = std::min(request.target.find('?'), request.target.size());
  const std::string path = PercentDecode(request.target.substr(0, question)).value_or("");
  std::map<std::string, std::string> query;
  for (size_t at = question; at < request.target.size();) {
    const size_t begin = at + 1;
    at = std::min(request.target.find('&', begin), request.target.size());
    const std::string pair = request.target.substr(begin, at - begin);
    const size_t equals = std::min(pair.find('='), pair.size() - 1);
    query[pair.substr(0, equals)] = PercentDecode(pair.substr(equals + 1)).value_or("");
  }
  {
    const std::lock_guard lock(mutex_);
    if (auto refusal = Unacceptable(request)) return std::move(*refusal);
  }
  const std::string root = "/" + bucket_;
  if (path != root && !path.starts_with(root + "/")) return Error(404, "NoSuchBucket");
  const std::string key = path == root ? "" : path.substr(root.size() + 1);
  if (key.empty() && request.method == "POST" && query.contains("delete")) {
    return flaws_.no_delete_many ? Error(501, "NotImplemented") : DeleteMany(request);
  }
  if (key.empty()) {
    const bool listing = request.method == "GET" && query["list-type"] == "2";
    return listing ? List(query) : Error(501, "NotImplemented");
  }
  if (request.method == "PUT") return Put(request, key);
  if (request.method == "GET") return Get(request, key);
  if (request.method == "DELETE") {
    const std::lock_guard lock(mutex_);
    objects_.erase(key);
    return {.status = 204};
  }
  return Error(405, "MethodNotAllowed");
}

Reply MemoryS3::DeleteMany(const Request& request) {
  if (request.Header("x-amz-checksum-sha256") != Base64(Digest(EVP_sha256(), request.body))) {
    return Error(400, "InvalidRequest");
  }
  Reply reply;
  reply.status = 200;
  reply.body = "<DeleteResult>";
  const std::lock_guard lock(mutex_);
  constexpr std::string_view kOpen = "<Key>", kClose = "</Key>";
  size_t keys = 0;
  for (size_t at = 0; (at = request.body.find(kOpen, at)) != std::string::npos; ++keys) {
    at += kOpen.size();
    const std::string key = request.body.substr(at, request.body.find(kClose, at) - at);
    if (key == flaws_.keeps) {
      reply.body += "<Error><Key>" + key + "</Key><Code>AccessDenied</Code></Error>";
    } else {
      objects_.erase(key);
    }
  }
  if (keys == 0 || keys > 1000) return Error(400, "MalformedXML");
  reply.body += "</DeleteResult>";
  return reply;
}

Reply MemoryS3::Put(const Request& request, const std::string& key) {
  const std::string create(request.Header("if-none-match")), match(request.Header("if-match"));
  const bool conditional = !create.empty() || !match.empty();
  const std::string checksum(request.Header("x-amz-checksum-sha256"));
  if (!checksum.empty() && checksum != Base64(Digest(EVP_sha256(), request.body))) {
    return Error(400, "BadDigest");
  }
  if (conditional && flaws_.refuses_conditions) return Error(501, "NotImplemented");

  std::unique_lock lock(mutex_);
  const auto it = objects_.find(key);
  const bool there = it != objects_.end();
  if (!create.empty() && there && !flaws_.ignores_create) return Error(412, "PreconditionFailed");
  if (!match.empty() && !flaws_.ignores_match) {
    if (!there && !flaws_.matches_missing) return Error(404, "NoSuchKey");
    const bool quoted = match.front() == '"';
    if (there && (Bare(match) != Bare(it->second.etag) || (quoted && flaws_.bare_etags_only))) {
      return Error(412, "PreconditionFailed");
    }
  }
  if (conditional && flaws_.races) {
    Evaluated& evaluated = evaluated_[key];
    const int mine = ++evaluated.count;
    evaluated_changed_.notify_all();
    // Until another one got as far as this one: then both are done. A put that is alone gives up.
    if (evaluated.waiting++ == 0) {
      evaluated_changed_.wait_for(lock, std::chrono::milliseconds(100),
                                  [&] { return evaluated.count > mine; });
    }
    --evaluated.waiting;
  }
  Object& object = objects_[key];
  object.previous = std::move(object.bytes);
  object.bytes = request.body;
  object.etag = "\"" + Hex(Digest(EVP_md5(), request.body)) + "\"";
  object.sha256 = flaws_.no_checksums ? "" : checksum;
  return {.status = 200, .headers = {{"ETag", object.etag}}};
}

Reply MemoryS3::Get(const Request& request, const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto it = objects_.find(key);
  if (it == objects_.end()) {
    return flaws_.denies_missing ? Error(403, "AccessDenied") : Error(404, "NoSuchKey");
  }
  const Object& object = it->second;
  const std::string& bytes = flaws_.reads_stale ? object.previous : object.bytes;
  const std::string size = std::to_string(bytes.size());
  Reply reply;
  reply.headers = {{"ETag", object.etag}};
  std::string_view range = request.Header("range");
  if (range.empty() || flaws_.no_ranges) {
    reply.body = bytes;
    if (request.Header("x-amz-checksum-mode") == "ENABLED" && !object.sha256.empty() &&
        !flaws_.reads_stale) {
      reply.headers.emplace_back("x-amz-checksum-sha256", object.sha256);
    }
    return reply;
  }
  range.remove_prefix(std::string_view("bytes=").size());
  const size_t dash = range.find('-');
  const uint64_t first = std::strtoull(std::string(range.substr(0, dash)).c_str(), nullptr, 10);
  const uint64_t last = std::strtoull(std::string(range.substr(dash + 1)).c_str(), nullptr, 10);
  if (first >= bytes.size()) {
    reply = Error(416, "InvalidRange", "<ActualObjectSize>" + size + "</ActualObjectSize>");
    return reply;
  }
  const uint64_t end = std::min<uint64_t>(last + 1, bytes.size());
  reply.status = 206;
  reply.body = bytes.substr(first, end - first);
  reply.headers.emplace_back("Content-Range", "bytes " + std::to_string(first) + "-" +
                                                  std::to_string(end - 1) + "/" + size);
  return reply;
}

Reply MemoryS3::List(const std::map<std::string, std::string>& query) {
  const std::lock_guard lock(mutex_);
  const auto value = [&](const char* name) {
    const auto it = query.find(name);
    return it == query.end() ? std::string() : it->second;
  };
  const std::string prefix = value("prefix"), token = value("continuation-token");
  const std::string after = token.empty() ? value("start-after") : token;
  const size_t limit =
      std::min<size_t>(std::strtoul(value("max-keys").c_str(), nullptr, 10), list_page_);
  std::string contents, last;
  size_t count = 0;
  bool more = false;
  for (auto it = objects_.upper_bound(after); it != objects_.end(); ++it) {
    if (!it->first.starts_with(prefix)) continue;
    if (count == limit) {
      more = true;
      break;
    }
    ++count;
    last = it->first;
    contents += "<Contents><Key>" + XmlText(it->first) + "</Key><Size>" +
                std::to_string(it->second.bytes.size()) + "</Size></Contents>";
  }
  Reply reply;
  reply.body =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>" +
      std::string(more ? "true" : "false") + "</IsTruncated>" +
      (more ? "<NextContinuationToken>" + XmlText(last) + "</NextContinuationToken>" : "") +
      contents + "</ListBucketResult>";
  return reply;
}

TestCredentials::TestCredentials(HttpClient& http)
    : CredentialsProvider(
          MapEnvironment({{"AWS_ACCESS_KEY_ID", "AKIATEST"}, {"AWS_SECRET_ACCESS_KEY", "secret"}}),
          http, SystemClock()) {}

Result<HttpResponse> DirectHttp::Send(const HttpRequest& request) {
  Request received;
  received.method = request.method;
  const size_t path = request.url.find('/', request.url.find("://") + 3);
  received.target = path == std::string::npos ? "/" : request.url.substr(path);
  for (const auto& [name, value] : request.headers) {
    std::string lower = name;
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    received.headers.emplace_back(lower, value);
  }
  const size_t host = request.url.find("://") + 3;
  received.headers.emplace_back("host", request.url.substr(host, path - host));
  received.body = request.body;

  Reply reply = handler_(received);
  if (reply.gate) reply.gate->Wait();
  if (reply.close_before_answering ||
      reply.close_after_body_bytes.value_or(SIZE_MAX) < reply.body.size()) {
    return Status(Tag::kOutcomeUnknown, "the connection ended", true);
  }
  HttpResponse response;
  response.status = reply.status;
  response.body = std::move(reply.body);
  response.headers = {{"content-length", std::to_string(response.body.size())}};
  for (const auto& [name, value] : reply.headers) {
    std::string lower = name;
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    response.headers.emplace_back(lower, value);
  }
  return response;
}

}  // namespace guildlite
