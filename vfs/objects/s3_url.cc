#include "vfs/objects/s3_url.h"

#include <algorithm>
#include <set>

#include "vfs/base/percent.h"
#include "vfs/objects/credentials_profile.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

constexpr std::string_view kForm = "; a bucket is written s3://bucket/prefix?option=value";
constexpr std::string_view kOptions =
    "endpoint, region, path_style, sse, sse_kms_key_id, storage_class";
constexpr std::string_view kUnknown = "is unknown";
// docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html: a key has at most 1024 bytes.
constexpr size_t kPrefixBytesMax = 1024 - kKeyBytesMax - 1;

Status BadUrl(std::string_view rest, std::string_view why) {
  constexpr size_t kShown = 200;
  std::string shown = "s3://";
  for (const char c : rest.substr(0, std::min(rest.find('?'), kShown))) {
    shown += c >= 0x20 && c < 0x7f ? c : '?';
  }
  return Status(Tag::kBadUrl, "store url '" + shown + "': " + std::string(why));
}

bool IsLowerAlnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool AllOf(std::string_view text, std::string_view others) {
  return std::all_of(text.begin(), text.end(), [others](char c) {
    return IsLowerAlnum(c) || (c >= 'A' && c <= 'Z') || others.find(c) != std::string_view::npos;
  });
}

// Laxer than AWS's rules of today: old buckets and other servers have capitals and underscores.
bool IsBucketName(std::string_view bucket) {
  return bucket.size() >= 3 && bucket.size() <= 255 && AllOf(bucket, "._-") &&
         bucket.front() != '.' && bucket.back() != '.' &&
         bucket.find("..") == std::string_view::npos;
}

bool IsHostLabel(std::string_view bucket) {
  return bucket.size() <= 63 && IsLowerAlnum(bucket.front()) && IsLowerAlnum(bucket.back()) &&
         std::all_of(bucket.begin(), bucket.end(),
                     [](char c) { return IsLowerAlnum(c) || c == '-'; });
}

// "" if `endpoint` is one, else what is wrong with it.
std::string_view EndpointTrouble(std::string_view endpoint) {
  const size_t scheme_end = endpoint.find("://");
  if (scheme_end == std::string_view::npos ||
      (endpoint.substr(0, scheme_end) != "https" && endpoint.substr(0, scheme_end) != "http")) {
    return "must begin with https:// or http://";
  }
  endpoint.remove_prefix(scheme_end + 3);
  const std::string_view authority = endpoint.substr(0, endpoint.find('/'));
  endpoint.remove_prefix(authority.size());
  if (authority.find('@') != std::string_view::npos) {
    return "must hold no credentials; set them as AWS tools do";
  }
  std::string_view host = authority, port;
  if (const size_t colon = authority.rfind(':');
      colon != std::string_view::npos && authority.back() != ']') {
    host = authority.substr(0, colon);
    port = authority.substr(colon + 1);
    if (port.empty() || port.size() > 5 ||
        port.find_first_not_of("0123456789") != std::string_view::npos) {
      return "has a port that is no number";
    }
  }
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (host.empty() || !AllOf(host, bracketed ? "[]:." : "._-")) return "has no valid host";
  if (endpoint.empty()) return {};
  const bool path = AllOf(endpoint, "._-~/%") && DecodeUrlPath(endpoint.substr(1)).ok();
  return path ? std::string_view() : "has a path that is none";
}

std::string WithoutSlash(std::string_view endpoint) {
  const bool path_ends = endpoint.ends_with('/') && !endpoint.ends_with("//");
  return std::string(endpoint.substr(0, endpoint.size() - (path_ends ? 1 : 0)));
}

// "" or what is wrong with the value.
std::string_view SetOption(S3Url* url, std::string_view name, const std::string& value) {
  if (name == "endpoint") {
    url->endpoint = WithoutSlash(value);
    return EndpointTrouble(url->endpoint);
  }
  if (name == "region") {
    url->region = value;
    return AllOf(value, "-_") ? "" : "is no region's name";
  }
  if (name == "path_style") {
    url->style = value == "true" ? S3Url::Style::kPath : S3Url::Style::kHost;
    return value == "true" || value == "false" ? "" : "must be true or false";
  }
  if (name == "sse") {
    url->sse = value;
    return value == "AES256" || value == "aws:kms" || value == "aws:kms:dsse"
               ? ""
               : "must be AES256, aws:kms or aws:kms:dsse";
  }
  if (name == "sse_kms_key_id") {
    url->sse_kms_key_id = value;
    return AllOf(value, "-_:/") ? "" : "is no key id, alias or ARN";
  }
  if (name == "storage_class") {
    url->storage_class = value;
    return AllOf(value, "_-") ? "" : "is no storage class";
  }
  return kUnknown;
}

}  // namespace

