// Points in time as people and programs write them, to unix milliseconds and back.
//
//   1. Accepted: RFC 3339 (zone `Z` or an offset), and what SQLite's datetime() and its relatives
//      yield: "YYYY-MM-DD", "YYYY-MM-DD HH:MM[:SS[.fraction]]", with 'T' or one space. No zone:
//      UTC.
//   2. Strict: fixed digits, a day the calendar has, nothing before or after. No locale, no time
//      zone database, no "now": the same text means the same instant on every machine.
//   3. Digits beyond the millisecond are cut off, not rounded: commit times are whole milliseconds,
//      so "at or before t" is the same set.
//
// Not accepted: second 60 (unix time has no leap seconds), hour 24, Julian day numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace guildlite {

std::optional<int64_t> ParseTime(std::string_view text);

// "2026-11-23T15:00:00.000Z"
std::string FormatTime(int64_t time_ms);

}  // namespace guildlite
