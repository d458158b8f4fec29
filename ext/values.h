// SQLite's argument and result values: the few conversions that functions and tables share.
#pragma once

#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "guildlite/status.h"
#include "vfs/shim/boundary.h"

namespace guildlite {

inline void SetError(sqlite3_context* context, const Status& status) {
  const std::string text = status.ToString();
  sqlite3_result_error(context, text.data(), static_cast<int>(text.size()));
  sqlite3_result_error_code(context, ResultCode(status.tag()));
}

inline void SetText(sqlite3_context* context, std::string_view text) {
  sqlite3_result_text64(context, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

// nullopt: missing or NULL.
inline Result<std::optional<std::string>> TextArgument(int argc, sqlite3_value** argv, int i,
                                                       std::string_view name) {
  if (i >= argc || sqlite3_value_type(argv[i]) == SQLITE_NULL) {
    return std::optional<std::string>();
  }
  const int type = sqlite3_value_type(argv[i]);
  if (type == SQLITE_BLOB) {
    return Status(Tag::kBadArgument, std::string(name) + " must be TEXT, not a BLOB");
  }
  const auto* text = reinterpret_cast<const char*>(sqlite3_value_text(argv[i]));
  const auto size = static_cast<size_t>(sqlite3_value_bytes(argv[i]));
  std::string value(text ? text : "", text ? size : 0);
  if (value.find('\0') != std::string::npos) {
    return Status(Tag::kBadArgument, std::string(name) + " holds a NUL character");
  }
  return std::optional<std::string>(std::move(value));
}

// An INTEGER, or a REAL without a fraction, within [least, most].
inline Result<int64_t> IntegerArgument(int argc, sqlite3_value** argv, int i, std::string_view name,
                                       int64_t otherwise, int64_t least, int64_t most) {
  if (i >= argc || sqlite3_value_type(argv[i]) == SQLITE_NULL) return otherwise;
  const auto bad = [&] {
    return Status(Tag::kBadArgument, std::string(name) + " must be a whole number from " +
                                         std::to_string(least) + " to " + std::to_string(most));
  };
  int64_t value = 0;
  switch (sqlite3_value_type(argv[i])) {
    case SQLITE_INTEGER:
      value = sqlite3_value_int64(argv[i]);
      break;
    case SQLITE_FLOAT: {
      const double real = sqlite3_value_double(argv[i]);
      if (!(std::abs(real) <= 9007199254740991.0) || real != std::floor(real)) return bad();
      value = static_cast<int64_t>(real);
      break;
    }
    default:
      return bad();
  }
  if (value < least || value > most) return bad();
  return value;
}

}  // namespace guildlite
