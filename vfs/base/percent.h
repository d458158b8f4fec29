// Percent-encoding (RFC 3986 2.1): the one way bytes get into the urls we make and out of those we
// are given.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "guildlite/status.h"

namespace guildlite {

// Every byte that is not unreserved (RFC 3986 2.3) and not in `kept` becomes %XX, in upper case.
std::string PercentEncode(std::string_view text, std::string_view kept = {});

// nullopt: a % without two hex digits after it. A '+' is a '+'.
std::optional<std::string> PercentDecode(std::string_view text);

// "a/b%20c" -> "a/b c", for urls that must have one meaning: no empty component, no "." or "..", no
// encoded slash or NUL, and only bytes that RFC 3986 3.3 allows, plus the space people type.
// kBadUrl; the message is the reason alone.
Result<std::string> DecodeUrlPath(std::string_view path);

}  // namespace guildlite
