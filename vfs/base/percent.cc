#include "vfs/base/percent.h"

#include <algorithm>

namespace guildlite {
namespace {

bool IsUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-' || c == '~';
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// pchar of RFC 3986 3.3, without '%', plus the space.
bool IsPathByte(char c) {
  return IsUnreserved(c) || std::string_view("!$&'()*+,;=:@ ").find(c) != std::string_view::npos;
}

Status BadPath(std::string_view why) { return Status(Tag::kBadUrl, std::string(why)); }

}  // namespace

std::string PercentEncode(std::string_view text, std::string_view kept) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (IsUnreserved(c) || kept.find(c) != std::string_view::npos) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return out;
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

Result<std::string> DecodeUrlPath(std::string_view path) {
  std::string out;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string_view raw = path.substr(at, end - at);
    at = end + 1;
    for (const char c : raw) {
      if (c == '?' || c == '#') return BadPath("write ? as %3F and # as %23");
      if (c != '%' && !IsPathByte(c)) {
        return BadPath("a byte that must be percent-encoded, as in %C3%BC");
      }
    }
    const auto component = PercentDecode(raw);
    if (!component) return BadPath("% without two hex digits after it; % itself is %25");
    if (component->empty()) return BadPath("an empty path component (two slashes)");
    if (*component == "." || *component == "..") {
      return BadPath("'.' and '..' are not allowed; write the path they lead to");
    }
    if (component->find('/') != std::string::npos || component->find('\0') != std::string::npos) {
      return BadPath("an encoded slash or NUL");
    }
    if (!out.empty()) out += '/';
    out += *component;
  }
  return out;
}

}  // namespace guildlite
