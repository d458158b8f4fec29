#include "guildlite/types.h"

#include <array>
#include <cstdio>

namespace guildlite {
namespace {

// Exactly `digits` lower-case hex digits.
std::optional<uint64_t> ParseHex(std::string_view text, size_t digits) {
  if (text.size() != digits) return std::nullopt;
  uint64_t v = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      v = v << 4 | static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      v = v << 4 | static_cast<uint64_t>(c - 'a' + 10);
    } else {
      return std::nullopt;
    }
  }
  return v;
}

}  // namespace

std::string Position::ToString() const {
  std::array<char, 64> buf;
  std::snprintf(buf.data(), buf.size(), "%016llx-%08x-%016llx-%08x",
                static_cast<unsigned long long>(lineage.value), epoch.value,
                static_cast<unsigned long long>(txid.value), check);
  return buf.data();
}

std::optional<Position> Position::Parse(std::string_view text) {
  if (text.size() != 51 || text[16] != '-' || text[25] != '-' || text[42] != '-') {
    return std::nullopt;
  }
  const auto lineage = ParseHex(text.substr(0, 16), 16);
  const auto epoch = ParseHex(text.substr(17, 8), 8);
  const auto txid = ParseHex(text.substr(26, 16), 16);
  const auto check = ParseHex(text.substr(43, 8), 8);
  if (!lineage || !epoch || !txid || !check) return std::nullopt;
  return Position{Lineage(*lineage), Epoch(static_cast<uint32_t>(*epoch)), Txid(*txid),
                  static_cast<uint32_t>(*check)};
}

}  // namespace guildlite
