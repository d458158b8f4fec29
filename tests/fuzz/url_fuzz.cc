// libFuzzer: any bytes as a store's url. What is accepted names one absolute directory that cannot
// climb, or a bucket on one http(s) server; what is refused says so in printable bytes. Seeds:
// seeds/url_fuzz.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "vfs/objects/s3_url.h"
#include "vfs/objects/store_url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto url = guildlite::ParseStoreUrl(text);
  if (!url.ok()) {
    for (const char c : url.status().message()) {
      if (c < 0x20 || c > 0x7e) std::abort();
    }
    if (url.status().tag() != guildlite::Tag::kBadUrl) std::abort();
    return 0;
  }
  if (url->scheme == "s3") {
    auto bucket = guildlite::ParseS3Url(url->path);
    if (!bucket.ok()) std::abort();
    const std::string prefix = "/" + bucket->prefix + "/";
    if (prefix.find('\0') != std::string::npos || prefix.find('\n') != std::string::npos ||
        prefix.find("/../") != std::string::npos || prefix.size() > 520) {
      std::abort();
    }
    const auto none = [](const std::string&) { return std::nullopt; };
    bucket = guildlite::CompleteS3Url(std::move(*bucket), none);
    if (!bucket.ok()) std::abort();
    const std::string base = guildlite::S3BaseUrl(*bucket, bucket->region);
    if (!base.starts_with("http") || base.find('@') != std::string::npos ||
        base.find('?') != std::string::npos || base.find(bucket->bucket) == std::string::npos) {
      std::abort();
    }
    for (const char c : base) {
      if (c <= 0x20 || c > 0x7e) std::abort();
    }
    return 0;
  }
  const std::string path = url->path + "/";
  if (path.size() < 3 || path[0] != '/' || path.find('\0') != std::string::npos ||
      path.find("//") != std::string::npos || path.find("/./") != std::string::npos ||
      path.find("/../") != std::string::npos) {
    std::abort();
  }
  return 0;
}
