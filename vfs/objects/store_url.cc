#include "vfs/objects/store_url.h"

#include <algorithm>
#include <optional>

#include "vfs/objects/local_store.h"

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

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return out;
}

// pchar of RFC 3986 3.3, without '%', plus the '/' between components and the space people type.
bool IsPathByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~!$&'()*+,;=:@/ ").find(c) != std::string_view::npos;
}

Result<StoreUrl> ParseFile(std::string_view url, std::string_view rest) {
  if (rest.empty() || rest == "/") {
    return BadUrl(url, "no directory; file:///absolute/path, and not the root of the file system");
  }
  if (rest[0] != '/') {
    return BadUrl(url, "a host, or a path that is not absolute" + std::string(kFileForm) +
                           ", with three slashes");
  }
  StoreUrl parsed;
  parsed.scheme = "file";
  if (rest.ends_with('/')) rest.remove_suffix(1);
  for (std::string_view left = rest; !left.empty();) {
    left.remove_prefix(1);  // the '/'
    const size_t end = std::min(left.find('/'), left.size());
    const std::string_view raw = left.substr(0, end);
    left.remove_prefix(end);
    for (const char c : raw) {
      if (c == '?' || c == '#') {
        return BadUrl(url, "a directory takes no query or fragment; write ? as %3F and # as %23");
      }
      if (c != '%' && !IsPathByte(c)) {
        return BadUrl(url, "a byte that must be percent-encoded, as in %C3%BC");
      }
    }
    const auto component = PercentDecode(raw);
    if (!component) return BadUrl(url, "% without two hex digits after it; % itself is %25");
    if (component->empty()) return BadUrl(url, "an empty path component (two slashes)");
    if (*component == "." || *component == "..") {
      return BadUrl(url, "'.' and '..' are not allowed; write the path they lead to");
    }
    if (component->find('/') != std::string::npos || component->find('\0') != std::string::npos) {
      return BadUrl(url, "an encoded slash or NUL");
    }
    parsed.path += '/' + *component;
  }
  return parsed;
}

Result<StoreUrl> ParseS3(std::string_view url, std::string_view rest) {
  if (rest.substr(0, rest.find('/')).find('@') != std::string_view::npos) {
    return BadUrl("s3://...@...", "credentials do not belong into a url; set them as AWS tools do");
  }
  if (rest.empty() || rest[0] == '/' || rest[0] == '?') {
    return BadUrl(url, "no bucket; s3://bucket/prefix");
  }
  return StoreUrl{"s3", std::string(rest)};
}

struct Scheme {
  std::string_view name;
  Result<StoreUrl> (*parse)(std::string_view url, std::string_view rest);
  Result<std::unique_ptr<ObjectStore>> (*open)(const StoreUrl& url, Clock& clock, Random& random);
};

// Every kind of store there is: a new one is its files and its line here.
const Scheme kSchemes[] = {
    {"file", &ParseFile,
     [](const StoreUrl& url, Clock& clock, Random& random) -> Result<std::unique_ptr<ObjectStore>> {
       return std::unique_ptr<ObjectStore>(std::make_unique<LocalStore>(url.path, clock, random));
     }},
    {"s3", &ParseS3,
     [](const StoreUrl& url, Clock&, Random&) -> Result<std::unique_ptr<ObjectStore>> {
       return BadUrl("s3://" + url.path, "this build has no S3 store" + std::string(kFileForm));
     }},
};

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

Result<std::unique_ptr<ObjectStore>> OpenStore(std::string_view url, Clock& clock, Random& random) {
  const auto parsed = ParseStoreUrl(url);
  if (!parsed.ok()) return parsed.status();
  return FindScheme(parsed->scheme)->open(*parsed, clock, random);
}

}  // namespace guildlite
