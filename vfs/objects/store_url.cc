#include "vfs/objects/store_url.h"

#include <algorithm>
#include <optional>

#include "vfs/base/percent.h"
#include "vfs/objects/s3_url.h"

namespace guildlite {
namespace {

constexpr std::string_view kFileForm = "; a directory is written file:///absolute/path";
// More is no url but somebody's data.
constexpr size_t kUrlBytesMax = 4096;

Status BadUrl(std::string_view url, std::string_view why) {
  constexpr size_t kShown = 200;
  std::string shown;
  for (const char c : url.substr(0, kShown)) {
    // What is not printable would end up in a log line.
    shown += c >= 0x20 && c < 0x7f ? c : '?';
  }
  if (url.size() > kShown) shown += "...";
  return Status(Tag::kBadUrl, "store url '" + shown + "': " + std::string(why));
}

bool LooksLikePath(std::string_view url) {
  return url.starts_with("/") || url.starts_with("./") || url.starts_with("../") ||
         url.starts_with("~") || url.ends_with(".db") || url.ends_with(".sqlite") ||
         url.ends_with(".sqlite3");
}

Result<StoreUrl> ParseFile(std::string_view url, std::string_view rest) {
  if (rest.empty() || rest == "/") {
    return BadUrl(url, "no directory; file:///absolute/path, and not the root of the file system");
  }
  if (rest[0] != '/') {
    return BadUrl(url, "a host, or a path that is not absolute" + std::string(kFileForm) +
                           ", with three slashes");
  }
  if (rest.find_first_of("?#") != std::string_view::npos) {
    return BadUrl(url, "a directory takes no query or fragment; write ? as %3F and # as %23");
  }
  rest.remove_prefix(1);
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const auto path = DecodeUrlPath(rest);
  if (!path.ok()) return BadUrl(url, path.status().message());
  return StoreUrl{"file", '/' + *path};
}

Result<StoreUrl> ParseS3(std::string_view, std::string_view rest) {
  const auto parsed = ParseS3Url(rest);
  if (!parsed.ok()) return parsed.status();
  return StoreUrl{"s3", std::string(rest)};
}

struct Scheme {
  std::string_view name;
  Result<StoreUrl> (*parse)(std::string_view url, std::string_view rest);
};

const Scheme kSchemes[] = {{"file", &ParseFile}, {"s3", &ParseS3}};

const Scheme* FindScheme(std::string_view name) {
  for (const Scheme& scheme : kSchemes) {
    if (scheme.name == name) return &scheme;
  }
  return nullptr;
}

}  // namespace

Result<StoreUrl> ParseStoreUrl(std::string_view url) {
  if (url.empty()) return BadUrl(url, "empty" + std::string(kFileForm));
  if (url.size() > kUrlBytesMax) return BadUrl(url, "too long");
  if (url.find('\0') != std::string_view::npos) return BadUrl(url, "a NUL byte");
  const size_t colon = url.find("://");
  if (colon == std::string_view::npos) {
    if (url.starts_with("file:")) return BadUrl(url, "'//' is missing" + std::string(kFileForm));
    return BadUrl(url, (LooksLikePath(url) ? "this is a path; were path and url swapped?"
                                           : "no scheme, as file:// or s3://") +
                           std::string(kFileForm));
  }
  const Scheme* const scheme = FindScheme(url.substr(0, colon));
  if (!scheme) {
    return BadUrl(url, "unknown scheme; there are file:// and s3:// (in lower case)");
  }
  return scheme->parse(url, url.substr(colon + 3));
}

}  // namespace guildlite