Result<S3Url> ParseS3Url(std::string_view rest) {
  const size_t question = rest.find('?');
  std::string_view path = rest.substr(0, question);
  if (path.substr(0, path.find('/')).find('@') != std::string_view::npos) {
    return BadUrl("...@...", "credentials do not belong into a url; set them as AWS tools do");
  }
  S3Url url;
  url.bucket = path.substr(0, path.find('/'));
  if (url.bucket.empty()) return BadUrl(rest, "no bucket" + std::string(kForm));
  if (!IsBucketName(url.bucket)) return BadUrl(rest, "not the name of a bucket");
  if (url.bucket.ends_with("--x-s3")) {
    return BadUrl(rest, "directory buckets (S3 Express) are not supported; use a general one");
  }
  path.remove_prefix(url.bucket.size());
  if (path.ends_with('/')) path.remove_suffix(1);
  if (!path.empty()) {
    const auto prefix = DecodeUrlPath(path.substr(1));
    if (!prefix.ok()) return BadUrl(rest, prefix.status().message());
    url.prefix = *prefix;
    for (const char c : url.prefix) {
      // No XML can say such a key in a listing.
      if ((c >= 0 && c < 0x20) || c == 0x7f) return BadUrl(rest, "a control byte in the prefix");
    }
    if (url.prefix.size() > kPrefixBytesMax) return BadUrl(rest, "the prefix is too long");
  }

  std::set<std::string_view> seen;
  for (size_t at = question; at < rest.size();) {
    const size_t begin = at + 1;
    at = std::min(rest.find('&', begin), rest.size());
    const std::string_view pair = rest.substr(begin, at - begin);
    const std::string_view name = pair.substr(0, pair.find('='));
    const auto refuse = [&](std::string_view why) {
      return BadUrl(rest, std::string(name) + "= " + std::string(why));
    };
    const auto value = PercentDecode(pair.substr(std::min(name.size() + 1, pair.size())));
    const auto trouble = SetOption(&url, name, value.value_or(""));
    // Not by its name: that may be the key that somebody put there.
    if (trouble == kUnknown) {
      return BadUrl(rest, "an unknown option; there are " + std::string(kOptions) +
                              ". Credentials are set as AWS tools do");
    }
    if (!seen.insert(name).second) return refuse("is given twice");
    if (!value) return refuse("has a % without two hex digits after it");
    if (value->empty()) return refuse("has no value");
    if (!trouble.empty()) return refuse(trouble);
  }
  if (!url.sse_kms_key_id.empty() && !url.sse.starts_with("aws:kms")) {
    return BadUrl(rest, "sse_kms_key_id= goes with sse=aws:kms");
  }
  if (url.style == S3Url::Style::kHost && !IsHostLabel(url.bucket)) {
    return BadUrl(rest, "path_style=false: this bucket's name cannot be part of a host's");
  }
  return url;
}

Result<S3Url> CompleteS3Url(S3Url url, const Environment& environment) {
  const auto first_of = [&](std::initializer_list<const char*> names) {
    for (const char* name : names) {
      if (const auto value = environment(name); value && !value->empty()) {
        return std::pair<std::string, std::string>(name, *value);
      }
    }
    return std::pair<std::string, std::string>();
  };
  if (url.endpoint.empty()) {
    const auto [name, value] = first_of({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"});
    url.endpoint = WithoutSlash(value);
    if (!value.empty()) {
      if (const auto trouble = EndpointTrouble(url.endpoint); !trouble.empty()) {
        return Status(Tag::kBadUrl, name + " " + std::string(trouble));
      }
    }
  }
  if (url.region.empty()) {
    url.region = AwsRegion(environment);
    if (!AllOf(url.region, "-_")) {
      return Status(Tag::kBadUrl,
                    "AWS_REGION, AWS_DEFAULT_REGION or the profile's region is no region's name");
    }
    if (url.region.empty()) url.region = "us-east-1";
  }
  return url;
}

bool IsAws(const S3Url& complete) {
  if (complete.endpoint.empty()) return true;
  std::string_view host = complete.endpoint;
  if (!host.starts_with("https://")) return false;
  host.remove_prefix(std::string_view("https://").size());
  host = host.substr(0, host.find_first_of(":/"));
  return host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
}

std::string S3BaseUrl(const S3Url& url, std::string_view region) {
  const std::string endpoint = !url.endpoint.empty()
                                   ? url.endpoint
                                   : "https://s3." + std::string(region) + ".amazonaws.com" +
                                         (region.starts_with("cn-") ? ".cn" : "");
  const bool path_style = url.style == S3Url::Style::kByEndpoint
                              ? !url.endpoint.empty() || !IsHostLabel(url.bucket)
                              : url.style == S3Url::Style::kPath;
  if (path_style) return endpoint + "/" + url.bucket;
  const size_t host = endpoint.find("://") + 3;
  return endpoint.substr(0, host) + url.bucket + "." + endpoint.substr(host);
}

std::string S3Place(const S3Url& complete) {
  // A bucket's name is one bucket in all regions.
  std::string server = IsAws(complete) ? "aws" : complete.endpoint;
  const size_t host = server.find("://") + 3;
  if (server != "aws") {
    const size_t path = std::min(server.find('/', host), server.size());
    std::transform(server.begin(), server.begin() + static_cast<ptrdiff_t>(path), server.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    const std::string_view port = server.starts_with("https") ? ":443" : ":80";
    if (std::string_view(server).substr(0, path).ends_with(port)) {
      server.erase(path - port.size(), port.size());
    }
  }
  return server + "/" + complete.bucket + "/" + complete.prefix;
}

}  // namespace guildlite
